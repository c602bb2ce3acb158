"""Which of MiB's parts does what? Digits 0-5, then 6-9, with each of its three parts on and off.

    python -m jobs.campaign run digits_mib_components

9 steps instead of 16: all combinations share step 0. The twin of `mib_components`, in minutes on a
CPU.
"""

from jobs.campaigns.mib_components import PARTS
from stepchain import Chain, digits_mib, sweep, with_field


def chains() -> tuple[Chain, ...]:
    return sweep(
        with_field(digits_mib(), "name", "digits_mib_components"),
        dict.fromkeys(PARTS, (False, True)),
    )
