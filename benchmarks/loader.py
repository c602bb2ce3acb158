"""Measure how fast images reach training, beside other loaders and beside decoding alone.

    python -m benchmarks.loader [--count 2000] [--crop 512] [--workers 2] [--rounds 2] [--json]

Made-up photos of VOC's size (500 x 375, JPEG of quality 93, 118 kB on average) with palette masks
are read in four ways:

    pil      loose files, PIL, and float tensors that are normalised in the loader, as in the
             published code of this field
    tar      WebDataset's tar shards with our decoding and cropping; needs `webdataset`
    decode   decoding image and mask, and nothing else, so no loader can be faster
    ours     Arrow shards, mapped; uint8 crops, collated in shared memory; normalising is left to
             the device

All ways use the same number of processes, because a core that works beside another is slower than
one alone. The speed is images per second of processor time, summed over all processes, main process
included. The best of a few rounds counts, because other work on the machine disturbs it least.

The results are two ratios: the speed of `ours` divided by that of `pil` (`ratio_to_pil`) and by
that of `decode` (`share_of_decode`). The speeds themselves depend on the machine.
"""

import argparse
import json
import math
import resource
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.photos import Photos
from training.config import Augmentation
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.dataset_writer import assemble_dataset, plan_shards
from training.data.loader import load_batches
from training.data.shard_writer import write_shard
from training.data.shards import Index, LocalSplit
from training.data.transforms import crop_box, decode_image, decode_mask, random_resized_crop
from training.models.segmenter import IMAGENET_MEAN, IMAGENET_STD

BATCH = 24
MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]
TABLE = np.arange(256, dtype=np.uint8)


class LooseFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Image and mask files opened by PIL, and cut by the operations of torchvision's transforms.

    The crops are those of our own reader.
    """

    def __init__(self, folder: Path, count: int, augmentation: Augmentation) -> None:
        self.folder = folder
        self.count = count
        self.augmentation = augmentation

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a normalised image, float32 [3, crop, crop], and its mask, int64 [crop, crop]."""
        rng = np.random.default_rng(number)
        image = Image.open(self.folder / f"{number:06d}.jpg").convert("RGB")
        mask = Image.open(self.folder / f"{number:06d}.png")
        top, left, height, width = crop_box(image.height, image.width, self.augmentation, rng)
        box = (left, top, left + width, top + height)
        size = (self.augmentation.crop, self.augmentation.crop)
        image = image.crop(box).resize(size, Image.Resampling.BILINEAR)
        mask = mask.crop(box).resize(size, Image.Resampling.NEAREST)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return pixels.sub_(MEAN).div_(STD), torch.from_numpy(TABLE[np.array(mask)]).long()


def main() -> None:
    """Measure, and print a table and, with --json, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="images")
    parser.add_argument("--crop", type=int, default=512, help="side of what training sees, pixels")
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--rounds", type=int, default=2, help="times that each is measured")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    augmentation = Augmentation(crop=options.crop)
    with tempfile.TemporaryDirectory(prefix="stepchain-loader-") as folder:
        readers = prepare(Path(folder), options.count, augmentation, options.workers)
        seconds = dict.fromkeys(readers, math.inf)
        for _ in range(options.rounds):
            for name, read in readers.items():
                seconds[name] = min(seconds[name], processor_seconds(read))
    images_read = full_batches(options.count)
    speed = {name: images_read / seconds[name] for name in readers}
    for name, images in speed.items():
        print(f"{name:8} {images:7.0f} images/s per core")
    ratio = speed["ours"] / speed["pil"]
    share = speed["ours"] / speed["decode"]
    print(f"ours is {ratio:.2f} x pil and {share:.0%} of what decoding alone allows")
    if options.json:
        result = {"ratio_to_pil": ratio, "share_of_decode": share}
        print(json.dumps({name: round(value, 3) for name, value in (result | speed).items()}))


def full_batches(count: int) -> int:
    """Return how many of so many images a loader gives in full batches."""
    return count // BATCH * BATCH


@dataclass(frozen=True)
class Mapped:
    """A split and its shards, mapped."""

    split: LocalSplit
    shards: tuple[np.ndarray, ...]

    def image(self, row: int) -> np.ndarray:
        """Return the bytes of a row's image file."""
        return self._range(self.split.index.image_range, row)

    def mask(self, row: int) -> np.ndarray:
        """Return the bytes of a row's mask file."""
        return self._range(self.split.index.mask_range, row)

    def _range(self, ranges: np.ndarray, row: int) -> np.ndarray:
        first, count = ranges[row].tolist()
        return self.shards[self.split.index.shard[row]][first : first + count]


