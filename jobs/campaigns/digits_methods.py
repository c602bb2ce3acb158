"""Which method keeps the old classes and learns the new ones best? Digits 0-5, then 6-9.

    python -m jobs.campaign run digits_methods

6 steps instead of 8: methods that learn from masks share their step 0, and WILSON, which learns from image labels, has another,
trained with binary cross-entropy. The twin of `methods`, in minutes on a CPU.
"""

from jobs.chains import digits_mib, digits_wilson
from orchestrator.campaign import sweep, with_field
from orchestrator.chain import Chain
from training.methods import fine_tuning, lwf, mib


def chains() -> tuple[Chain, ...]:
    from_masks = with_field(digits_mib(), "name", "digits_methods")
    weak = with_field(digits_wilson(), "name", "digits_methods method=wilson")
    return *sweep(from_masks, {"method": (fine_tuning.Config(), lwf.Config(), mib.Config())}), weak
