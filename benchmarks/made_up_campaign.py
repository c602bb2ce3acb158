"""Define the campaign that fills a made-up store (`benchmarks.made_up_store`)."""

from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.fields import with_field
from stepchain.presets import digits_mib

SEEDS = 5
UNFINISHED = 20  # one chain of so many more is not finished
GROUPS = (tuple("01234"), *((digit,) for digit in "56789"))
QUESTION = "Made up: what does Stepchain cost at size?"


def made_up_campaign(chains: int) -> Campaign:
    """Return a campaign of this many chains, a multiple of 5, and the unfinished ones."""
    variants = chains // SEEDS
    total = variants + -(-variants // UNFINISHED)
    start = with_field(digits_mib(), "name", "size")
    start = with_field(start, "scenario.groups", GROUPS)
    weights = [1 + number for number in range(total)]
    axes = {"method.distillation_weight": weights, "seed": range(SEEDS)}
    return Campaign("size", QUESTION, sweep(start, axes))
