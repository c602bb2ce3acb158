"""What are image labels of old classes worth to WILSON? Digits, both settings.

Digits 0-5 are learned first, then 6-9, with image labels of the new classes or of all,
and with five seeds.

    python -m jobs.campaign run digits_wilson_supervision

30 steps instead of 40: step 0 has masks and knows no such choice. The twin of `wilson_supervision`,
in minutes on a CPU.
"""

from stepchain import Chain, digits_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    start = with_field(digits_wilson(), "name", "digits_wilson_supervision")
    axes = {"scenario.setting": ("disjoint", "overlap"), "scenario.labels": ("new", "seen")}
    return sweep(start, axes | {"seed": SEEDS})
