"""How hard should WILSON's pseudo-supervision be? Small photos of VOC, alpha from 0 to 1.

Five classes are learned from masks, then three from image labels, as the preset small_voc_wilson
has it, with five seeds for each alpha. 0 is soft, 1 is hard.

    python -m jobs.campaign run photos_alpha --encoder-weights PATH --cpus-per-worker 1

30 steps instead of 50: alpha is no part of step 0, so each seed trains that once. On 1,500 photos a
step takes three to five minutes on a core. `--only seed=42` runs a single seed.
"""

from jobs.campaigns.wilson_alpha import ALPHAS
from stepchain import Chain, small_voc_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(small_voc_wilson(), "name", "photos_alpha")
    return sweep(start, {"method.alpha": ALPHAS, "seed": SEEDS})
