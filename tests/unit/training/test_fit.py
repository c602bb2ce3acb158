"""The loop gives the same weights again, after an interruption, on two workers, without masks.

Each of the two workers runs this file.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pytest
import torch
import torch.distributed as distributed
from PIL import Image
from safetensors.torch import load_file

import training.fit
from tests.support.datasets import build_dataset, open_split
from tests.support.paths import ROOT
from training.checkpoint import load_model
from training.config import (
    Augmentation,
    EvaluationConfig,
    InputError,
    MethodConfig,
    ModelConfig,
    Optimization,
    StepConfig,
    Task,
)
from training.curves import CurveRow
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.data.source import BadData, Sample
from training.evaluate import evaluate
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import ewc, fine_tuning, mib, offline, pi, plop, rw, wilson
from training.methods.base import Batch, Method, Progress
from training.models.segmenter import normalise
from training.runtime import Runtime
from training.scenario import select_images

GROUPS = ((1, 2, 3, 4, 5, 6), (7, 8, 9, 10))
# Step 0 by the first, step 1 by any of the others. WILSON and the offline route begin with an epoch
# of something else.
METHODS: dict[str, MethodConfig] = {
    "base": fine_tuning.Config(loss="bce", importance=True),
    "fine-tuning": fine_tuning.Config(),
    "mib": mib.Config(),
    "wilson": wilson.Config(warmup_epochs=1, localizer_channels=6),
    "offline": offline.Config(pseudo_labels="single_stage", classifier_epochs=1),
    "plop": plop.Config(),
    "ewc": ewc.Config(weight=20),
    "pi": pi.Config(weight=20),
    "rw": rw.Config(weight=10),
}
SHARED = ("base", "mib", "wilson", "offline", "plop", "ewc", "pi", "rw")  # what two workers train
WHOLE = EvaluationConfig(short_side=None, crop=None)


class Scenes(Digits):
    """Digits with void at the top of each mask.

    Masks hold different amounts of void, so that workers count unequal pixels.
    """

    def read(self, split: str, id: str) -> Sample:
        sample = super().read(split, id)
        with Image.open(BytesIO(sample.mask)) as picture:
            mask = np.array(picture)
        mask[: 3 * (int(id[-2:]) % 8)] = 255
        file = BytesIO()
        Image.fromarray(mask).save(file, "PNG")
        return sample._replace(mask=file.getvalue())


class World(NamedTuple):
    """The scenes, and the published step 0 that the others start from."""

    train: LocalSplit
    val: LocalSplit
    base: Path | None = None


def document(data: LocalSplit, name: str, **optimization: Any) -> tuple[StepConfig, np.ndarray]:
    """Return the step that `name` stands for in METHODS, in float64, and the rows it trains on."""
    index = 0 if name == "base" else 1
    rows = select_images(data.index.labels, GROUPS, index, "overlap")
    task = Task(
        data=data.content,
        groups=GROUPS[: index + 1],
        selection=data.index.selection_digest(rows),
        images=len(rows),
        supervision=METHODS[name].supervision,
        void="ignore",
    )
    settings = {
        "epochs": 1 if name == "base" else 2,
        "batch": 4,
        "encoder_lr": 0.02,
        "head_lr": 0.02,
        "precision": "float64",
    }
    step = StepConfig(
        task=task,
        method=METHODS[name],
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=6, eval_pooling=8),
        optimization=Optimization.model_validate(settings | optimization),
        augmentation=Augmentation(crop=32),
    )
    return step, rows


def fitted(
    world: World,
    name: str,
    folder: Path,
    runtime: Runtime = Runtime(log_every=1),  # noqa: B008 - frozen
    *,
    planned: tuple[StepConfig, np.ndarray] | None = None,
    resume: Path | None = None,
    save: Callable[[Path, int], object] = lambda folder, iteration: None,
    **optimization: Any,
) -> Path:
    """Train a step (by default the `document` of that name); return its published folder."""
    step, rows = planned or document(world.train, name, **optimization)
    parent = None if name == "base" else world.base
    paths = {"parent": parent, "encoder_weights": None, "folder": folder, "resume": resume}
    return fit(step, world.train, rows, runtime, **paths, journal=MemoryJournal(save))


# It runs before the session's other fixtures, which train, because threads decide the last bit.
@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("scenes")
    manifest, _ = build_dataset(Scenes(seed=3, train=24, val=7), folder)
    train, val = (open_split(manifest, name, folder) for name in ("train", "val"))
    bare = World(train, val)
    return bare._replace(base=fitted(bare, "base", tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="session")
def published(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the steps of SHARED, trained by one worker without interruption."""
    assert world.base is not None
    return {"base": world.base} | {
        name: fitted(world, name, tmp_path_factory.mktemp(name)) for name in SHARED[1:]
    }


