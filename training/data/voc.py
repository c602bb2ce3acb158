"""Read a folder in the layout of PASCAL VOC 2012."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.data.file_index import (
    MASK_ENDINGS,
    FileIndex,
    is_litter,
    litter_remark,
    mask_id,
)
from training.data.source import BadData, Sample, file_bytes
from training.data.split_list import Listed, SplitList, place_masks, read_split_list

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


# List files of each split, the preferred one first.
VOC_LISTS = {"train": ("train_aug", "train"), "val": ("val",)}


class Voc:
    """A folder in the layout of PASCAL VOC 2012, with the masks of SBD where there are any.

        ImageSets/Segmentation/<list>.txt       ids, one per line
        JPEGImages/<id>.jpg                     or another ending of a photo
        SegmentationClassAug/<id>.png           or else SegmentationClass/<id>.png

    Lists may have endings, folders and further columns; a mask that a list names is the image's.

    Args:
        root: The folder.
        splits: The list file of each split. By default train is train_aug or else train, and val is
            val, where these files exist.
        classes: The class names, of mask values 1, 2, ...; by default VOC's.

    Raises:
        BadData: The folder or a list is missing.
    """

    classes: tuple[str, ...] = VOC_CLASSES
    recipe = "verbatim"

    def __init__(
        self,
        root: Path,
        splits: Mapping[str, str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root = root
        if classes:
            self.classes = tuple(classes)
        self.lists = root / "ImageSets" / "Segmentation"
        if not self.lists.is_dir():
            raise BadData(
                f"{root} is not a dataset in VOC's layout: "
                "it has no folder ImageSets/Segmentation; "
                "give the folder that holds JPEGImages and ImageSets (usually VOCdevkit/VOC2012)"
            )
        self._missing_splits: list[str] = []
        self.list_files = dict(splits) if splits else self._present_lists()
        self.splits = tuple(self.list_files)
        masks = root / "SegmentationClassAug"
        self.masks = masks if masks.is_dir() else root / "SegmentationClass"
        self.photo_index = FileIndex(root / "JPEGImages")
        self.mask_index = FileIndex(self.masks, MASK_ENDINGS, preferred=".png")
        self._read: dict[str, SplitList] = {}
        self._listed_masks: dict[str, Path] = {}

    def ids(self, split: str) -> list[str]:
        """Return a split's ids in the order of its list file, which published selections use."""
        return [image.id for image in self.listed(split)]

    def listed(self, split: str) -> list[Listed]:
        """Return a split's images as its list file names them."""
        if split not in self._read:
            path = self._list_path(self.list_files[split])
            if not path.is_file():
                raise BadData(
                    f"split {split!r} has no list {path}; add it, or name the list file of the "
                    "split"
                )
            self._read[split] = read_split_list(path, self.photo_index)
            images = self._read[split].images
            self._listed_masks |= place_masks(images, [self.root], self.mask_index)
        return self._read[split].images

    def files(self, split: str, id: str) -> tuple[Path, Path]:
        """Return the photo and the mask of one image."""
        self.listed(split)
        mask = self._listed_masks.get(id) or self.mask_index.path(self._mask_id(id))
        return self.photo_index.path(id), mask

    def read(self, split: str, id: str) -> Sample:
        """Return the bytes of both files as they are."""
        image, mask = self.files(split, id)
        self.photo_index.check(id, "photo")
        if id not in self._listed_masks:
            self.mask_index.check(self._mask_id(id), "mask")
        return Sample(id, file_bytes(image, "image"), file_bytes(mask, "mask"))

    def remarks(self) -> list[str]:
        """Return what was passed over."""
        for split in self.splits:
            self.listed(split)
        of_lists = [remark for read in self._read.values() for remark in read.remarks]
        litter = litter_remark([self.photo_index, self.mask_index])
        return [*of_lists, *self._missing_splits, *litter]

    def _mask_id(self, id: str) -> str:
        return mask_id(id, self.mask_index, id, self.photo_index)

    def _list_path(self, name: str) -> Path:
        """Return the file of a list, in whatever letters it is written; it may not exist."""
        path = self.lists / f"{name}.txt"
        if path.is_file():
            return path
        alike = [each for each in self._lists() if each.name.lower() == path.name.lower()]
        return alike[0] if len(alike) == 1 else path

    def _lists(self) -> list[Path]:
        return sorted(
            path
            for path in self.lists.iterdir()
            if path.suffix.lower() == ".txt" and path.is_file() and not is_litter(path.name)
        )

    def _present_lists(self) -> dict[str, str]:
        present = {}
        for split, names in VOC_LISTS.items():
            existing = [name for name in names if self._list_path(name).is_file()]
            if existing:
                present[split] = existing[0]
            else:
                self._missing_splits.append(self._missing(split, names))
        if not present:
            raise BadData(
                f"{self.lists} holds none of train_aug.txt, train.txt and val.txt; "
                "add one, with an image id per line, or give the folders of photos and masks to "
                "`jobs.ingest folder`, which can draw a split"
            )
        return present

    def _missing(self, split: str, names: Sequence[str]) -> str:
        """Return the sentence that says that a split has no list, and which lists there are."""
        files = " or ".join(f"{name}.txt" for name in names)
        there = ", ".join(path.name for path in self._lists())
        return f"there is no split {split}: {self.lists} has no {files}, but {there or 'no list'}"
