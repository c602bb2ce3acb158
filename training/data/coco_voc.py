"""COCO-to-VOC, WILSON's third benchmark: 60 classes of COCO with masks, then VOC's 20 from VOC's images.

Training images are those of COCO without a pixel of VOC's classes (23,274, of which 1,021 show none of the 60 either),
followed by VOC's 10,582. Class ids are in the order of learning, as the paper's tables count them: 1 to 60, then 61 to 80,
both in the order of COCO's category ids. Scored on COCO's validation images (val) and on VOC's (voc_val).
"""

from pathlib import Path

import numpy as np

from training.config import VOID
from training.data.coco import COCO_CATEGORIES, MASKS, Coco
from training.data.deterministic_png import encode_mask
from training.data.source import BadData, LeftOut, Sample, file_bytes
from training.data.transforms import decode_mask
from training.data.voc import Voc

VOC_CATEGORY_IDS = (
    5,
    2,
    16,
    9,
    44,
    6,
    3,
    17,
    62,
    21,
    67,
    18,
    19,
    4,
    1,
    64,
    20,
    63,
    7,
    72,
)  # COCO's, of VOC's classes 1 to 20
BASE_CATEGORY_IDS = tuple(id for id in COCO_CATEGORIES if id not in VOC_CATEGORY_IDS)
CATEGORY_IDS = (*BASE_CATEGORY_IDS, *sorted(VOC_CATEGORY_IDS))


def voc_table() -> np.ndarray:
    """VOC class id -> class id of the composite, uint8 [256]."""
    table = np.zeros(256, np.uint8)
    table[1:21] = [1 + CATEGORY_IDS.index(id) for id in VOC_CATEGORY_IDS]
    table[21:VOID] = VOID - 1  # no class: refused as undeclared
    table[VOID] = VOID
    return table


class CocoVoc:
    """COCO's train and val with VOC's: splits train, val and voc_val. Raises BadData when folders are missing.

    The papers' masks are `stuffthingmaps`; `instances` differ from them in a few images and pixels.
    """

    splits = ("train", "val", "voc_val")

    def __init__(self, coco: Path, voc: Voc, masks: MASKS) -> None:
        self.coco = Coco(coco, masks, CATEGORY_IDS)
        self.voc = voc
        self.classes = self.coco.classes
        self.table = voc_table()
        self.recipe = f"{self.coco.recipe} | {voc.recipe}"
        for source, name, folder in ((self.coco, "COCO", coco), (voc, "VOC", voc.root)):
            missing = {"train", "val"} - set(source.splits)
            if missing:
                raise BadData(
                    f"COCO-to-VOC needs {name}'s train and val; {folder} has no {', '.join(sorted(missing))}"
                )

    def ids(self, split: str) -> list[str]:
        """COCO's ids, then VOC's."""
        if split == "voc_val":
            return self.voc.ids("val")
        return self.coco.ids(split) + (self.voc.ids(split) if split == "train" else [])

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """The image and what its mask is made of."""
        return (
            self.voc.files("val" if split == "voc_val" else split, id)
            if _is_vocs(id)
            else self.coco.files(split, id)
        )

    def read(self, split: str, id: str) -> Sample:
        """The JPEG as it is, and a mask of the composite's class ids."""
        if _is_vocs(id):
            _, image, mask = self.voc.read("val" if split == "voc_val" else split, id)
            return Sample(id, image, encode_mask(self.table[decode_mask(mask)]))
        mask = self.coco.mask(split, id)
        if split == "train" and ((mask > len(BASE_CATEGORY_IDS)) & (mask != VOID)).any():
            raise LeftOut
        return Sample(id, file_bytes(self.coco.files(split, id)[0], "image"), encode_mask(mask))


def _is_vocs(id: str) -> bool:
    """VOC's ids are 2007_000032, COCO's 000000000009."""
    return "_" in id
