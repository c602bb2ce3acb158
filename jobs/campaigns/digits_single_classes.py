"""Can WILSON learn single classes from image labels? Digits 0-5, then 6, 7, 8 and 9.

Every chain runs with five seeds.

    python -m jobs.campaign run digits_single_classes

105 steps instead of 125: all share step 0, seed by seed. The twin of `single_classes`, which says
why a memory of 1 stands for none; a step of one class has few images and takes less than half a
minute on a CPU.
"""

from jobs.campaigns.single_classes import MEMORIES, MEMORIES_WITH_MASKS, with_masks
from stepchain import Chain, ICaRL, digits_wilson, split_groups, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    weak = with_field(digits_wilson(), "scenario.groups", split_groups("6-1", tuple("0123456789")))
    weak = with_field(weak, "name", "digits_single_classes method=wilson")
    twin = ICaRL(initial_probability=0.01, encoder_distillation=1)
    return (
        *sweep(weak, {"scenario.memory": MEMORIES, "seed": SEEDS}),
        *sweep(with_masks(weak, twin), {"scenario.memory": MEMORIES_WITH_MASKS, "seed": SEEDS}),
    )
