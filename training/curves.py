"""Name the type of the rows of training curves."""

# Values by name, such as `loss/segmentation` and `lr/encoder`, with the `iteration` they belong to.
CurveRow = dict[str, float | int]
