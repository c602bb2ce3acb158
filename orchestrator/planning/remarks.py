"""Say what a plan's reader should know about a chain that is right and yet not the paper's."""

from orchestrator.planning.chain import Chain

# The distillation weight of MiB's runs, and that of its 15-1, which its author gives apart.
WEIGHT = 10
WEIGHT_OF_15_1 = 100


def remarks(chain: Chain) -> tuple[str, ...]:
    """Return sentences, none for most chains."""
    # Importing MiB's module would import torch, without which plans are made.
    method = dict(chain.method)
    if method["name"] != "mib" or method["distillation_weight"] != WEIGHT:
        return ()
    sizes = [len(group) for group in chain.scenario.groups]
    if chain.scenario.dataset != "voc" or sizes != [15, 1, 1, 1, 1, 1]:
        return ()
    return (
        f"MiB's 15-1 was run with distillation weight {WEIGHT_OF_15_1}, and this one has "
        f"{WEIGHT}: --method.distillation-weight {WEIGHT_OF_15_1}, or the preset voc_mib_15_1",
    )
