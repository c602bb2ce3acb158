"""How far do results spread over seeds? VOC 15-5 overlap by LwF, MiB and WILSON, five seeds each.

    python -m jobs.campaign run seeds --encoder-weights PATH

25 steps instead of 30: LwF and MiB share their step 0, seed by seed.
Cost: images x epochs = 3.94 million.

The papers give one number each, old / new / all: LwF 58.9 / 36.6 / 53.3 and MiB 75.5 / 49.4 / 69.0
(counted as --convention mib does), WILSON 74.2 / 41.7 / 67.2.
"""

from stepchain import Chain, Expected, LwF, MiB, sweep, voc_mib, voc_wilson, with_field

SEEDS = (42, 43, 44, 45, 46)
PAPER = (
    Expected("MiB Table 1", "LwF", {"method.name": "lwf"}),
    Expected("MiB Table 1", "MiB", {"method.name": "mib"}),
    Expected("WILSON Table 1", "WILSON", {"method.name": "wilson"}),
)


def chains() -> tuple[Chain, ...]:
    from_masks = with_field(voc_mib(), "name", "seeds")
    weak = with_field(voc_wilson(), "name", "seeds method=wilson")
    return *sweep(from_masks, {"method": (LwF(), MiB()), "seed": SEEDS}), *sweep(
        weak, {"seed": SEEDS}
    )
