"""Define the options that all datasets share when they are ingested, and act on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jobs.options import StoreOptions
from training.config import InputError
from training.data.reading import MAX_PIXELS, MOST_PIXELS, Asked

if TYPE_CHECKING:
    from orchestrator.store.base import Store
    from training.data.source import Source


@dataclass(frozen=True)
class Options(StoreOptions):
    """How a dataset is stored, whichever it is."""

    on_bad: Literal["error", "skip"] = "error"
    """Whether one unusable image refuses the dataset, or is left out of it."""
    where: Literal["auto", "here", "cluster"] = "auto"
    """Threads here, or tasks of a Ray cluster ($RAY_ADDRESS, or this machine). auto: a cluster from
    20,000 new images on."""
    replace: bool = False
    """Let the name stand for this dataset although it stood for one of other classes."""
    verify: bool = False
    """Afterwards read all that the store holds of the dataset, and store again what is damaged."""
    orientation: Literal["upright", "stored"] | None = None
    """How photos are read that EXIF turns, where their size fits the mask both ways. By default as
    the dataset's other photos, or else upright, as annotation tools show them."""
    max_pixels: int = MAX_PIXELS
    """Pixels of the largest photo or mask that is read."""


@dataclass(frozen=True)
class MaskOptions:
    """What masks mean, where they do not say it themselves. Without these they hold class ids."""

    palette: str | None = None
    """Read colours: voc for VOC's, or a file with a name and a colour on each line, such as
    crack 128 0 0. gray reads the brightness as the class id, indices takes the numbers in the files
    as they are."""
    values: tuple[str, ...] = ()
    """Read these numbers, such as 255=crack 128=rust; 0 is background unless named."""


NOTHING_OF_MASKS = MaskOptions()


def open_for(name: str, options: Options) -> "Store":
    """Open the store and check that the dataset can be written there.

    A source is opened only afterwards, because reading COCO's annotations takes a while.
    """
    from orchestrator.datasets.catalog import check_name
    from orchestrator.records.store_version import prepare_store

    store = options.open()
    check_name(name)
    prepare_store(store)
    return store


def store_source(
    source: "Source",
    store: "Store",
    name: str,
    options: Options,
    remarks: Sequence[str] = (),
    masks: MaskOptions = NOTHING_OF_MASKS,
) -> None:
    """Say what was found out about the source, check it and publish it."""
    from jobs.console import open_console
    from jobs.store_dataset import IngestRequest, store_dataset
    from training.data.asked_masks import asked_masks

    if not 1 <= options.max_pixels <= MOST_PIXELS:
        raise InputError(f"--max-pixels is from 1 to {MOST_PIXELS:,}, more than which is not read")
    asked = Asked(
        masks=asked_masks(masks.palette, masks.values, source.classes),
        orientation=options.orientation,
        max_pixels=options.max_pixels,
    )
    console = open_console()
    for remark in remarks:
        console.print(f"note: {remark}")
    request = IngestRequest(
        source, store, name, console, options.on_bad, options.where, options.replace, asked
    )
    store_dataset(request, options.verify)
