"""Name the type of a training curve's rows, for the training loop that writes them and for their readers."""

# Values by name, such as `loss/segmentation` and `lr/encoder`, with the `iteration` they belong to.
CurveRow = dict[str, float | int]
