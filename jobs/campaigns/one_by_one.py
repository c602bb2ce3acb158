"""Which method learns classes one by one, from masks? VOC 15-1 overlap.

Five steps bring one class each, after fifteen classes in step 0.

    python -m jobs.campaign run one_by_one --encoder-weights PATH

44 steps instead of 48: fine-tuning, with and without a memory, MiB and MiB-AugM share step 0, and
so do SSUL and SSUL-M.
Cost: images x epochs = 2.05 million.

MiB and PLOP have to keep a network that learns from drifting, and lose a little at each step. DFT
and SSUL freeze what they have learned: all that they can lose is the competition between old and
new classifiers.

SSUL's README, mIoU of all, background included: MiB 29.3, PLOP 54.6, SSUL 67.6, SSUL-M with 100
images 71.4. MiB's Table 1, without background: fine-tuning 0.6, MiB 29.7.
"""

from stepchain import (
    VOC_CLASSES,
    Chain,
    Expected,
    FineTuning,
    MiBAugM,
    split_groups,
    sweep,
    voc_dft,
    voc_mib_15_1,
    voc_plop,
    voc_ssul,
    with_field,
)

PAPER = (
    Expected("MiB Table 1", "FT", {"method.name": "fine-tuning"}),
    Expected("SSUL README", "MiB", {"method.name": "mib"}),
    Expected("MiB Table 1", "MiB", {"method.name": "mib"}),
    Expected("SSUL README", "PLOP", {"method.name": "plop"}),
    Expected("SSUL README", "SSUL", {"method.name": "ssul"}),
)
MEMORIES = (0, 100)


def chains() -> tuple[Chain, ...]:
    groups = split_groups("15-1", VOC_CLASSES)
    mib, plop, dft, ssul = (
        named(with_field(start, "scenario.groups", groups), "one_by_one")
        for start in (voc_mib_15_1(), voc_plop(), voc_dft(), voc_ssul())
    )
    return mib, plop, dft, *with_memories(mib, ssul, MEMORIES)


def with_memories(mib: Chain, ssul: Chain, memories: tuple[int, int]) -> tuple[Chain, ...]:
    """Return fine-tuning and SSUL without and with a memory, and MiB-AugM with one."""
    campaign = mib.name.split()[0]
    replay = named(with_field(mib, "method", FineTuning()), campaign)
    augm = with_field(with_field(mib, "method", MiBAugM()), "scenario.memory", memories[-1])
    axes = {"scenario.memory": memories}
    return *sweep(replay, axes), named(augm, campaign), *sweep(ssul, axes)


def named(chain: Chain, campaign: str) -> Chain:
    """Return the chain, named after the campaign and its method."""
    return with_field(chain, "name", f"{campaign} method={chain.method.name}")
