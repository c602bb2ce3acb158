"""How many weakly labelled images does WILSON need? VOC 15-5 and 10-10 overlap.

The weak step has 10 to 100 % of its images.

    python -m jobs.campaign run weak_images --encoder-weights PATH

12 steps instead of 20: step 0 has all its images.
Cost: images x epochs = 1.41 million.

A smaller share is part of a larger one, and epochs stay the same, so fewer images are fewer
iterations, too. The paper has the last column, all images: 15-5 74.2 / 41.7 / 67.2, 10-10 70.4 /
57.1 / 65.0 (old / new / all).
"""

from stepchain import VOC_CLASSES, Chain, Expected, split_groups, sweep, voc_wilson, with_field

SHARES = (0.1, 0.25, 0.5, 0.75, 1)
PAPER = (Expected("WILSON Table 1", "WILSON"), Expected("WILSON Table 2", "WILSON"))


def chains() -> tuple[Chain, ...]:
    groups = tuple(split_groups(split, VOC_CLASSES) for split in ("15-5", "10-10"))
    start = with_field(voc_wilson(), "name", "weak_images")
    return sweep(start, {"scenario.groups": groups, "scenario.image_share": SHARES})
