"""Whose background should the segmentation model learn? Small photos of VOC, four mixtures.

WILSON's target of background is the smaller of the previous model's and the localizer's (none), or
a mixture with this share of the localizer's. Five classes are learned from masks, then three from
image labels, as the preset small_voc_wilson has it, with five seeds for each mixture.

    python -m jobs.campaign run photos_background --encoder-weights PATH --cpus-per-worker 1

25 steps instead of 40: the mixture is no part of step 0, which photos_alpha trains, too. On 1,500
photos a step takes three to five minutes on a core. `--only seed=42` runs a single seed.
"""

from stepchain import Chain, small_voc_wilson, sweep, with_field

MIXTURES = (None, 0, 0.15, 0.5)
SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(small_voc_wilson(), "name", "photos_background")
    return sweep(start, {"method.background_mix": MIXTURES, "seed": SEEDS})
