"""Can WILSON learn a single class at a time from image labels? VOC 15-1 overlap.

The memory holds 1, 10 or 100 images of earlier steps.

    python -m jobs.campaign run single_classes --encoder-weights PATH

26 steps instead of 30: all share step 0.
Cost: images x epochs = 0.79 million.

Every image of such a step has the new class, so nothing tells the localizer where that is not: the
paper's own limitation. A step without any memory is refused here, for it can only collapse; a
memory of 1 is as near to that as can be trained. The variants from masks, icarl without a memory
and with 100 images, are WILSON's loss with the truth in place of its localizer: what image labels
could reach.

The authors of RaSP (Roy et al., 2023) ran WILSON so, disjoint / overlap, all: without memory 0.4 /
0.6, with 100 images 56.0 / 52.5. Their memory is balanced over steps, ours over classes, and only
the direction compares.
"""

from stepchain import VOC_CLASSES, Chain, ICaRL, split_groups, sweep, voc_wilson, with_field

MEMORIES = (1, 10, 100)
MEMORIES_WITH_MASKS = (0, 100)


def chains() -> tuple[Chain, ...]:
    weak = with_field(voc_wilson(), "scenario.groups", split_groups("15-1", VOC_CLASSES))
    weak = with_field(weak, "name", "single_classes method=wilson")
    return *sweep(weak, {"scenario.memory": MEMORIES}), *sweep(
        with_masks(weak, ICaRL(encoder_distillation=1)), {"scenario.memory": MEMORIES_WITH_MASKS}
    )


def with_masks(weak: Chain, method: ICaRL) -> Chain:
    """Return the chain of WILSON's fully supervised twin."""
    from_masks = with_field(with_field(weak, "scenario.supervision", "pixel"), "method", method)
    return with_field(from_masks, "name", f"{weak.name.split()[0]} method=icarl")
