"""How hard should WILSON's pseudo-supervision be? Digits, alpha from 0 (soft) to 1 (hard).

Digits 0-5 are learned first, then 6-9, with five seeds for each alpha.

    python -m jobs.campaign run digits_wilson_alpha

30 steps instead of 50: alpha is no part of step 0, so each seed trains that once. The twin of
`wilson_alpha`, in minutes on a CPU.
"""

from jobs.campaigns.wilson_alpha import ALPHAS
from stepchain import Chain, digits_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(digits_wilson(), "name", "digits_wilson_alpha")
    return sweep(start, {"method.alpha": ALPHAS, "seed": SEEDS})
