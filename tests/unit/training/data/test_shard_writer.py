import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.data.dataset_writer import plan_shards
from training.data.digits import Digits
from training.data.shard_writer import current_key, divide, write_shard
from training.data.source import LeftOut, Sample, Source
from training.data.voc import Voc


def keys(source: Voc, shard_bytes: int = 30_000) -> list[str]:
    return [job.key for job in divide(source, "train", source.ids("train"), shard_bytes)]


def test_shard_jobs_hold_every_image_once_in_order_and_are_about_as_large_as_asked(
    voc_folder: Path,
):
    source = Voc(voc_folder)
    jobs = list(divide(source, "train", source.ids("train"), 30_000))
    assert [id for job in jobs for id in job.ids] == source.ids("train")
    sizes = []
    for job in jobs:
        paths = [path for id in job.ids for path in source.files("train", id)]
        sizes.append(sum(path.stat().st_size for path in paths))
    assert len(jobs) > 2
    assert all(30_000 <= size < 35_000 for size in sizes[:-1])


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (touch, "image"),
    (touch, "mask"),
    (lambda path: path.unlink(), "image"),
    (lambda path: path.write_bytes(path.read_bytes() + b"!"), "mask"),
]


@pytest.mark.parametrize(("change", "kind"), CHANGES)
def test_a_shard_job_is_another_once_one_of_its_files_changed(
    voc_folder: Path, change: Callable[[Path], object], kind: str
):
    source = Voc(voc_folder)
    before = keys(source)
    assert keys(source) == before
    job = next(iter(divide(source, "train", source.ids("train"), 30_000)))
    assert current_key(source, job) == job.key
    change(source.files("train", source.ids("train")[0])[("image", "mask").index(kind)])
    assert current_key(source, job) != job.key
    assert keys(source)[0] != before[0]
    assert keys(source)[-1] == before[-1]


def test_a_shard_job_is_another_by_another_recipe_or_with_other_classes(voc_folder: Path):
    class Painted(Voc):
        recipe = "painted"

    class Renamed(Voc):
        classes = (*Voc.classes[:-1], "television")

    assert len({keys(kind(voc_folder))[0] for kind in (Voc, Painted, Renamed)}) == 3


class Drawn:
    """Names no files."""

    classes = Digits.classes
    splits = Digits.splits

    def __init__(self, seed: int) -> None:
        self.digits = Digits(seed, train=60, val=1)
        self.ids, self.read = self.digits.ids, self.digits.read


@pytest.mark.parametrize("kind", [Drawn, lambda seed: Digits(seed, train=60, val=1)])
def test_a_source_without_files_has_shard_jobs_that_follow_from_what_it_gives(
    kind: Callable[[int], Source],
):
    first, again, other = (
        plan_shards(kind(seed), shard_bytes=200_000)["train"].jobs for seed in (0, 0, 1)
    )
    assert len(first) > 1
    assert first == again
    assert first[0].key != other[0].key


def test_what_a_split_does_without_is_neither_stored_nor_bad(tmp_path: Path):
    class Even(Digits):
        def read(self, split: str, id: str) -> Sample:
            if int(id[-1]) % 2:
                raise LeftOut
            return super().read(split, id)

    source = Even(train=10, val=1)
    (job,) = plan_shards(source)["train"].jobs
    seen = []
    written = write_shard(source, job, tmp_path, lambda: seen.append(1))
    assert [row.id for row in written.rows] == [f"train-{n:05d}" for n in (0, 2, 4, 6, 8)]
    assert written.bad == ()
    assert len(seen) == 10


def test_pixels_are_counted_per_value_without_void(voc_folder: Path, tmp_path: Path):
    source = Voc(voc_folder)
    (job,) = plan_shards(source)["val"].jobs
    for row in write_shard(source, job, tmp_path).rows:
        assert 0 in row.values
        assert 255 not in row.values
        assert np.sum(row.pixels) < row.width * row.height


def test_every_image_advances_the_count_usable_or_not(voc_folder: Path, tmp_path: Path):
    source = Voc(voc_folder)
    seen = []
    path = source.files("val", source.ids("val")[0])[0]
    path.write_bytes(b"not a picture")
    (job,) = plan_shards(source)["val"].jobs
    written = write_shard(source, job, tmp_path, lambda: seen.append(1))
    assert len(seen) == len(job.ids) == len(written.rows) + 1
