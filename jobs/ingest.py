"""Put a dataset into the store: `python -m jobs.ingest voc --root PATH --store URI`.

Every image is decoded and checked, and stored as its original bytes. So are masks, unless they have
to be made. After an interruption the same command resumes; repeated, it uploads nothing. Unusable
images are listed on the screen and in `reports/<name>.json` of the store. `ls`, `info` and `export`
show what a store holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.datasets import export, info, ls
from jobs.errors import user_errors
from jobs.options import StoreOptions

if TYPE_CHECKING:
    from orchestrator.store.base import Store
    from training.data.source import Source
    from training.data.voc import Voc

# The sources' modules are imported by their commands, because scikit-learn and pycocotools are slow
# to import.
Masks = Literal["instances", "stuffthingmaps"]


@dataclass(frozen=True)
class Options(StoreOptions):
    """How a dataset is stored, whichever it is."""

    on_bad: Literal["error", "skip"] = "error"
    """Whether one unusable image refuses the dataset, or is left out of it."""
    where: Literal["auto", "here", "cluster"] = "auto"
    """Threads here, or tasks of a Ray cluster ($RAY_ADDRESS, or this machine). auto: a cluster from
    20,000 new images on."""
    verify: bool = False
    """Afterwards read all that the store holds of the dataset, and store again what is damaged."""


Flat = Annotated[Options, tyro.conf.arg(name="")]


def voc(root: Path, options: Flat, name: str = "voc", sbd: Path | None = None) -> None:
    """Ingest a folder in the layout of PASCAL VOC 2012, with or without the masks of SBD.

    Args:
        root: Folder that holds JPEGImages, ImageSets/Segmentation and SegmentationClassAug or
            SegmentationClass.
        name: Name of the dataset in the store.
        sbd: Folder of SBD's own release (benchmark_RELEASE/dataset), where there is no
            SegmentationClassAug.
    """
    store = _open(name, options)
    _store(_voc(root, sbd), store, name, options)


def coco(root: Path, options: Flat, name: str = "coco", masks: Masks = "instances") -> None:
    """Ingest COCO 2017's 80 classes, from its instances or from COCO-Stuff's maps.

    Args:
        root: Folder that holds train2017, val2017 and annotations or stuffthingmaps.
        name: Name of the dataset in the store.
        masks: What masks are made of: annotations/instances_*2017.json, or the PNGs in
            stuffthingmaps/*2017.
    """
    from training.data.coco import Coco

    store = _open(name, options)
    _store(Coco(root, masks), store, name, options)


def ade(root: Path, options: Flat, name: str = "ade") -> None:
    """Ingest ADE20K, the scene-parsing benchmark of 150 classes.

    Args:
        root: Folder ADEChallengeData2016, which holds images and annotations.
        name: Name of the dataset in the store.
    """
    from training.data.ade import Ade

    store = _open(name, options)
    _store(Ade(root), store, name, options)


def coco_voc(
    coco: Path,
    voc: Path,
    options: Flat,
    name: str = "coco_voc",
    sbd: Path | None = None,
    masks: Masks = "stuffthingmaps",
) -> None:
    """Ingest COCO-to-VOC: 60 classes of COCO, then VOC's 20 from VOC's images.

    Args:
        coco: Folder as for `coco`.
        voc: Folder as for `voc`.
        name: Name of the dataset in the store.
        sbd: As for `voc`.
        masks: As for `coco`; the papers use stuffthingmaps.
    """
    from training.data.coco_voc import CocoVoc

    store = _open(name, options)
    _store(CocoVoc(coco, _voc(voc, sbd), masks), store, name, options)


def digits(
    options: Flat, name: str = "digits", train: int = 1500, val: int = 300, seed: int = 0
) -> None:
    """Ingest scenes composed of scikit-learn's handwritten digits, without a download.

    Args:
        name: Name of the dataset in the store.
        train: Number of scenes to train on.
        val: Number of scenes to validate on, of other handwriting.
        seed: Seed of the scenes.
    """
    from training.data.digits import Digits

    store = _open(name, options)
    _store(Digits(seed, train, val), store, name, options)


def _open(name: str, options: Options) -> "Store":
    """Open the store and check that the dataset can be written there.

    A source is opened only afterwards, because reading COCO's annotations takes a while.
    """
    from orchestrator.datasets.catalog import check_name
    from orchestrator.records.store_version import prepare_store

    store = options.open()
    check_name(name)
    prepare_store(store)
    return store


def _store(source: "Source", store: "Store", name: str, options: Options) -> None:
    """Check the source and publish it."""
    from jobs.console import open_console
    from jobs.store_dataset import IngestRequest, store_dataset

    request = IngestRequest(source, store, name, open_console(), options.on_bad, options.where)
    store_dataset(request, options.verify)


def _voc(root: Path, sbd: Path | None) -> "Voc":
    from training.data.sbd import VocWithSbd
    from training.data.voc import Voc

    return VocWithSbd(root, sbd) if sbd else Voc(root)


COMMANDS = {
    "voc": voc,
    "coco": coco,
    "ade": ade,
    "coco-voc": coco_voc,
    "digits": digits,
    "ls": ls,
    "info": info,
    "export": export,
}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m jobs.ingest", description=__doc__, args=arguments
    )


if __name__ == "__main__":
    main()
