"""What are image labels of old classes worth to WILSON? VOC 15-5 and 10-10.

The labels name the new classes or all: Table 5 of the paper.

    python -m jobs.campaign run wilson_supervision --encoder-weights PATH

12 steps instead of 16: step 0 has masks and knows no such choice.
Cost: images x epochs = 2.28 million.

The paper, old / new / all:

    labels of       disjoint              overlap
    15-5   new      73.6 / 43.8 / 67.3    74.2 / 41.7 / 67.2
           all      75.0 / 46.0 / 68.9    76.1 / 45.6 / 69.5
    10-10  new      64.5 / 54.3 / 60.8    70.4 / 57.1 / 65.0
           all      69.5 / 56.4 / 64.2    73.6 / 57.6 / 66.7
"""

from stepchain import VOC_CLASSES, Chain, Expected, split_groups, sweep, voc_wilson, with_field

PAPER = (
    Expected("WILSON Table 1", "WILSON"),
    Expected("WILSON Table 2", "WILSON"),
    Expected("WILSON Table 5", "WILSON"),
)


def chains() -> tuple[Chain, ...]:
    start = with_field(voc_wilson(), "name", "wilson_supervision")
    groups = tuple(split_groups(split, VOC_CLASSES) for split in ("15-5", "10-10"))
    settings = ("disjoint", "overlap")
    return sweep(
        start,
        {
            "scenario.groups": groups,
            "scenario.setting": settings,
            "scenario.labels": ("new", "seen"),
        },
    )