def same_bytes(one: Path, other: Path) -> None:
    """Assert that both folders hold the same tensor files, byte for byte."""
    names = sorted(path.name for path in one.glob("*.safetensors"))
    assert names == sorted(path.name for path in other.glob("*.safetensors"))
    assert "model.safetensors" in names or "momentum.safetensors" in names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), f"{name} differs"


def curves(folder: Path) -> list[CurveRow]:
    """Return the training curves, without what the clock and the machine decide."""
    measured = ("time", "images_per_second", "usage/")

    def without_measured(row: CurveRow) -> CurveRow:
        return {name: value for name, value in row.items() if not name.startswith(measured)}

    return [without_measured(row) for row in json.loads((folder / "curves.json").read_text())]


def test_the_curves_tell_what_training_takes_of_its_machine(published: dict[str, Path]):
    rows = json.loads((published["base"] / "curves.json").read_text())
    assert all(0 <= row["usage/cpu_percent"] <= 100 for row in rows)
    assert all(row["usage/process_megabytes"] > 10 for row in rows)


@pytest.mark.parametrize("name", ["base", "wilson"])
def test_the_same_document_gives_the_same_bits(
    world: World, published: dict[str, Path], tmp_path: Path, name: str
):
    again = fitted(world, name, tmp_path, Runtime(log_every=100, loader_workers=2))
    same_bytes(again, published[name])


@pytest.mark.parametrize("name", ["base", "wilson"])
def test_the_same_document_gives_the_same_bits_in_float32(world: World, tmp_path: Path, name: str):
    folders = [fitted(world, name, tmp_path / str(run), precision="float32") for run in range(2)]
    same_bytes(*folders)
    assert {value.dtype for value in load_file(folders[0] / "model.safetensors").values()} == {
        torch.float32,
        torch.int64,
    }


def test_recording_importance_changes_no_weight(
    world: World, published: dict[str, Path], tmp_path: Path
):
    step, rows = document(world.train, "base")
    plain = step.model_copy(update={"method": fine_tuning.Config(loss="bce")})
    without = fitted(world, "base", tmp_path, planned=(plain, rows))
    assert (without / "model.safetensors").read_bytes() == (
        published["base"] / "model.safetensors"
    ).read_bytes()
    assert not (without / "state.safetensors").exists()
    measures = ("fisher", "path_integral", "walk")
    assert set(load_file(published["base"] / "state.safetensors")) == {
        f"importance.{name}" for name in measures
    }


def test_a_method_prepares_once_on_the_first_epoch_as_it_will_be_trained_on(
    world: World, tmp_path: Path, monkeypatch
):
    prepared = []
    trained = []
    kept = []
    forward = fine_tuning.Method.forward

    def prepare(self: Method, batches: Callable[[], Iterable[Batch]]) -> None:
        prepared.append([batch.pixels.clone() for batch in batches()])
        for pixels, batch in zip(prepared[-1], batches(), strict=True):
            assert torch.equal(pixels, batch.pixels)

    def noted(
        self: fine_tuning.Method, batch: Batch, progress: Progress
    ) -> dict[str, torch.Tensor]:
        trained.append(batch.pixels.clone())
        return forward(self, batch, progress)

    monkeypatch.setattr(fine_tuning.Method, "prepare", prepare)
    monkeypatch.setattr(fine_tuning.Method, "forward", noted)
    runtime = Runtime(log_every=1, checkpoint_every=0)
    fitted(
        world,
        "fine-tuning",
        tmp_path / "whole",
        runtime,
        save=lambda folder, iteration: kept.append(folder),
    )
    (first_epoch,) = prepared
    assert len(trained) == 2 * len(first_epoch)
    assert all(torch.equal(*pair) for pair in zip(first_epoch, trained, strict=False))
    fitted(world, "fine-tuning", tmp_path / "resumed", runtime, resume=kept[0])
    assert len(prepared) == 1, "the checkpoint holds what the method found out"


def test_another_seed_gives_other_weights(world: World, published: dict[str, Path], tmp_path: Path):
    step, rows = document(world.train, "base")
    reseeded = step.model_copy(update={"seed": step.seed + 1})
    other = fitted(world, "base", tmp_path, planned=(reseeded, rows))
    assert (other / "model.safetensors").read_bytes() != (
        published["base"] / "model.safetensors"
    ).read_bytes()


