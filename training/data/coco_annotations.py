"""Read the JSON files in which COCO's format keeps categories, images and objects."""

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.config import BACKGROUND, VOID
from training.data.class_names import BACKGROUND_NAMES, UNNAMEABLE
from training.data.coco_outlines import NoOutline, rasterise, short_parts
from training.data.file_index import FileIndex, without_ending
from training.data.source import BadData, Remark, file_bytes

NO_OUTLINE = "objects without an outline are left out, and their pixels are background"
NO_PIXEL = "objects cover no pixel"
SHORT_PARTS = "polygons of fewer than three corners are left out"


class Painted(NamedTuple):
    """The objects of an image, laid over each other."""

    mask: np.ndarray  # class ids, uint8 [height, width]
    remarks: tuple[Remark, ...]


class Drawn(NamedTuple):
    """An object of an image."""

    category_id: int
    is_crowd: bool
    pixels: np.ndarray  # bool [height, width]


class Annotations:
    """The categories of a file, and the objects of each of its images.

    Objects are kept as text in one array, so that the processes of a machine can share it.

    Args:
        path: The JSON file.
        photos: The photos that it can name.

    Raises:
        BadData: The file does not hold COCO's annotations, or contradicts itself.
    """

    def __init__(self, path: Path, photos: FileIndex) -> None:
        data = file_bytes(path, "annotations")
        self.path = path
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadData(
                f"{path} does not hold COCO's annotations ({type(error).__name__}: {error}); "
                "download it again, or export it again"
            ) from None
        for part in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not isinstance(content.get(part), list):
                raise BadData(
                    f"{path} does not hold COCO's annotations: it has no list {part!r}; give a "
                    "file with images, annotations and categories"
                )
        self.categories = _categories(content["categories"], path)
        images = _images(content["images"], path, photos)
        self.strays = _add_objects(content["annotations"], images, path)
        ordered = sorted(images.values(), key=lambda image: image["id"])
        _check_distinct(ordered, path)
        self.ids = [image["id"] for image in ordered]
        texts = [json.dumps(image).encode() for image in ordered]
        self.ends = np.cumsum([len(text) for text in texts])
        self.texts = np.frombuffer(b"".join(texts), np.uint8)
        self._rows = {id: row for row, id in enumerate(self.ids)}

    def size(self, id: str) -> tuple[int, int] | None:
        """Return width and height of an image as the file says, None if it says no such thing."""
        size = self._image(id)["size"]
        return tuple(size) if size else None

    def paint(self, id: str, width: int, height: int, class_ids: Mapping[int, int]) -> Painted:
        """Lay the objects of an image over each other, the last one on top.

        Crowds lie, as void, below all others. Objects without an outline are left out.

        Args:
            id: The image.
            width: Of the image, pixels.
            height: Of the image, pixels.
            class_ids: The class id of each category id.

        Raises:
            BadData: An object is not what COCO's format says.
        """
        mask = np.zeros((height, width), np.uint8)
        remarks: list[Remark] = []
        covered = np.zeros((height, width), bool)
        in_crowd = np.zeros((height, width), bool)
        for entry in self._image(id)["objects"]:
            drawn = self._draw(entry, width, height, remarks)
            if drawn and drawn.is_crowd:
                in_crowd |= drawn.pixels
            elif drawn:
                mask[drawn.pixels] = class_ids.get(drawn.category_id, BACKGROUND)
                covered |= drawn.pixels
        mask[in_crowd & ~covered] = VOID
        return Painted(mask, tuple(remarks))

    def _image(self, id: str) -> dict[str, Any]:
        row = self._rows[id]
        start = self.ends[row - 1] if row else 0
        return json.loads(self.texts[start : self.ends[row]].tobytes())

    def _draw(
        self, entry: list[Any], width: int, height: int, remarks: list[Remark]
    ) -> Drawn | None:
        """Return the pixels of an object, None if it has no outline; add to `remarks`."""
        name, category, is_crowd, segmentation = entry
        try:
            category_id = self._known_category(category)
            where = f"object {name} ({self.categories[category_id]})"
            crowd = _crowd(is_crowd)
            try:
                pixels = rasterise(segmentation, height, width)
            except NoOutline:
                remarks.append(Remark(what=NO_OUTLINE, detail=where))
                return None
        except BadData as error:
            raise BadData(
                f"object {name} of it: {error}; correct it in {self.path.name}, or take it out "
                "there"
            ) from None
        if short_parts(segmentation):
            remarks.append(Remark(what=SHORT_PARTS, detail=where))
        if not pixels.any():
            remarks.append(Remark(what=NO_PIXEL, detail=where))
        return Drawn(category_id, crowd, pixels)

    def _known_category(self, category: Any) -> int:
        number = whole_number(category)
        if number is None or number not in self.categories:
            names = [f"{id} {name}" for id, name in list(self.categories.items())[:6]]
            raise BadData(
                f"its category_id is {category!r}, and the file's categories are "
                f"{', '.join(names)}{' and others' if len(self.categories) > 6 else ''}"
            )
        return number


