"""Name the type of the rows of training curves."""

# Values by name. The names are stored with every step, so they must not change:
#   iteration, total, epoch, time       where the training stands; time is Unix time
#   loss, loss/NAME                     means over the iterations since the last row
#   lr/GROUP                            learning rates
#   images_per_second                   since the last row
#   usage/...                           what the leading worker uses (Runtime.usage)
# Rows that version 0.1.0 stored say system/... instead of usage/...; readers accept both.
CurveRow = dict[str, float | int]
