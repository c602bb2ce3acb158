"""Read folders in COCO's layout as a semantic dataset: COCO 2017's, or one's own categories.

Masks come from annotated objects or, for COCO 2017, from COCO-Stuff's maps.

Objects are polygons or run lengths. They are laid over each other in the file's order, later ones
on top, as COCO's own conversion to semantic maps does. That conversion leaves crowds out. A crowd
holds its class, but not only its class, so its pixels are void here where no object covers them.

COCO-Stuff's maps hold the category id - 1. Its stuff classes are background.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from training.config import BACKGROUND, VOID
from training.data.coco_annotations import Annotations, Painted, class_names
from training.data.deterministic_png import encode_mask
from training.data.file_index import FileIndex, litter_remark
from training.data.headers import INGEST_LIMIT, check_size, photo_header
from training.data.reading import BY_VALUE, MAX_PIXELS
from training.data.source import BadData, Remark, Sample, file_bytes
from training.data.transforms import decode_mask

COCO_CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train",
    8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign",
    14: "parking meter", 15: "bench", 16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep",
    21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack",
    28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove",
    41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass",
    47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza",
    60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote",
    76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink",
    82: "refrigerator", 84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear",
    89: "hair drier", 90: "toothbrush",
}  # fmt: skip
MASKS = Literal["instances", "stuffthingmaps"]
FOLDERS = {"train": "train2017", "val": "val2017"}
SIZE_OF_FILE = (
    "images have no width and height in the annotations, and those of the photo are taken"
)


def class_table(category_ids: tuple[int, ...]) -> np.ndarray:
    """Return the class id of each of COCO 2017's category ids, uint8 [256].

    It is the position in `category_ids` + 1, void for 255 and background for all others.
    """
    table = np.full(256, BACKGROUND, np.uint8)
    table[list(category_ids)] = np.arange(1, len(category_ids) + 1)
    table[VOID] = VOID
    return table


class Coco:
    """A folder with train2017/, val2017/ and annotations; one of the two may be missing.

        instances         annotations/instances_{train,val}2017.json
        stuffthingmaps    stuffthingmaps/{train,val}2017/<id>.png

    Args:
        root: The folder.
        masks: What masks are made of.
        category_ids: COCO 2017's ids of the classes 1, 2, ...; the folder must then be COCO 2017.
            By default the file's own categories, in the order of their ids.
        max_pixels: Of the largest image that is read.

    Raises:
        BadData: Folders are missing, or the annotations cannot be used.
    """

    def __init__(
        self,
        root: Path,
        masks: MASKS,
        category_ids: tuple[int, ...] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.root = root
        self.kind = masks
        self.max_pixels = max_pixels
        self.splits = tuple(split for split, folder in FOLDERS.items() if (root / folder).is_dir())
        if not self.splits:
            raise BadData(
                f"{root} is not COCO 2017: it has neither a folder train2017 nor val2017; "
                "give the folder that holds them"
            )
        for split in self.splits:
            if not self.annotations(split).exists():
                raise BadData(
                    f"COCO's annotations {self.annotations(split)} are missing; add them, "
                    "or choose other --masks"
                )
        self.photos = {split: FileIndex(root / FOLDERS[split]) for split in self.splits}
        if masks == "instances":
            self.instances = {
                split: Annotations(self.annotations(split), self.photos[split])
                for split in self.splits
            }
            names = self._categories(category_ids)
            ids = category_ids or tuple(names)
            digests = " ".join(instances.sha256 for instances in self.instances.values())
            self.recipe = f"{masks} {ids}{digests}"
        else:
            self.maps = {
                split: FileIndex(self.annotations(split), (".png",)) for split in self.splits
            }
            names = COCO_CATEGORIES
            ids = category_ids or tuple(names)
            self.recipe = f"{masks} {ids}"
        self.classes = tuple(names[id] for id in ids)
        self.class_ids: dict[int, int] = {id: number for number, id in enumerate(ids, start=1)}

    def annotations(self, split: str) -> Path:
        """Return the file or folder that the masks of a split come from."""
        if self.kind == "instances":
            return self.root / "annotations" / f"instances_{FOLDERS[split]}.json"
        return self.root / "stuffthingmaps" / FOLDERS[split]

    def ids(self, split: str) -> list[str]:
        """Return the names of the split's images, sorted, with or without an annotated object."""
        if self.kind == "instances":
            return self.instances[split].ids
        return sorted(self.maps[split].names)

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """Return the photo, and the map where masks come from maps."""
        image = self.photos[split].path(id)
        if self.kind == "instances":
            return (image,)
        return image, self.maps[split].path(id)

    def read(self, split: str, id: str) -> Sample:
        """Return the photo as it is, and a mask of class ids."""
        image = self.photo(split, id)
        painted = self.paint(split, id, image)
        return Sample(id, image, encode_mask(painted.mask), painted.remarks)

    def photo(self, split: str, id: str) -> bytes:
        """Return the photo's file. Raise BadData if there is none, or several that it could be."""
        self.photos[split].check(id, "photo")
        return file_bytes(self.photos[split].path(id), "image")

    def remarks(self) -> list[str]:
        """Return what was passed over."""
        found = [*litter_remark(self.photos.values()), *self._unlisted()]
        if self.kind == "instances":
            for instances in self.instances.values():
                strays = instances.strays
                if strays:
                    found.append(
                        f"{instances.path.name}: {len(strays)} objects are of images that it does "
                        f"not list, and are passed over; the first is {strays[0]}"
                    )
        return found

    def _unlisted(self) -> list[str]:
        """Return a sentence for each split that leaves photos of its folder out."""
        found = []
        for split in self.splits:
            unlisted = self.photos[split].names.keys() - set(self.ids(split))
            if unlisted:
                found.append(
                    f"{FOLDERS[split]}: {len(unlisted)} photos are not in "
                    f"{self.annotations(split).relative_to(self.root)} and are left out, such as "
                    f"{min(unlisted)}"
                )
        return found

    def paint(self, split: str, id: str, image: bytes | None = None) -> Painted:
        """Return the class ids of an image's pixels.

        Args:
            split: The split.
            id: The image.
            image: The photo's file, if its size is to be compared.

        Raises:
            BadData: The map cannot be read, or an object cannot be drawn.
        """
        if self.kind == "stuffthingmaps":
            # A map's value is the category id - 1.
            table = class_table(tuple(self.class_ids))
            class_of_value = np.append(table[1:VOID], [BACKGROUND, VOID]).astype(np.uint8)
            data = file_bytes(self.files(split, id)[1], "mask")
            return Painted(class_of_value[decode_mask(data, BY_VALUE)], ())
        annotations = self.instances[split]
        said = annotations.size(id)
        if said and image is None:
            check_size(*said, self.max_pixels, "annotated image", INGEST_LIMIT)
            return annotations.paint(id, *said, self.class_ids)
        if image is None:
            image = self.photo(split, id)
        header = photo_header(image, self.max_pixels)
        if said and said not in (header[:2], header.upright_size):
            raise BadData(
                f"{annotations.path.name} says that the image is {said[0]} x {said[1]} pixels, and "
                f"the photo is {header.width} x {header.height}; correct the file, or put back the "
                "photo that was annotated"
            )
        painted = annotations.paint(id, *(said or header.upright_size), self.class_ids)
        if said:
            return painted
        return painted._replace(
            remarks=(*painted.remarks, Remark(what=SIZE_OF_FILE, detail="that"))
        )

    def _categories(self, category_ids: tuple[int, ...] | None) -> Mapping[int, str]:
        """Return the names of the classes by category id.

        Raises:
            BadData: The splits have different ones, or they are not COCO 2017's and must be.
        """
        first, *others = self.instances.values()
        for other in others:
            if other.categories != first.categories:
                differ = first.categories.items() ^ other.categories.items()
                raise BadData(
                    f"{first.path} and {other.path} have different categories, such as "
                    f"{min(differ)}: use one list in both"
                )
        if category_ids and first.categories != COCO_CATEGORIES:
            raise BadData(
                f"{first.path} has other categories than COCO 2017, which is needed here: give "
                "COCO 2017's own file"
            )
        names = class_names(first.categories)
        if len(names) >= VOID:
            raise BadData(
                f"{first.path} has {len(names)} categories; masks have 8 bits, which leaves room "
                f"for {VOID - 1} classes: keep the categories that matter"
            )
        if not names:
            raise BadData(f"{first.path} has no category besides background")
        return names
