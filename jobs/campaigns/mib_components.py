"""Which of MiB's parts does what? VOC 15-5 overlap with each of its three parts on and off.

    python -m jobs.campaign run mib_components --encoder-weights PATH

9 steps instead of 16: all combinations share step 0.
Cost: images x epochs = 0.80 million.

The paper's Table 1 has the last combination, all on: 75.5 / 49.4 / 69.0 (old / new / all, counted
as --convention mib does).
"""

from stepchain import Chain, Expected, sweep, voc_mib, with_field

PARTS = (
    "method.unbiased_cross_entropy",
    "method.unbiased_distillation",
    "method.background_initialisation",
)
PAPER = (Expected("MiB Table 1", "MiB", dict.fromkeys(PARTS, True)),)


def chains() -> tuple[Chain, ...]:
    return sweep(
        with_field(voc_mib(), "name", "mib_components"), dict.fromkeys(PARTS, (False, True))
    )
