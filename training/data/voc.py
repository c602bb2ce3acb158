"""Read a folder in the layout of PASCAL VOC 2012."""

from collections.abc import Mapping
from pathlib import Path

from training.data.source import BadData, Sample, file_bytes

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
        JPEGImages/<id>.jpg
        SegmentationClassAug/<id>.png           or else SegmentationClass/<id>.png

    Args:
        root: The folder.
        splits: The list file of each split. By default train is train_aug or else train, and val is
            val, where these files exist.

    Raises:
        BadData: The folder or a list is missing.
    """

    classes = VOC_CLASSES
    recipe = "verbatim"

    def __init__(self, root: Path, splits: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.lists = root / "ImageSets" / "Segmentation"
        if not self.lists.is_dir():
            raise BadData(
                f"{root} is not a dataset in VOC's layout: "
                "it has no folder ImageSets/Segmentation; "
                "give the folder that holds JPEGImages and ImageSets (usually VOCdevkit/VOC2012)"
            )
        self.list_files = dict(splits) if splits else self._present_lists()
        self.splits = tuple(self.list_files)
        masks = root / "SegmentationClassAug"
        self.masks = masks if masks.is_dir() else root / "SegmentationClass"

    def ids(self, split: str) -> list[str]:
        """Return a split's ids in the order of its list file, which published selections use."""
        path = self.lists / f"{self.list_files[split]}.txt"
        if not path.is_file():
            raise BadData(
                f"split {split!r} has no list {path}; add it, or name the list file of the split"
            )
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]

    def files(self, split: str, id: str) -> tuple[Path, Path]:
        """Return the JPEG and the palette mask of one image."""
        return self.root / "JPEGImages" / f"{id}.jpg", self.masks / f"{id}.png"

    def read(self, split: str, id: str) -> Sample:
        """Return the bytes of both files as they are."""
        image, mask = self.files(split, id)
        return Sample(id, file_bytes(image, "image"), file_bytes(mask, "mask"))

    def _present_lists(self) -> dict[str, str]:
        present = {}
        for split, names in VOC_LISTS.items():
            existing = [name for name in names if (self.lists / f"{name}.txt").is_file()]
            if existing:
                present[split] = existing[0]
        if not present:
            raise BadData(
                f"{self.lists} holds none of train_aug.txt, train.txt and val.txt; "
                "add one, with an image id per line"
            )
        return present
