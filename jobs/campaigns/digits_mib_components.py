"""Which of MiB's parts does what? Digits 0-5, then 6-9, with each of its three parts on and off.

Every combination runs with five seeds.

    python -m jobs.campaign run digits_mib_components

45 steps instead of 80: all combinations share step 0, seed by seed, with each other and with
`digits_methods`, which records importance there. The twin of `mib_components`; half a minute a step
on a CPU.
"""

from jobs.campaigns.mib_components import PARTS
from stepchain import Chain, FineTuning, digits_mib, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(digits_mib(), "name", "digits_mib_components")
    start = with_field(start, "base.method", FineTuning(importance=True))
    return sweep(start, dict.fromkeys(PARTS, (False, True)) | {"seed": SEEDS})
