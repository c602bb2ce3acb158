"""Read COCO-to-VOC, WILSON's third benchmark: 60 classes of COCO, then VOC's 20.

The training images are those of COCO without a pixel of VOC's classes, followed by VOC's 10,582.
COCO has 23,274 of them, of which 1,021 show none of the 60 classes either. Class ids are in the
order of learning, as the paper's tables count them: 1 to 60, then 61 to 80, both in the order of
COCO's category ids. Models are scored on COCO's validation images (split val) and on VOC's (split
voc_val).
"""

from pathlib import Path

import numpy as np

from training.config import VOID
from training.data.coco import COCO_CATEGORIES, MASKS, Coco
from training.data.deterministic_png import encode_mask
from training.data.reading import BY_VALUE
from training.data.source import BadData, LeftOut, Sample
from training.data.transforms import decode_mask
from training.data.voc import Voc

# COCO's category ids of VOC's classes 1 to 20.
VOC_CATEGORY_IDS = (
    5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72,
)  # fmt: skip
BASE_CATEGORY_IDS = tuple(id for id in COCO_CATEGORIES if id not in VOC_CATEGORY_IDS)
CATEGORY_IDS = (*BASE_CATEGORY_IDS, *sorted(VOC_CATEGORY_IDS))


def voc_table() -> np.ndarray:
    """Return the composite's class id of each VOC class id, uint8 [256]."""
    table = np.zeros(256, np.uint8)
    table[1:21] = [1 + CATEGORY_IDS.index(id) for id in VOC_CATEGORY_IDS]
    # Other values are no class of VOC; they become one that no dataset declares, which validation
    # refuses.
    table[21:VOID] = VOID - 1
    table[VOID] = VOID
    return table


class CocoVoc:
    """COCO's train and val with VOC's: splits train, val and voc_val.

    Args:
        coco: COCO's folder, as `training.data.coco.Coco` takes it.
        voc: VOC, with or without SBD.
        masks: What COCO's masks are made of. The papers' are `stuffthingmaps`; `instances` differ
            from them in a few images and pixels.

    Raises:
        BadData: A folder or a split is missing.
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
                    f"COCO-to-VOC needs {name}'s train and val; "
                    f"{folder} has no {', '.join(sorted(missing))}"
                )

    def ids(self, split: str) -> list[str]:
        """Return COCO's ids, then VOC's."""
        if split == "voc_val":
            return self.voc.ids("val")
        if split == "train":
            return self.coco.ids("train") + self.voc.ids("train")
        return self.coco.ids(split)

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """Return the image and the file that its mask is made from."""
        if _is_vocs(id):
            return self.voc.files(_split_of_voc(split), id)
        return self.coco.files(split, id)

    def read(self, split: str, id: str) -> Sample:
        """Return the JPEG as it is, and a mask of the composite's class ids.

        Raises:
            BadData: A file is missing or cannot be read.
            LeftOut: An image of COCO's train shows a class of VOC.
        """
        if _is_vocs(id):
            sample = self.voc.read(_split_of_voc(split), id)
            return sample._replace(mask=encode_mask(self.table[decode_mask(sample.mask, BY_VALUE)]))
        mask, remarks = self.coco.paint(split, id)
        shows_voc = ((mask > len(BASE_CATEGORY_IDS)) & (mask != VOID)).any()
        if split == "train" and shows_voc:
            raise LeftOut
        return Sample(id, self.coco.photo(split, id), encode_mask(mask), remarks)


def _split_of_voc(split: str) -> str:
    return "val" if split == "voc_val" else split


def _is_vocs(id: str) -> bool:
    # VOC's ids look like 2007_000032, COCO's like 000000000009.
    return "_" in id
