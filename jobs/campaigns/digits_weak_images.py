"""How many weakly labelled images does WILSON need? Digits 0-5, then 6-9 from 10 to 100 %.

Every share runs with five seeds.

    python -m jobs.campaign run digits_weak_images

30 steps instead of 50: step 0 has all its images. Fewer images are fewer iterations, too. The twin
of `weak_images`, in minutes on a CPU.
"""

from jobs.campaigns.weak_images import SHARES
from stepchain import Chain, digits_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(digits_wilson(), "name", "digits_weak_images")
    return sweep(start, {"scenario.image_share": SHARES, "seed": SEEDS})