class Interrupted(Exception):
    """Raised in the middle of a step."""


@pytest.mark.parametrize("name", ["base", "wilson", "offline", "plop", "pi", "rw"])
def test_an_interrupted_step_ends_with_the_same_bits(
    world: World, published: dict[str, Path], tmp_path: Path, name: str
):
    """A step is killed after its first checkpoint and again later, and is resumed each time.

    WILSON and the offline route are killed past their first epoch.

    The last checkpoints are compared too: they hold the momentum, the statistics of all norms and
    the localizer.
    """
    runtime = Runtime(log_every=1, checkpoint_every=0)
    kept: dict[int, Path] = {}
    saved: list[tuple[int, int]] = []  # try, iteration

    def run(attempt: int, until: int | None, resume: Path | None) -> Path:
        def save(folder: Path, iteration: int) -> None:
            saved.append((attempt, iteration))
            kept[iteration] = folder
            if iteration == until:
                raise Interrupted

        return fitted(world, name, tmp_path / str(attempt), runtime, save=save, resume=resume)

    with pytest.raises(Interrupted):
        run(0, 1, None)
    with pytest.raises(Interrupted):
        run(1, 2 if name == "base" else 4, kept[1])
    resumed = run(2, None, kept[saved[-1][1]])
    iterations = [iteration for _, iteration in saved]
    assert iterations == list(range(1, len(iterations) + 1)), (
        "each try goes on where the one before ended"
    )

    unbroken: dict[int, Path] = {}
    fitted(
        world,
        name,
        tmp_path / "unbroken",
        runtime,
        save=lambda folder, iteration: unbroken.update({iteration: folder}),
    )
    assert list(unbroken) == iterations
    last = iterations[-1]
    same_bytes(kept[last], unbroken[last])
    assert sorted(path.suffix for path in kept[last].iterdir()) == [
        ".json",
        ".safetensors",
        ".safetensors",
    ]
    same_bytes(resumed, published[name])
    assert curves(resumed) == curves(published[name])
    assert [row["iteration"] for row in curves(resumed)] == [*iterations, last + 1]


