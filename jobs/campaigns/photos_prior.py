"""What should WILSON's localizer know of the old classes? Small photos of VOC, four priors.

Five classes are learned from masks, then three from image labels, as the preset small_voc_wilson
has it, with five seeds for each prior.

    python -m jobs.campaign run photos_prior --encoder-weights PATH --cpus-per-worker 1

25 steps instead of 40: the prior is no part of step 0, which photos_alpha trains, too. On 1,500
photos a step takes three to five minutes on a core. `--only seed=42` runs a single seed.
"""

from jobs.campaigns.wilson_prior import PRIORS
from stepchain import Chain, small_voc_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(small_voc_wilson(), "name", "photos_prior")
    return sweep(start, {"method.prior": tuple(PRIORS), "seed": SEEDS})
