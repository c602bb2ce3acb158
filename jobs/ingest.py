"""Put a dataset into the store: `python -m jobs.ingest voc --root PATH --store URI`.

Every image is decoded and checked, and stored as its original bytes. So are masks, unless they have
to be made. After an interruption the same command resumes; repeated, it uploads nothing. Unusable
images are listed on the screen and in `reports/<name>.json` of the store. `ls`, `info`, `look` and
`export` show what a store holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.datasets import export, info, ls
from jobs.errors import user_errors
from jobs.ingest_options import MaskOptions, Options, open_for, store_source
from jobs.layers import layer
from jobs.look import look
from training.config import InputError

if TYPE_CHECKING:
    from training.data.voc import Voc

# The sources' modules are imported by their commands, because scikit-learn and pycocotools are slow
# to import. Each command expands the ~ of its folders, which a shell leaves in --root=~/VOC2012.
Masks = Literal["instances", "stuffthingmaps"]


Classes = tuple[str, ...] | None
FlatMasks = Annotated[MaskOptions, tyro.conf.arg(name="")]
Flat = Annotated[Options, tyro.conf.arg(name="")]


def voc(
    root: Path,
    options: Flat,
    masks: FlatMasks,
    name: str = "voc",
    classes: Classes = None,
    sbd: Path | None = None,
) -> None:
    """Ingest a folder in the layout of PASCAL VOC 2012, with or without the masks of SBD.

    Args:
        root: Folder that holds JPEGImages, ImageSets/Segmentation and SegmentationClassAug or
            SegmentationClass.
        name: Name of the dataset in the store.
        classes: Names of your own classes, in the order of their numbers in masks: a file with one
            name per line, or names with commas; voc for VOC's. By default those of a file
            classes.txt, labels.txt or labelmap.txt in the folder, of the palette's, or VOC's.
        sbd: Folder of SBD's own release (benchmark_RELEASE/dataset), where there is no
            SegmentationClassAug.
    """
    from training.data.asked_masks import palette_names
    from training.data.voc import Voc
    from training.data.whose_classes import voc_class_names

    store = open_for(name, options)
    if sbd:
        if classes and classes != ("voc",):
            raise InputError("--sbd adds masks of VOC's classes; take --classes or --sbd away")
        store_source(_voc(root, sbd), store, name, options, masks=masks)
        return
    source = Voc(root.expanduser())
    classes = classes or palette_names(masks.palette)
    found = voc_class_names(source, classes)
    source.classes = found.names
    store_source(source, store, name, options, found.remarks, masks)


def folder(
    images: Path,
    masks: Path,
    options: Flat,
    reading: FlatMasks,
    name: str = "own",
    classes: Classes = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
    val_share: float | None = None,
    seed: int = 0,
    mask_suffix: str = "",
) -> None:
    """Ingest two plain folders: photos, and masks of the same names.

    Args:
        images: Folder of the photos: .jpg, .png, .webp and others. Subfolders train and val, if
            there are any, are the splits.
        masks: Folder of the masks, PNGs with the photos' names; it has the same subfolders or none.
        name: Name of the dataset in the store.
        classes: Names of the classes, in the order of their numbers in masks: a file with one name
            per line, or names with commas. By default a file classes.txt or labels.txt beside.
        train_list: Text file with the photos to train on, one per line; its mask may follow.
        val_list: The same for validation.
        val_share: Instead, draw this share of the photos for validation, such as 0.2.
        seed: Decides the draw.
        mask_suffix: What a mask's name has after its photo's, such as _mask.
    """
    from training.data.asked_masks import palette_names
    from training.data.folder import Folder, SplitBy
    from training.data.whose_classes import own_class_names

    if (train_list is None) != (val_list is None):
        raise InputError("give both --train-list and --val-list, or --val-share instead of them")
    if train_list and val_share is not None:
        raise InputError("give either lists or --val-share")
    images, masks = images.expanduser(), masks.expanduser()
    lists = None
    if train_list and val_list:
        lists = train_list.expanduser(), val_list.expanduser()
    store = open_for(name, options)
    classes = classes or palette_names(reading.palette)
    found = own_class_names(classes, masks, masks.parent, images, images.parent)
    split_by = SplitBy(lists, val_share, seed)
    skip_unpaired = options.on_bad == "skip"
    source = Folder(images, masks, found.names, split_by, mask_suffix, skip_unpaired=skip_unpaired)
    store_source(source, store, name, options, found.remarks, reading)


def coco(root: Path, options: Flat, name: str = "coco", masks: Masks = "instances") -> None:
    """Ingest COCO 2017, or a folder in its layout with your own categories.

    Args:
        root: Folder that holds train2017, val2017 and annotations or stuffthingmaps.
        name: Name of the dataset in the store.
        masks: What masks are made of: annotations/instances_*2017.json, whose own categories are
            the classes, or COCO-Stuff's PNGs in stuffthingmaps/*2017.
    """
    from training.data.coco import Coco

    store = open_for(name, options)
    source = Coco(root.expanduser(), masks, max_pixels=options.max_pixels)
    store_source(source, store, name, options)


def ade(root: Path, options: Flat, name: str = "ade") -> None:
    """Ingest ADE20K, the scene-parsing benchmark of 150 classes.

    Args:
        root: Folder ADEChallengeData2016, which holds images and annotations.
        name: Name of the dataset in the store.
    """
    from training.data.ade import Ade

    store = open_for(name, options)
    store_source(Ade(root.expanduser()), store, name, options)


def cityscapes(root: Path, options: Flat, name: str = "cityscapes") -> None:
    """Ingest Cityscapes with its fine annotations and the 19 classes that are scored.

    Args:
        root: Folder that holds leftImg8bit and gtFine.
        name: Name of the dataset in the store.
    """
    from training.data.cityscapes import Cityscapes

    store = open_for(name, options)
    store_source(Cityscapes(root.expanduser()), store, name, options)


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

    store = open_for(name, options)
    source = CocoVoc(coco.expanduser(), _voc(voc, sbd), masks)
    store_source(source, store, name, options)


def digits(
    options: Flat, name: str = "digits", train: int = 1500, val: int = 300, seed: int = 0
) -> None:
    """Ingest scenes composed of scikit-learn's handwritten digits, without a download.

    Their layer `saliency` shows what is lighter than any background.

    Args:
        name: Name of the dataset in the store.
        train: Number of scenes to train on.
        val: Number of scenes to validate on, of other handwriting.
        seed: Seed of the scenes.
    """
    from jobs.digits_saliency import store_saliency
    from training.data.digits import Digits

    store = open_for(name, options)
    source = Digits(seed, train, val)
    store_source(source, store, name, options)
    store_saliency(store, name, source)


def _voc(root: Path, sbd: Path | None) -> "Voc":
    from training.data.sbd import VocWithSbd
    from training.data.voc import Voc

    root = root.expanduser()
    return VocWithSbd(root, sbd.expanduser()) if sbd else Voc(root)


COMMANDS = {
    "voc": voc,
    "folder": folder,
    "coco": coco,
    "ade": ade,
    "cityscapes": cityscapes,
    "coco-voc": coco_voc,
    "digits": digits,
    "layer": layer,
    "ls": ls,
    "info": info,
    "export": export,
    "look": look,
}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m jobs.ingest", description=__doc__, args=arguments
    )


if __name__ == "__main__":
    main()