@pytest.fixture(scope="session")
def team(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the steps of SHARED, each trained by two processes."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "world.pickle").write_bytes(pickle.dumps(world))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-W", "error", __file__, str(rank), str(folder)] for rank in range(2)
    ]
    workers = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        assert [worker.wait(200) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    return folder


def work(rank: int, folder: Path) -> None:
    """Run one of the two processes."""
    world: World = pickle.loads((folder / "world.pickle").read_bytes())
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    for name in SHARED:
        fitted(world, name, folder / name, Runtime(rank, 2, log_every=1))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", SHARED)
def test_two_workers_give_the_weights_of_one(published: dict[str, Path], team: Path, name: str):
    together, alone = team / name / "files", published[name]
    for file in sorted(path.name for path in alone.glob("*.safetensors")):
        expected, found = load_file(alone / file), load_file(together / file)
        # PI divides by how far a weight came: for one that hardly moved, the score is huge, and not
        # as exact.
        if "importance.path_integral" in expected:
            scores = [tensors.pop("importance.path_integral") for tensors in (found, expected)]
            torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(
            found, expected, rtol=0, atol=1e-10, msg=lambda text, file=file: f"{file}: {text}"
        )
    for row, expected in zip(curves(together), curves(alone), strict=True):
        assert row == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_score_every_image_once_and_as_one_would(
    world: World, published: dict[str, Path], workers: int
):
    alone = evaluate(published["mib"], world.val, WHOLE, Runtime())
    parts = [
        evaluate(published["mib"], world.val, WHOLE, Runtime(rank, workers), batch=2)
        for rank in range(workers)
    ]
    images = [set(part["image"].to_pylist()) for part in parts]
    assert sum(map(len, images)) == len(set().union(*images)) == 7
    together = pyarrow.concat_tables(parts)
    order = [(name, "ascending") for name in ("image", "truth", "predicted")]
    assert together.sort_by(order) == alone.sort_by(order)
    assert (
        together.group_by("image").aggregate([("pixels", "sum")])["pixels_sum"].to_pylist()
        == [64 * 64] * 7
    )


@pytest.fixture
def maskless(world: World, tmp_path: Path) -> World:
    """Return the same world, with every byte of every training mask replaced."""
    index = world.train.index
    shards = [bytearray(path.read_bytes()) for path in world.train.shards]
    rng = np.random.default_rng(0)
    for shard, (start, length) in zip(index.shard, index.mask_range, strict=True):
        shards[shard][start : start + length] = rng.bytes(length)
    paths = [tmp_path / f"{number}.arrow" for number in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        path.write_bytes(shard)
    return world._replace(train=replace(world.train, shards=tuple(paths)))


def test_weak_steps_never_read_masks(maskless: World, published: dict[str, Path], tmp_path: Path):
    same_bytes(fitted(maskless, "wilson", tmp_path), published["wilson"])
    with pytest.raises(
        BadData, match=r"row \d+ \(id train-\d+\) of shard .*: the mask cannot be decoded"
    ):
        fitted(maskless, "fine-tuning", tmp_path)


def test_images_that_the_document_does_not_select_are_refused(world: World, tmp_path: Path):
    step, rows = document(world.train, "base")
    for other in (rows[:-1], rows[::-1], np.arange(24)):
        with pytest.raises(InputError, match="not the ones that the step's document selects"):
            fitted(world, "base", tmp_path, planned=(step, other))
    hashes = [
        "0" * 64 if row == rows[0] else sha256
        for row, sha256 in enumerate(world.train.index.row_sha256)
    ]
    planned = document(
        replace(world.train, index=replace(world.train.index, row_sha256=hashes)), "base"
    )
    with pytest.raises(InputError, match="plan it again"):
        fitted(world, "base", tmp_path, planned=planned)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["base", "wilson"])
def test_a_loss_that_diverges_ends_the_step(world: World, tmp_path: Path, name: str):
    with pytest.raises(
        FloatingPointError, match=r"the loss is .* at iteration \d of \d: lower the learning rates"
    ):
        fitted(world, name, tmp_path, encoder_lr=1e200, head_lr=1e200)
    assert not (tmp_path / "files").exists()


def test_no_update_is_made_with_a_loss_that_is_not_finite(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The loss of the second iteration is NaN, and rows are logged much later."""
    updated: list[int] = []
    forward = fine_tuning.Method.forward

    def spoiled(
        self: fine_tuning.Method, batch: Batch, progress: Progress
    ) -> dict[str, torch.Tensor]:
        losses = forward(self, batch, progress)
        if progress.iteration != 1:
            return losses
        return {name: loss * float("nan") for name, loss in losses.items()}

    def note(self: Method, progress: Progress) -> None:
        updated.append(progress.iteration)

    monkeypatch.setattr(fine_tuning.Method, "forward", spoiled)
    monkeypatch.setattr(fine_tuning.Method, "before_update", note)
    with pytest.raises(FloatingPointError, match=r"nan.* at iteration 2 of \d: lower"):
        fitted(world, "fine-tuning", tmp_path, Runtime(log_every=100))
    assert updated == [0]


def test_a_checkpoint_is_taken_at_once_when_training_must_stop(world: World, tmp_path: Path):
    """A row is logged, then the journal is asked; a value that `log` returns means nothing."""

    class Stopped(MemoryJournal):
        def log(self, row: CurveRow) -> Any:
            super().log(row)
            return True

        def should_stop(self) -> bool:
            return len(self.rows) == 2

        def save(self, folder: Path, iteration: int) -> None:
            raise Interrupted(f"after {iteration}")

    step, rows = document(world.train, "base")
    paths = {"parent": None, "encoder_weights": None, "folder": tmp_path, "resume": None}
    with pytest.raises(Interrupted, match="after 2"):
        fit(step, world.train, rows, Runtime(log_every=1), **paths, journal=Stopped())


def test_the_published_folder_is_the_trained_model(
    world: World, published: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The folder alone, moved elsewhere, gives the trained network's outputs and scores."""
    trained: list[Method] = []
    save_model = training.fit.save_model

    def save(folder: Path, method: Method, rows: list[CurveRow]) -> None:
        trained.append(method)
        save_model(folder, method, rows)

    monkeypatch.setattr("training.fit.save_model", save)
    there = fitted(world, "wilson", tmp_path / "there")
    expected = evaluate(there, world.val, WHOLE, Runtime())
    shutil.move(there, tmp_path / "elsewhere")
    model, found = load_model(tmp_path / "elsewhere")
    assert found.class_ids == tuple(range(11))
    images = normalise(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images), trained[0].model.eval()(images), rtol=0, atol=1e-12
        )
    assert evaluate(tmp_path / "elsewhere", world.val, WHOLE, Runtime()) == expected
    names = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    assert names == ["curves.json", "model.json", "model.safetensors", "state.safetensors"]
    assert "state.safetensors" not in {path.name for path in published["mib"].iterdir()}, (
        "MiB carries nothing on"
    )


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
