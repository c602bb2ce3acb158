"""What should WILSON's localizer know of the old classes? Digits, four priors, both settings.

Digits 0-5 are learned first, then 6-9, with five seeds.

    python -m jobs.campaign run digits_wilson_prior

50 steps instead of 80: the prior is no part of step 0. The twin of `wilson_prior`, in minutes on a
CPU.
"""

from jobs.campaigns.wilson_prior import PRIORS
from stepchain import Chain, digits_wilson, sweep, with_field

# Epochs that give the disjoint setting, where step 0 sees 661 images instead of 1,198, as many
# updates as the overlap setting.
UPDATES_OF_OVERLAP = 18.0
SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(digits_wilson(), "name", "digits_wilson_prior")
    longer = with_field(start, "base.optimization.epochs", UPDATES_OF_OVERLAP)
    axes = {"method.prior": tuple(PRIORS), "seed": SEEDS}
    return (
        *sweep(longer, {"scenario.setting": ("disjoint",), **axes}),
        *sweep(start, {"scenario.setting": ("overlap",), **axes}),
    )
