"""Read ADE20K as the scene-parsing benchmark publishes it.

It has 150 classes, 20,210 training images and 2,000 validation images.

Value 0 of its masks means "not annotated". It is stored as void, 255, so that the rules for void
hold as they do for other datasets: the scenario says whether training ignores it or reads it as
background, and it is never scored.
"""

from pathlib import Path

import numpy as np

from training.config import VOID
from training.data.deterministic_png import encode_mask
from training.data.file_index import FileIndex, litter_remark
from training.data.reading import BY_VALUE
from training.data.source import BadData, Sample, file_bytes
from training.data.transforms import decode_mask

ADE_CLASSES = (
    "wall", "building", "sky", "floor", "tree",
    "ceiling", "road", "bed", "windowpane", "grass",
    "cabinet", "sidewalk", "person", "earth", "door",
    "table", "mountain", "plant", "curtain", "chair",
    "car", "water", "painting", "sofa", "shelf",
    "house", "sea", "mirror", "rug", "field",
    "armchair", "seat", "fence", "desk", "rock",
    "wardrobe", "lamp", "bathtub", "railing", "cushion",
    "base", "box", "column", "signboard", "chest of drawers",
    "counter", "sand", "sink", "skyscraper", "fireplace",
    "refrigerator", "grandstand", "path", "stairs", "runway",
    "case", "pool table", "pillow", "screen door", "stairway",
    "river", "bridge", "bookcase", "blind", "coffee table",
    "toilet", "flower", "book", "hill", "bench",
    "countertop", "stove", "palm", "kitchen island", "computer",
    "swivel chair", "boat", "bar", "arcade machine", "hovel",
    "bus", "towel", "light", "truck", "tower",
    "chandelier", "awning", "streetlight", "booth", "television receiver",
    "airplane", "dirt track", "apparel", "pole", "land",
    "bannister", "escalator", "ottoman", "bottle", "buffet",
    "poster", "stage", "van", "ship", "fountain",
    "conveyer belt", "canopy", "washer", "plaything", "swimming pool",
    "stool", "barrel", "basket", "waterfall", "tent",
    "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave",
    "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce",
    "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board",
    "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
FOLDERS = {"train": "training", "val": "validation"}


class Ade:
    """A folder ADEChallengeData2016.

        images/{training,validation}/<id>.jpg      or another ending of a photo
        annotations/{training,validation}/<id>.png

    Raises:
        BadData: A folder of annotations is missing.
    """

    classes = ADE_CLASSES
    splits = tuple(FOLDERS)
    recipe = "void is 0"

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in FOLDERS.values():
            if not (root / "annotations" / folder).is_dir():
                raise BadData(
                    f"{root} is not ADE20K: it has no folder annotations/{folder}; "
                    "give the folder ADEChallengeData2016"
                )
        self.photos = {
            split: FileIndex(root / "images" / folder) for split, folder in FOLDERS.items()
        }
        self.masks = {
            split: FileIndex(root / "annotations" / folder, (".png",))
            for split, folder in FOLDERS.items()
        }

    def ids(self, split: str) -> list[str]:
        """Return the names of the split's masks, sorted."""
        return sorted(self.masks[split].names)

    def files(self, split: str, id: str) -> tuple[Path, Path]:
        """Return the photo and the mask of one image."""
        return self.photos[split].path(id), self.masks[split].path(id)

    def read(self, split: str, id: str) -> Sample:
        """Return the photo as it is, and the mask with void where ADE20K has 0."""
        self.photos[split].check(id, "photo")
        image, mask = self.files(split, id)
        values = decode_mask(file_bytes(mask, "mask"), BY_VALUE)
        with_void = np.where(values == 0, np.uint8(VOID), values)
        return Sample(id, file_bytes(image, "image"), encode_mask(with_void))

    def remarks(self) -> list[str]:
        """Return how many files were passed over."""
        return litter_remark([*self.photos.values(), *self.masks.values()])
