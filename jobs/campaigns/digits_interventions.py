"""What causes forgetting, and what removes it? Digits 0-5, then 6-9, one cause taken away each.

The base and the changed later steps run with five seeds each.

    python -m jobs.campaign run digits_interventions

60 steps instead of 110: all share step 0, seed by seed, with each other and with `digits_methods`,
which records importance there. The twin of `interventions`, which says what is changed and why;
half a minute a step on a CPU.
"""

from jobs.campaigns.interventions import interventions
from stepchain import Chain, FineTuning, digits_finetuning, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(digits_finetuning(), "name", "digits_interventions")
    intervened = interventions(with_field(start, "base.method", FineTuning(importance=True)))
    return tuple(chain for start in intervened for chain in sweep(start, {"seed": SEEDS}))
