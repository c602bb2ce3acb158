"""Read Cityscapes with its fine annotations: 19 classes, 2,975 training and 500 validation images.

Every pixel of a class that the benchmark scores has it as its label. All others (ego vehicle,
static objects, parking, caravan ...) are void. There is no background. A scenario therefore has
`background none`, or reads the classes of other steps as background.
"""

from pathlib import Path

import numpy as np

from training.config import VOID
from training.data.deterministic_png import encode_mask
from training.data.file_index import FileIndex, litter_remark
from training.data.reading import BY_VALUE
from training.data.source import BadData, Sample, file_bytes
from training.data.transforms import decode_mask

# The classes that are scored by their ids in the files labelIds, in the order of their train ids.
CLASSES_BY_LABEL_ID = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
CITYSCAPES_CLASSES = tuple(CLASSES_BY_LABEL_ID.values())
SPLITS = ("train", "val")
PHOTO = "_leftImg8bit"
# Kinds of mask, the preferred one first.
LABEL_IDS, TRAIN_IDS = "_gtFine_labelIds", "_gtFine_labelTrainIds"


class Cityscapes:
    """A folder of Cityscapes; an image's id is that of its frame, such as aachen_000000_000019.

        leftImg8bit/{train,val}/<city>/<id>_leftImg8bit.png
        gtFine/{train,val}/<city>/<id>_gtFine_labelIds.png          or else _gtFine_labelTrainIds

    The folders of the cities may be missing.

    Raises:
        BadData: A folder is missing, or has no masks.
    """

    classes = CITYSCAPES_CLASSES
    splits = SPLITS
    recipe = "19 classes by train id"

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in ("leftImg8bit", "gtFine"):
            for split in SPLITS:
                if not (root / kind / split).is_dir():
                    raise BadData(
                        f"{root} is not Cityscapes: it has no folder {kind}/{split}; give the "
                        "folder into which leftImg8bit_trainvaltest.zip and "
                        "gtFine_trainvaltest.zip were unpacked"
                    )
        self.photos = {split: FileIndex(root / "leftImg8bit" / split) for split in SPLITS}
        masks = {split: FileIndex(root / "gtFine" / split, (".png",)) for split in SPLITS}
        self.indexes = [*self.photos.values(), *masks.values()]
        # By split and id: the frame, below the split's folders, and the kind of the mask.
        self._masks = {split: _masks_of(index) for split, index in masks.items()}
        for split, found in self._masks.items():
            if not found:
                raise BadData(
                    f"{root / 'gtFine' / split} has no file *{LABEL_IDS}.png nor *{TRAIN_IDS}.png: "
                    "unpack gtFine_trainvaltest.zip"
                )

    def ids(self, split: str) -> list[str]:
        """Return the ids of the masks, sorted; the city comes first in each."""
        return sorted(self._masks[split])

    def files(self, split: str, id: str) -> tuple[Path, Path]:
        """Return the photo and the mask of one image."""
        frame, kind = self._masks[split][id]
        mask = self.root / "gtFine" / split / f"{frame}{kind}.png"
        return self.photos[split].path(frame + PHOTO), mask

    def read(self, split: str, id: str) -> Sample:
        """Return the photo as it is, and the mask with the classes' ids and void."""
        frame, kind = self._masks[split][id]
        self.photos[split].check(frame + PHOTO, "photo")
        image, mask = self.files(split, id)
        values = decode_mask(file_bytes(mask, "mask"), BY_VALUE)
        return Sample(id, file_bytes(image, "image"), encode_mask(TABLES[kind][values]))

    def remarks(self) -> list[str]:
        """Return how many files were passed over."""
        return litter_remark(self.indexes)


def _masks_of(index: FileIndex) -> dict[str, tuple[str, str]]:
    """Return the frame, with the folder of its city, and the kind of each id's preferred mask."""
    found: dict[str, tuple[str, str]] = {}
    for kind in (TRAIN_IDS, LABEL_IDS):  # the later ones win
        for name in index.names:
            if name.endswith(kind):
                frame = name.removesuffix(kind)
                found[frame.rpartition("/")[2]] = frame, kind
    return found


def _table(values: tuple[int, ...]) -> np.ndarray:
    """Return the class id of each value in a mask; values that stand for no class are void."""
    table = np.full(256, VOID, np.uint8)
    table[list(values)] = np.arange(1, 1 + len(values))
    return table


TABLES = {
    LABEL_IDS: _table(tuple(CLASSES_BY_LABEL_ID)),
    TRAIN_IDS: _table(tuple(range(len(CITYSCAPES_CLASSES)))),
}
