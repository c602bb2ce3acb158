"""Group the classes of COCO-to-VOC (WILSON, Table 3): COCO's that PASCAL VOC lacks, then VOC's.

The papers' other protocols are a base and an increment over a dataset's classes in their own order
(`training.scenario.split_groups`). Examples are 15-5 of VOC and 100-10 of ADE20K. This one goes by
names, because the 60 classes of step 0 are not consecutive.
"""

from collections.abc import Sequence

from training.config import InputError

# VOC's classes by their names in COCO, in the order of COCO's ids, in which they are learned.
VOC_IN_COCO = {
    "person": "person", "bicycle": "bicycle", "car": "car", "motorcycle": "motorbike",
    "airplane": "aeroplane", "bus": "bus", "train": "train", "boat": "boat", "bird": "bird",
    "cat": "cat", "dog": "dog", "horse": "horse", "sheep": "sheep", "cow": "cow",
    "bottle": "bottle", "chair": "chair", "couch": "sofa", "potted plant": "pottedplant",
    "dining table": "diningtable", "tv": "tvmonitor",
}  # fmt: skip
# Names that have an id in COCO's list of 91 but no mask.
UNUSED = (
    "street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door",
    "blender", "hair brush",
)  # fmt: skip


def coco_to_voc_groups(classes: Sequence[str], increment: int = 20) -> tuple[tuple[str, ...], ...]:
    """Return COCO's other 60 classes, then the 20 that VOC has, some at a time.

    Args:
        classes: The dataset's class names, in the spelling of COCO or of VOC.
        increment: How many of the 20 each later step brings; 5 and 2 in follow-up work.

    Raises:
        InputError: One of the 20 is missing, there is no other class, or `increment` does not
            divide 20.
    """
    learned = []
    for name, other in VOC_IN_COCO.items():
        spelling = next((each for each in (name, other) if each in classes), None)
        if spelling is None:
            raise InputError(
                f"COCO-to-VOC needs a class {name!r} (or {other!r}), "
                "which the dataset does not have"
            )
        learned.append(spelling)
    if increment < 1 or len(learned) % increment:
        raise InputError(
            f"COCO-to-VOC learns {len(learned)} classes, which do not come {increment} at a time"
        )
    base = tuple(name for name in classes if name not in learned and name not in UNUSED)
    if not base:
        raise InputError(
            "COCO-to-VOC begins with the classes that VOC does not have, and the dataset has none"
        )
    starts = range(0, len(learned), increment)
    return (base, *(tuple(learned[start : start + increment]) for start in starts))
