"""Which method learns digits one by one, from masks? Digits 0-3, then 4, 5, 6, 7, 8 and 9.

Every chain runs with five seeds.

    python -m jobs.campaign run digits_one_by_one

255 steps instead of 280: fine-tuning, MiB, MiB-AugM and PLOP share step 0, and so do SSUL and
SSUL-M. The twin of `one_by_one`; a step of one class has few images and takes less than half a
minute on a CPU.
"""

from jobs.campaigns.one_by_one import named, with_memories
from stepchain import (
    PLOP,
    Chain,
    FineTuning,
    digits_dft,
    digits_mib,
    digits_ssul,
    split_groups,
    sweep,
    with_field,
)

SEEDS = (42, 43, 44, 45, 46)
MEMORIES = (0, 60)


def chains() -> tuple[Chain, ...]:
    groups = split_groups("4-1", tuple("0123456789"))
    plop = with_field(digits_mib(), "method", PLOP())
    reserving = with_field(digits_dft(), "base.method", FineTuning(reserved_channels=6))
    mib, plop, dft, ssul = (
        named(with_field(start, "scenario.groups", groups), "digits_one_by_one")
        for start in (digits_mib(), plop, reserving, digits_ssul())
    )
    variants = (mib, plop, dft, *with_memories(mib, ssul, MEMORIES))
    return tuple(chain for start in variants for chain in sweep(start, {"seed": SEEDS}))