def whole_number(value: Any) -> int | None:
    """Return a number of a JSON file that must be whole, also if it is written 80.0 or "80"."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if re.fullmatch(r"-?\d{1,19}", value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value == value // 1 and abs(value) < 2**63 else None


def _crowd(value: Any) -> bool:
    number = int(value) if isinstance(value, bool) else whole_number(0 if value is None else value)
    if number not in (0, 1):
        raise BadData(f"its iscrowd is {value!r}, and 0 and 1 are possible")
    return bool(number)


def _categories(content: list[Any], path: Path) -> dict[int, str]:
    """Return the names of the file's categories by their ids, ascending."""
    names: dict[int, str] = {}
    for position, entry in enumerate(content):
        id = whole_number(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if id is None or not isinstance(name, str) or not name.strip():
            raise BadData(f"{path}: category {position} has no number and name: {entry!r:.80}")
        if id in names or name.strip() in names.values():
            raise BadData(
                f"{path}: two categories have the id {id} or the name {name.strip()!r}: give each "
                "its own"
            )
        if UNNAMEABLE.search(name):
            raise BadData(
                f"{path}: category {id}, {name.strip()[:60]!r}, is no class name: give it one "
                "without commas and brackets, since commas separate names in --groups"
            )
        names[id] = name.strip()
    if not names:
        raise BadData(f"{path} names no categories: add the list 'categories' with ids and names")
    return dict(sorted(names.items()))


def class_names(categories: Mapping[int, str]) -> dict[int, str]:
    """Return the categories that are classes: all but one that is called background."""
    return {id: name for id, name in categories.items() if name.lower() not in BACKGROUND_NAMES}


def _image_id(value: Any) -> int | str | None:
    """Return an image's id, which is the same whether it is written 1, 1.0 or "1"; None is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = whole_number(value)
    # Texts such as "007" and "7" may be two images.
    is_text = isinstance(value, str) and str(number) != value.strip()
    return value if is_text else number


def _images(content: list[Any], path: Path, photos: FileIndex) -> dict[int | str, dict[str, Any]]:
    """Return name, size and objects, none yet, of each image, by the file's ids."""
    images: dict[int | str, dict[str, Any]] = {}
    for position, entry in enumerate(content):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        id = _image_id(entry.get("id")) if isinstance(entry, dict) else None
        if not isinstance(name, str) or id is None:
            raise BadData(f"{path}: image {position} has no id and file_name: {entry!r:.80}")
        if id in images:
            raise BadData(f"{path}: two images have the id {entry['id']!r}: give each its own")
        found = photos.find(name)
        size = [whole_number(entry.get(side)) or 0 for side in ("width", "height")]
        images[id] = {
            "id": found[0] if len(found) == 1 else without_ending(name.replace("\\", "/")),
            "size": size if min(size) > 0 else None,
            "objects": [],
        }
    return images


def _add_objects(
    content: list[Any], images: dict[int | str, dict[str, Any]], path: Path
) -> list[str]:
    """Add each object to its image, and return the names of those whose image is not listed."""
    strays = []
    for position, entry in enumerate(content):
        if not isinstance(entry, dict):
            raise BadData(f"{path}: annotation {position} is no object: {entry!r:.80}")
        name = entry.get("id", f"number {position}")
        image = _image_id(entry.get("image_id"))
        if image is None or image not in images:
            strays.append(f"object {name} of image {entry.get('image_id')!r}")
            continue
        images[image]["objects"].append(
            [name, entry.get("category_id"), entry.get("iscrowd"), entry.get("segmentation")]
        )
    return strays


def _check_distinct(images: list[dict[str, Any]], path: Path) -> None:
    for one, other in pairwise(images):
        if one["id"] == other["id"]:
            raise BadData(f"{path}: two images have the photo {one['id']!r}: list it once")
