"""What are image labels of old classes worth to WILSON? Small photos of VOC.

Five classes are learned from masks, then three from image labels that name the new classes or all,
as the preset small_voc_wilson has it, with five seeds.

    python -m jobs.campaign run photos_supervision --encoder-weights PATH --cpus-per-worker 1

15 steps instead of 20: step 0 has masks and knows no such choice; photos_alpha trains it, too. On
1,500 photos a step takes three to five minutes on a core. `--only seed=42` runs a single seed.
"""

from stepchain import Chain, small_voc_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(small_voc_wilson(), "name", "photos_supervision")
    return sweep(start, {"scenario.labels": ("new", "seen"), "seed": SEEDS})
