"""Read two plain folders, one of photos and one of masks.

A photo and a mask belong together if their paths below the folders are equal but for the ending.
Which photos are validated on is said by two lists, by folders such as `train` and `val`, or drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

from training.data.file_index import (
    MASK_ENDINGS,
    FileIndex,
    litter_remark,
    mask_id,
    same_spelling,
)
from training.data.source import BadData, Sample, file_bytes
from training.data.split_list import place_masks, read_split_list

# What folders of a split are called.
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class SplitBy:
    """How photos are divided among splits; at most one of the ways is given."""

    lists: tuple[Path, Path] | None = None  # of train and val
    val_share: float | None = None  # of the photos, above 0 and below 1
    seed: int = 0  # of the draw


class Folder:
    """Photos and masks of two folders; splits train, val and perhaps test.

    Args:
        images: Folder of the photos.
        masks: Folder of the masks. It may be the same: photos are then the JPEGs.
        classes: The class names, of mask values 1, 2, ...
        split_by: How photos are divided; by default by the folders train and val below `images`.
        mask_suffix: What a mask's name has after its photo's, such as `_mask`.
        skip_unpaired: Leave out photos without a mask, and ignore masks without a photo.

    Raises:
        BadData: A folder is missing or empty, photos and masks do not pair, or nothing says how to
            divide them.
    """

    recipe = "verbatim"

    def __init__(
        self,
        images: Path,
        masks: Path,
        classes: Sequence[str],
        split_by: SplitBy,
        mask_suffix: str = "",
        *,
        skip_unpaired: bool = False,
    ) -> None:
        self.classes = tuple(classes)
        self._remarks: list[str] = []
        self.photos, self.mask_files = _open(images, masks, mask_suffix)
        self.mask_suffix = mask_suffix
        self._masks: dict[str, Path] = {}  # of each photo that has one
        if split_by.lists:
            self._ids = self._listed(*split_by.lists)
        else:
            self._pair(skip_unpaired)
            if split_by.val_share is None:
                self._ids = self._by_folder()
            else:
                self._ids = _draw(list(self._masks), split_by.val_share, split_by.seed)
        self.splits = tuple(self._ids)

    def ids(self, split: str) -> list[str]:
        """Return the split's photos: in the list's order, or sorted."""
        return self._ids[split]

    def files(self, split: str, id: str) -> tuple[Path, Path]:
        """Return the photo and the mask of one image."""
        mask = self._masks.get(id) or self.mask_files.path(self._mask_id(id + self.mask_suffix, id))
        return self.photos.path(id), mask

    def read(self, split: str, id: str) -> Sample:
        """Return the bytes of both files as they are."""
        self.photos.check(id, "photo")
        self.mask_files.check(self._mask_id(id + self.mask_suffix, id), "mask")
        image, mask = self.files(split, id)
        return Sample(id, file_bytes(image, "image"), file_bytes(mask, "mask"))

    def remarks(self) -> list[str]:
        """Return what was passed over."""
        return self._remarks + litter_remark([self.photos, self.mask_files])

    def _listed(self, train: Path, val: Path) -> dict[str, list[str]]:
        """Return the photos that the lists name, and keep their masks."""
        ids = {}
        for split, path in (("train", train), ("val", val)):
            found = read_split_list(path, self.photos)
            roots = [self.photos.folder, self.photos.folder.parent, self.mask_files.folder.parent]
            self._masks |= place_masks(found.images, roots, self.mask_files)
            ids[split] = [image.id for image in found.images]
            self._remarks += found.remarks
        for id in (id for listed in ids.values() for id in listed):
            if id not in self._masks and (mask := self._mask_of(id)):
                self._masks[id] = mask
        unlisted = self.photos.names.keys() - set(chain.from_iterable(ids.values()))
        if unlisted:
            self._remarks.append(
                f"{len(unlisted)} of {len(self.photos)} photos in {self.photos.folder} are in no "
                f"list and are left out, such as {min(unlisted)}"
            )
        return ids

    def _pair(self, skip_unpaired: bool) -> None:
        """Find the mask of each photo. Raise BadData if photos or masks are left over."""
        for id in self.photos.names:
            mask = self._mask_of(id)
            if mask:
                self._masks[id] = mask
        self._check_shared()
        alone = [id for id in self.photos.names if id not in self._masks]
        used = set(self._masks.values())
        unused = [id for id in self.mask_files.names if self.mask_files.path(id) not in used]
        if not alone and not unused:
            return
        left_over = _left_over(alone, unused, self.photos, self.mask_files)
        if not self._masks:
            raise BadData(
                f"{left_over}: a mask has its photo's name with another ending; if it has more, "
                "such as a_mask.png for a.jpg, give --mask-suffix _mask, or give lists with the "
                "photo and its mask in each line (--train-list, --val-list)"
            )
        if not skip_unpaired:
            raise BadData(
                f"{left_over}; the other {len(self._masks)} are pairs: add what is missing, or "
                "ingest the pairs alone with --on-bad skip"
            )
        self._remarks.append(f"{left_over}; these were left out")

    def _check_shared(self) -> None:
        """Raise BadData if two photos have one mask."""
        photo_of: dict[Path, str] = {}
        for id, mask in self._masks.items():
            other = photo_of.setdefault(mask, id)
            if other != id:
                raise BadData(
                    f"the photos {other} and {id} would both have the mask {mask}: put masks in "
                    "the same subfolders as their photos"
                )

    def _mask_of(self, id: str) -> Path | None:
        """Return the mask of a photo's name, in the same subfolder or else in the masks' folder."""
        names = [id + self.mask_suffix]
        folder, _, below = names[0].partition("/")
        if folder.lower() in SPLIT_FOLDERS:
            names.append(below)
        names = [self._mask_id(name, id) for name in names]
        return next((self.mask_files.path(name) for name in names if name in self.mask_files), None)

    def _mask_id(self, name: str, photo: str) -> str:
        return mask_id(name, self.mask_files, photo, self.photos)

    def _by_folder(self) -> dict[str, list[str]]:
        """Return the photos of the folders train, val and test, under other usual names too."""
        ids: dict[str, list[str]] = {}
        outside = 0
        for id in sorted(self._masks):
            split = SPLIT_FOLDERS.get(id.partition("/")[0].lower()) if "/" in id else None
            if split:
                ids.setdefault(split, []).append(id)
            else:
                outside += 1
        if not {"train", "val"} <= set(ids):
            raise BadData(
                f"nothing says which of the {len(self._masks)} photos in {self.photos.folder} are "
                "for validation: give --val-share 0.2, or --train-list and --val-list, or put them "
                "in folders train and val"
            )
        if outside:
            self._remarks.append(f"{outside} photos outside of the folders of splits are left out")
        return {split: ids[split] for split in ("train", "val", "test") if split in ids}


def _open(images: Path, masks: Path, mask_suffix: str) -> tuple[FileIndex, FileIndex]:
    """Return the photos and the masks. Raise BadData if there are none."""
    for folder, option in ((images, "--images"), (masks, "--masks")):
        if not folder.is_dir():
            raise BadData(f"{folder} is not a folder: give the folder of the files as {option}")
    photos = FileIndex(images)
    mask_files = FileIndex(masks, MASK_ENDINGS, preferred=".png")
    if images.resolve() == masks.resolve():
        _tell_apart(photos, mask_files, mask_suffix)
    for index, what, kind in ((photos, "photos", "JPEG or PNG"), (mask_files, "masks", "PNG")):
        if not index.names:
            endings = ", ".join([*index.foreign, *index.others][:SHOWN])
            advice = f"its files end with {endings}, which are not read: save them as {kind}"
            if not index.foreign:
                give = "give the folder that holds them"
                advice = f"{advice}, or {give}" if endings else give
            raise BadData(f"{index.folder} holds no {what} (.jpg, .png, .webp ...): {advice}")
    return photos, mask_files


def _tell_apart(photos: FileIndex, masks: FileIndex, suffix: str) -> None:
    """Divide the files of one folder: masks have the suffix, or else are the PNGs."""
    if suffix:
        end = suffix.casefold()
        for index, is_mask in ((photos, False), (masks, True)):
            names = index.names.items()
            index.names = {id: each for id, each in names if id.casefold().endswith(end) == is_mask}
        return
    for index, is_mask in ((photos, False), (masks, True)):
        kept = {}
        for id, names in index.names.items():
            chosen = [name for name in names if name.lower().endswith(".png") == is_mask]
            if chosen:
                kept[id] = chosen
        index.names = kept


def _left_over(
    alone: Sequence[str], unused: Sequence[str], photos: FileIndex, masks: FileIndex
) -> str:
    """Return the words for photos without a mask and masks without a photo."""
    words = []
    if alone:
        words.append(
            f"{len(alone)} of {len(photos)} photos in {photos.folder} have no mask ({_few(alone)})"
        )
    if unused:
        words.append(
            f"{len(unused)} of {len(masks)} masks in {masks.folder} have no photo ({_few(unused)})"
        )
    return " and ".join(words)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{shown} ..." if len(names) > SHOWN else shown


def _draw(ids: Sequence[str], share: float, seed: int) -> dict[str, list[str]]:
    """Return the photos of train and val, sorted; the draw is the same on every machine."""
    if not 0 < share < 1:
        raise BadData(f"--val-share {share} leaves a split empty: give a share such as 0.2")
    if len(ids) < 2:
        raise BadData("one photo cannot be divided into train and val: add photos")
    order = sorted(ids, key=lambda id: sha256(f"{seed} {same_spelling(id)}".encode()).digest())
    count = min(len(ids) - 1, max(1, round(share * len(ids))))
    return {"train": sorted(order[count:]), "val": sorted(order[:count])}
