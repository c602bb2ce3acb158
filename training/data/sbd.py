"""Read PASCAL VOC 2012 together with SBD's own release.

It replaces a folder SegmentationClassAug.

SBD (Hariharan et al., ICCV 2011) annotates 11,355 images of VOC in MATLAB files. The papers'
training set of 10,582 images is that of VOC and SBD without VOC's validation images, sorted by id.
An image that VOC annotates keeps VOC's mask, which has a void border; SBD's masks have none.
"""

import io
import zlib
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from training.data.deterministic_png import encode_mask
from training.data.file_index import MASK_ENDINGS, FileIndex
from training.data.source import BadData, Sample, file_bytes
from training.data.split_list import read_split_list
from training.data.voc import Voc


class VocWithSbd(Voc):
    """Splits train (VOC's and SBD's images) and val (VOC's).

    Args:
        root: Folder of VOC 2012 with JPEGImages, ImageSets/Segmentation and SegmentationClass.
        sbd: Folder `dataset` of SBD's release, with cls/<id>.mat, train.txt and val.txt.

    Raises:
        BadData: A folder or a list is missing.
    """

    recipe = "verbatim; GTcls of SBD as PNG"

    def __init__(self, root: Path, sbd: Path) -> None:
        super().__init__(root, {"train": "train", "val": "val"})
        self.masks = root / "SegmentationClass"
        self.mask_index = FileIndex(self.masks, MASK_ENDINGS, preferred=".png")
        self.sbd = sbd
        if not (sbd / "cls").is_dir():
            raise BadData(
                f"{sbd} is not SBD's release: it has no folder cls; "
                "give its folder dataset (benchmark_RELEASE/dataset)"
            )
        self.own = set(super().ids("train"))

    def ids(self, split: str) -> list[str]:
        """Return the ids in the order that published selections refer to: sorted."""
        if split != "train":
            return super().ids(split)
        annotated = {*self.own, *self._listed("train"), *self._listed("val")}
        return sorted(annotated - set(super().ids("val")))

    def files(self, split: str, id: str) -> tuple[Path, Path]:
        """Return the photo of one image with VOC's mask, or else SBD's."""
        image, mask = super().files(split, id)
        if split == "train" and id not in self.own:
            mask = self.sbd / "cls" / f"{id}.mat"
        return image, mask

    def read(self, split: str, id: str) -> Sample:
        """Return the photo as it is, and a PNG mask."""
        image, mask = self.files(split, id)
        if mask.suffix != ".mat":
            return super().read(split, id)
        self.photo_index.check(id, "photo")
        return Sample(id, file_bytes(image, "image"), encode_mask(_read_gtcls(mask)))

    def _listed(self, name: str) -> list[str]:
        path = self.sbd / f"{name}.txt"
        if not path.is_file():
            raise BadData(f"SBD's list {path} is missing; unpack all of its release")
        return [image.id for image in read_split_list(path, self.photo_index).images]


def _read_gtcls(path: Path) -> np.ndarray:
    """Return the class values of an SBD file, uint8 [height, width]."""
    data = io.BytesIO(file_bytes(path, "mask"))
    try:
        values = loadmat(data, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except (
        MatReadError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        OSError,
        zlib.error,
    ) as error:
        raise BadData(
            f"the mask {path} cannot be read as MATLAB's GTcls.Segmentation: {error}"
        ) from None
    if values.ndim != 2 or values.dtype != np.uint8:
        raise BadData(
            f"the mask {path} holds {values.dtype} {list(values.shape)} where class values, "
            "uint8 [height, width], belong"
        )
    return values