def prepare(
    folder: Path, count: int, augmentation: Augmentation, workers: int
) -> dict[str, Callable[[], None]]:
    """Write the images in all forms below `folder`.

    Returns:
        For each way of reading, a function that reads all images once.
    """
    mapped = write_shards(Photos(count), folder / "built")
    index = mapped.split.index
    image_kb = index.image_range[:, 1].mean() / 1000
    mask_kb = index.mask_range[:, 1].mean() / 1000
    sizes = f"{image_kb:.0f} kB with masks of {mask_kb:.1f} kB on average"
    print(f"{count} images of {sizes}; {workers} loader processes")
    (folder / "loose").mkdir()
    for row, id in enumerate(index.ids):
        (folder / "loose" / f"{id}.jpg").write_bytes(mapped.image(row).tobytes())
        (folder / "loose" / f"{id}.png").write_bytes(mapped.mask(row).tobytes())
    files = LooseFiles(folder / "loose", count, augmentation)
    loose = DataLoader(files, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    crop = partial(random_resized_crop, augmentation=augmentation)
    rows = np.arange(count)
    dataset = SegmentationDataset(mapped.split, rows, transform=crop, label_map=TABLE, seed=0)
    order = GlobalBatches(count, BATCH, 0, 0, 1, 0, count // BATCH)
    shares = [range(first, full_batches(count), workers) for first in range(workers)]
    readers = {
        "pil": lambda: exhaust(loose),
        "decode": lambda: run_at_once([partial(decode, mapped, share) for share in shares]),
        "ours": lambda: exhaust(load_batches(dataset, order, augmentation.crop, workers)),
    }
    tar = web_dataset(folder, augmentation, workers)
    if tar is not None:
        readers["tar"] = lambda: exhaust(tar)
    return readers


def write_shards(source: Photos, folder: Path) -> Mapped:
    """Write the images as a dataset's shards to `folder`, and map them."""
    plans = plan_shards(source)
    written = {job.key: write_shard(source, job, folder) for job in plans["train"].jobs}
    manifest = assemble_dataset(source, plans, written, folder, "error").manifest
    files = manifest.splits["train"]
    paths = tuple(folder / f"{shard.sha256}.arrow" for shard in files.shards)
    index = Index.load(folder / f"{files.index.sha256}.parquet", len(manifest.classes))
    split = LocalSplit(index, paths, manifest.classes, files.content, reading=manifest.reading)
    return Mapped(split, tuple(np.memmap(path, np.uint8, mode="r") for path in paths))


def web_dataset(folder: Path, augmentation: Augmentation, workers: int) -> Iterable[object] | None:
    """Return a WebDataset of the same images in tar files, None where it is not installed."""
    try:
        webdataset = import_module("webdataset")
    except ImportError:
        print("tar      not measured: webdataset is not installed (pip install webdataset)")
        return None
    loose = sorted((folder / "loose").iterdir())
    size = 2 * 500  # files in a shard
    for start in range(0, len(loose), size):
        with tarfile.open(folder / f"{start // size:04d}.tar", "w") as archive:
            for path in loose[start : start + size]:
                archive.add(path, path.name)

    rng = np.random.default_rng(0)

    def cut(sample: dict[str, bytes]) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = decode_image(sample["jpg"])
        image, mask = random_resized_crop(decoded, decode_mask(sample["png"]), augmentation, rng)
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return pixels, torch.from_numpy(np.asarray(mask))

    urls = sorted(str(path) for path in folder.glob("*.tar"))
    data = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
    data = data.shuffle(200).map(cut)
    return DataLoader(data, BATCH, num_workers=min(workers, len(urls)))


def run_at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Run each task in a process of its own, and wait for all of them."""
    processes = [get_context("fork").Process(target=task) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, "a process failed: its traceback is above"


def decode(mapped: Mapped, rows: range) -> None:
    """Decode the images and masks of some rows."""
    cv2.setNumThreads(0)
    for row in rows:
        decode_image(mapped.image(row))
        decode_mask(mapped.mask(row))


def exhaust(batches: Iterable[object]) -> None:
    """Take every batch."""
    for _ in batches:
        pass


def processor_seconds(read: Callable[[], None]) -> float:
    """Return the processor time that `read` takes, here and in the children that it ends."""
    start = used_seconds()
    read()
    return used_seconds() - start


def used_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
