"""Read COCO 2017's 80 thing classes as a semantic dataset.

Masks come from COCO's instances or from COCO-Stuff's maps.

Instances are polygons or run lengths, and COCO's own library rasterises them. They are laid over
each other in the file's order, later ones on top, as COCO's own conversion to semantic maps does.
That conversion leaves crowds out. A crowd holds its class, but not only its class, so its pixels
are void here where no instance covers them.

COCO-Stuff's maps hold the category id - 1. Its stuff classes are background.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from training.config import BACKGROUND, VOID
from training.data.deterministic_png import encode_mask
from training.data.source import BadData, Sample, file_bytes
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


def class_table(category_ids: tuple[int, ...]) -> np.ndarray:
    """Return the class id of each COCO category id, uint8 [256].

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
        category_ids: COCO's ids of the classes 1, 2, ...; by default all 80 in COCO's order.

    Raises:
        BadData: Folders are missing, or the annotations are not COCO's.
    """

    def __init__(
        self, root: Path, masks: MASKS, category_ids: tuple[int, ...] = tuple(COCO_CATEGORIES)
    ) -> None:
        self.root = root
        self.kind = masks
        self.classes = tuple(COCO_CATEGORIES[id] for id in category_ids)
        self.table = class_table(category_ids)
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
        self.recipe = f"{masks} {category_ids}"
        if masks == "instances":
            self.instances = {split: Instances(self.annotations(split)) for split in self.splits}
            self.recipe += " ".join(instances.sha256 for instances in self.instances.values())

    def annotations(self, split: str) -> Path:
        """Return the file or folder that the masks of a split come from."""
        if self.kind == "instances":
            return self.root / "annotations" / f"instances_{FOLDERS[split]}.json"
        return self.root / "stuffthingmaps" / FOLDERS[split]

    def ids(self, split: str) -> list[str]:
        """Return the names of the split's images, sorted, with or without an annotated object."""
        if self.kind == "instances":
            return self.instances[split].ids
        return sorted(path.stem for path in self.annotations(split).glob("*.png"))

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """Return the JPEG, and the map where masks come from maps."""
        image = self.root / FOLDERS[split] / f"{id}.jpg"
        if self.kind == "instances":
            return (image,)
        return image, self.annotations(split) / f"{id}.png"

    def read(self, split: str, id: str) -> Sample:
        """Return the JPEG as it is, and a mask of class ids."""
        image = file_bytes(self.files(split, id)[0], "image")
        return Sample(id, image, encode_mask(self.mask(split, id)))

    def mask(self, split: str, id: str) -> np.ndarray:
        """Return the class ids of an image's pixels, uint8 [height, width]."""
        if self.kind == "instances":
            return self.table[self.instances[split].mask(id)]
        # A map's value is the category id - 1.
        class_of_value = np.append(self.table[1:VOID], [BACKGROUND, VOID]).astype(np.uint8)
        return class_of_value[decode_mask(file_bytes(self.files(split, id)[1], "mask"))]


class Instances:
    """The annotations of a split, by image.

    They are kept as text in one array, so that the processes of a machine can share it.

    Raises:
        BadData: The file does not hold COCO's instances.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            images = _objects_by_image(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(
                f"{path} does not hold COCO's instances ({type(error).__name__}: {error}); "
                "download it again"
            ) from None
        images.sort(key=lambda image: image["id"])
        self.ids = [image["id"] for image in images]
        texts = [json.dumps(image).encode() for image in images]
        self.ends = np.cumsum([len(text) for text in texts])
        self.texts = np.frombuffer(b"".join(texts), np.uint8)
        self._rows = {id: row for row, id in enumerate(self.ids)}

    def mask(self, id: str) -> np.ndarray:
        """Return the COCO category ids of an image's pixels, uint8 [height, width].

        Raises:
            BadData: An object cannot be rasterised.
        """
        row = self._rows[id]
        start = self.ends[row - 1] if row else 0
        image = json.loads(self.texts[start : self.ends[row]].tobytes())
        return paint(image["objects"], *image["size"])


def _objects_by_image(content: Any) -> list[dict[str, Any]]:
    """Return the id, size [height, width] and objects of each image, in the file's order."""
    images = {}
    for image in content["images"]:
        images[image["id"]] = {
            "id": Path(image["file_name"]).stem,
            "size": [image["height"], image["width"]],
            "objects": [],
        }
    for entry in content["annotations"]:
        instance = [entry["category_id"], bool(entry["iscrowd"]), entry["segmentation"]]
        images[entry["image_id"]]["objects"].append(instance)
    return list(images.values())


def paint(objects: list[tuple[int, bool, Any]], height: int, width: int) -> np.ndarray:
    """Lay objects over each other, the last one on top; crowds lie, as void, below all others.

    Args:
        objects: The category id, whether it is a crowd, and the segmentation of each.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        Category ids, uint8 [height, width].

    Raises:
        BadData: COCO's library cannot rasterise an object.
    """
    result = np.zeros((height, width), np.uint8)
    for crowd in (True, False):
        for category_id, is_crowd, segmentation in objects:
            if is_crowd == crowd:
                result[rasterise(segmentation, height, width)] = VOID if crowd else category_id
    return result


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the pixels that a segmentation covers, bool [height, width].

    Args:
        segmentation: Polygons, [[x, y, x, y, ...], ...], or run lengths, {size, counts}.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        BadData: COCO's library cannot rasterise it.
    """
    try:
        if isinstance(segmentation, list):
            runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            _check_runs(segmentation["size"], sum(segmentation["counts"]), height, width)
            runs = coco_mask.frPyObjects(segmentation, height, width)
        else:
            _check_runs(segmentation["size"], height * width, height, width)
            runs = segmentation
        return coco_mask.decode(runs).astype(bool)
    except Exception as error:  # noqa: BLE001  pycocotools raises plain Exception, too
        raise BadData(f"an object's segmentation cannot be rasterised: {error}") from None


def _check_runs(size: list[int], pixels: int, height: int, width: int) -> None:
    """Raise BadData for runs of another size.

    COCO's library writes past the end of a mask smaller than its runs.
    """
    if size != [height, width] or pixels != height * width:
        raise BadData(
            f"its runs cover {pixels} pixels of {size}, and the image is {[height, width]}"
        )
