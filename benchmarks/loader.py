"""How fast images reach training: our read path beside what others do, and beside the limit that decoding sets.

    python -m benchmarks.loader [--count 2000] [--crop 512] [--workers 2] [--rounds 2] [--json]

Made-up photos of VOC's size (500 x 375, JPEG of quality 93, 118 kB on average) with palette masks are read by

    pil      loose files, PIL and float tensors that are normalised in the loader: how the published code of this field does it
    tar      WebDataset's tar shards with our decoding and cropping, where `webdataset` is installed
    decode   decoding image and mask, and nothing else: no loader can be faster
    ours     Arrow shards, mapped; uint8 crops, collated in shared memory (normalising is the device's, batched)

each in the same number of processes, for a core that works beside another is slower than alone. Images per second and core are
images by the processor time of all processes, main process included, and the best of a few rounds: other work on the machine
disturbs that least. What it says about speed are the ratios; the numbers themselves are the machine's.
"""

import argparse
import io
import json
import math
import resource
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from training.config import Augmentation
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.dataset_writer import assemble_dataset, plan_shards
from training.data.loader import load_batches
from training.data.shard_writer import write_shard
from training.data.shards import Index, LocalSplit
from training.data.source import Sample
from training.data.transforms import crop_box, decode_image, decode_mask, random_resized_crop
from training.models.segmenter import IMAGENET_MEAN, IMAGENET_STD

WIDTH, HEIGHT, QUALITY = 500, 375, 93
BATCH = 24
MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]
TABLE = np.arange(256, dtype=np.uint8)


class Photos:
    """Noise over soft colours, which JPEG finds as hard to compress as photos, with masks of a few ellipses."""

    classes = tuple(f"class {number}" for number in range(20))
    splits = ("train",)

    def __init__(self, count: int) -> None:
        self.count = count

    def ids(self, split: str) -> list[str]:
        """Names of the images."""
        return [f"{number:06d}" for number in range(self.count)]

    def read(self, split: str, id: str) -> Sample:
        """Draw one image."""
        rng = np.random.default_rng(int(id))
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        soft = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        grain = cv2.GaussianBlur(
            rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 0.8
        )
        strength = rng.uniform(0.5, 1.35)
        image = cv2.addWeighted(soft, 1.0, grain, strength, -128 * strength)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for _ in range(rng.integers(1, 5)):
            centre, axes = (
                rng.integers((0, 0), (WIDTH, HEIGHT)).tolist(),
                rng.integers((40, 30), (200, 150)).tolist(),
            )
            angles = rng.integers(0, 180), 0, 360
            cv2.ellipse(mask, centre, axes, *map(int, angles), color=255, thickness=6)
            cv2.ellipse(
                mask, centre, axes, *map(int, angles), color=int(rng.integers(1, 21)), thickness=-1
            )
        picture = Image.fromarray(mask).convert("P")
        picture.putpalette(np.random.default_rng(0).bytes(768))
        return Sample(
            id, encoded(Image.fromarray(image), "JPEG", quality=QUALITY), encoded(picture, "PNG")
        )


def encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


class LooseFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Image and mask files opened by PIL; the same crops as ours, in the operations of torchvision's transforms."""

    def __init__(self, folder: Path, count: int, augmentation: Augmentation) -> None:
        self.folder = folder
        self.count = count
        self.augmentation = augmentation

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised image float32 [3, crop, crop] and mask int64 [crop, crop]."""
        rng = np.random.default_rng(number)
        image = Image.open(self.folder / f"{number:06d}.jpg").convert("RGB")
        mask = Image.open(self.folder / f"{number:06d}.png")
        top, left, height, width = crop_box(image.height, image.width, self.augmentation, rng)
        box, size = (
            (left, top, left + width, top + height),
            (self.augmentation.crop, self.augmentation.crop),
        )
        image = image.crop(box).resize(size, Image.Resampling.BILINEAR)
        mask = mask.crop(box).resize(size, Image.Resampling.NEAREST)
        if rng.random() < 0.5:
            image, mask = (
                picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (image, mask)
            )
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return pixels.sub_(MEAN).div_(STD), torch.from_numpy(TABLE[np.array(mask)]).long()


def main() -> None:
    """Measure, and print a table or, last of all, one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="images")
    parser.add_argument("--crop", type=int, default=512, help="side of what training sees, pixels")
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--rounds", type=int, default=2, help="times that each is measured")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stepchain-loader-") as folder:
        readers = prepare(
            Path(folder), options.count, Augmentation(crop=options.crop), options.workers
        )
        seconds = dict.fromkeys(readers, math.inf)
        for _ in range(options.rounds):
            for name, read in readers.items():
                seconds[name] = min(seconds[name], processor_seconds(read))
    speed = {name: options.count // BATCH * BATCH / taken for name, taken in seconds.items()}
    for name, images in speed.items():
        print(f"{name:8} {images:7.0f} images/s per core")
    result = {
        "ratio_to_pil": speed["ours"] / speed["pil"],
        "share_of_decode": speed["ours"] / speed["decode"],
    }
    print(
        f"ours is {result['ratio_to_pil']:.2f} x pil and {result['share_of_decode']:.0%} of what decoding alone allows"
    )
    if options.json:
        print(json.dumps({name: round(value, 3) for name, value in (result | speed).items()}))


def prepare(
    folder: Path, count: int, augmentation: Augmentation, workers: int
) -> dict[str, Callable[[], None]]:
    """Write the images in all forms below `folder`; returns what reads each once."""
    source = Photos(count)
    plans = plan_shards(source)
    written = {job.key: write_shard(source, job, folder / "built") for job in plans["train"].jobs}
    manifest, _ = assemble_dataset(source, plans, written, folder / "built", "error")
    files = manifest.splits["train"]
    shards = tuple(folder / "built" / f"{shard.sha256}.arrow" for shard in files.shards)
    index = Index.load(folder / "built" / f"{files.index.sha256}.parquet", len(manifest.classes))
    split = LocalSplit(index, shards, manifest.classes, files.content)
    size = index.image_range[:, 1].mean() / 1000, index.mask_range[:, 1].mean() / 1000
    print(
        f"{count} images of {size[0]:.0f} kB with masks of {size[1]:.1f} kB on average; {workers} loader processes"
    )
    (folder / "loose").mkdir()
    mapped = [np.memmap(path, np.uint8, mode="r") for path in shards]
    for row, id in enumerate(index.ids):
        for place, suffix in ((index.image_range, "jpg"), (index.mask_range, "png")):
            (folder / "loose" / f"{id}.{suffix}").write_bytes(
                part(mapped, index, place, row).tobytes()
            )
    whole = count // BATCH * BATCH  # what a loader gives in full batches
    loose = DataLoader(
        LooseFiles(folder / "loose", count, augmentation),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
    )
    dataset = SegmentationDataset(
        split,
        np.arange(count),
        transform=partial(random_resized_crop, augmentation=augmentation),
        label_map=TABLE,
        seed=0,
    )
    order = GlobalBatches(count, BATCH, 0, 0, 1, 0, count // BATCH)
    readers = {
        "pil": lambda: exhaust(loose),
        "decode": lambda: at_once(
            [partial(decode, mapped, index, range(one, whole, workers)) for one in range(workers)]
        ),
        "ours": lambda: exhaust(load_batches(dataset, order, augmentation.crop, workers)),
    }
    tar = web_dataset(folder, augmentation, workers)
    return readers | ({"tar": lambda: exhaust(tar)} if tar is not None else {})


def web_dataset(folder: Path, augmentation: Augmentation, workers: int) -> Iterable[object] | None:
    """The same images in tar files, read by WebDataset; None where it is not installed."""
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
        image, mask = random_resized_crop(
            decode_image(sample["jpg"]), decode_mask(sample["png"]), augmentation, rng
        )
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(
            np.asarray(mask)
        )

    urls = sorted(str(path) for path in folder.glob("*.tar"))
    data = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).shuffle(200).map(cut)
    )
    return DataLoader(data, BATCH, num_workers=min(workers, len(urls)))


def at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Do each task in a process of its own."""
    processes = [get_context("fork").Process(target=task) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, "a process failed: its traceback is above"


def decode(mapped: Sequence[np.ndarray], index: Index, rows: range) -> None:
    """Decode images and masks."""
    cv2.setNumThreads(0)
    for row in rows:
        decode_image(part(mapped, index, index.image_range, row))
        decode_mask(part(mapped, index, index.mask_range, row))


def part(mapped: Sequence[np.ndarray], index: Index, place: np.ndarray, row: int) -> np.ndarray:
    """The bytes of a row's image or mask."""
    first, count = place[row].tolist()
    return mapped[index.shard[row]][first : first + count]


def exhaust(batches: Iterable[object]) -> None:
    """Take every batch."""
    for _ in batches:
        pass


def processor_seconds(read: Callable[[], None]) -> float:
    """Processor time of this process and of the children that ended meanwhile."""
    start = used()
    read()
    return used() - start


def used() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


if __name__ == "__main__":
    main()
