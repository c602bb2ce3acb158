"""The loop gives the same weights again, after an interruption, on two workers, without masks.

Each of the two workers runs this file.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow
import pytest
import torch
import torch.distributed as distributed
from PIL import Image
from safetensors.torch import load_file

import training.fit
from tests.support.datasets import build_dataset, open_split
from tests.support.encoders import small_model
from tests.support.paths import ROOT
from training.checkpoint import load_model
from training.config import (
    Augmentation,
    EvaluationConfig,
    InputError,
    MethodConfig,
    ModelConfig,
    Optimization,
    Task,
)
from training.curves import CurveRow
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.data.source import BadData, Sample
from training.evaluate import evaluate
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import (
    dft,
    ewc,
    ewf,
    fine_tuning,
    mib,
    mib_augm,
    offline,
    pi,
    plop,
    rw,
    ssul,
    wilson,
)
from training.methods.base import Batch, Method, Progress
from training.models.segmenter import normalise
from training.runtime import Runtime
from training.scenario import choose_memory, select_images
from training.step_config import StepConfig

GROUPS = ((1, 2, 3, 4, 5, 6), (7, 8, 9, 10))
# Step 0 by those that begin with "base"; after the first of these, step 1 by any of the others, and
# SSUL's after its own.
# WILSON and the offline route begin with an epoch of something else.
METHODS: dict[str, MethodConfig] = {
    "base": fine_tuning.Config(loss="bce", importance=True, reserved_channels=6),
    "base weak": wilson.Config(
        prior="constant", encoder_distillation=0, warmup_epochs=1, localizer_channels=6
    ),
    "base offline": offline.Config(pseudo_labels="single_stage", classifier_epochs=1),
    "fine-tuning": fine_tuning.Config(),
    "mib": mib.Config(),
    "wilson": wilson.Config(warmup_epochs=1, localizer_channels=6),
    "offline": offline.Config(pseudo_labels="single_stage", classifier_epochs=1),
    "plop": plop.Config(),
    "ewc": ewc.Config(weight=20),
    "pi": pi.Config(weight=20),
    "rw": rw.Config(weight=10),
    "dft": dft.Config(),
    "mib-augm": mib_augm.Config(),
    "ewf": ewf.Config(trained_by=plop.Config()),
    "base ssul": ssul.Config(),
    "base swin": fine_tuning.Config(),
    "ssul": ssul.Config(pseudo_label_threshold=0.1),  # so that it is sure of some classes
}
PLAIN = fine_tuning.Config(loss="bce", reserved_channels=6)
# What two workers train.
SHARED = (
    *("base", "base weak", "base offline", "base ssul", "base swin"),
    *("mib", "wilson", "offline", "plop", "ewc", "pi", "rw", "dft", "mib-augm", "ewf", "ssul"),
)
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


class Interrupted(Exception):
    """Raised in the middle of a step."""


class Stopping(MemoryJournal):
    """Wants the training to stop once it has a row."""

    def should_stop(self) -> bool:
        return len(self.rows) == 1

    def stop(self) -> NoReturn:
        raise Interrupted


class World(NamedTuple):
    """The scenes, and the published step 0 that the others start from."""

    train: LocalSplit
    val: LocalSplit
    base: Path | None = None
    ssul: Path | None = None  # SSUL's step 0


def document(data: LocalSplit, name: str, **optimization: Any) -> tuple[StepConfig, np.ndarray]:
    """Return the step that `name` stands for in METHODS, in float64, and the rows it trains on."""
    index = 0 if name.startswith("base") else 1
    rows = select_images(data.index.labels, GROUPS, index, "overlap")
    kept = np.empty(0, np.int64)
    if METHODS[name].needs_memory:
        others = np.setdiff1d(np.arange(len(data.index.ids)), rows)
        kept = choose_memory(data.index.labels, GROUPS[0], others, data.index.ids, 5)
    task = Task(
        data=data.content,
        groups=GROUPS[: index + 1],
        selection=data.index.selection_digest(rows),
        images=len(rows),
        supervision=METHODS[name].supervision,
        void="ignore",
        memory=data.index.selection_digest(kept) if len(kept) else None,
        memory_images=len(kept),
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
        method=METHODS[name].with_current_recipe(),
        model=_model(name),
        optimization=Optimization.model_validate(settings | optimization),
        augmentation=Augmentation(crop=32),
    )
    return step, np.concatenate([rows, kept])


def _model(name: str) -> ModelConfig:
    if name == "base swin":
        return small_model("swin", "stage1", output_stride=4)
    return ModelConfig(
        encoder="tiny",
        output_stride=4,
        head_channels=6,
        eval_pooling=8,
        classifier=METHODS[name].classifier or "pointwise",
    )


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
    parent = world.ssul if name == "ssul" else world.base
    if name.startswith("base"):
        parent = None
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
    bases = {
        field: fitted(bare, name, tmp_path_factory.mktemp(field))
        for field, name in (("base", "base"), ("ssul", "base ssul"))
    }
    return bare._replace(**bases)


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


def test_a_step_of_another_recipe_is_refused(world: World, tmp_path: Path) -> None:
    step, rows = document(world.train, "base")
    other = step.method.model_copy(update={"recipe": step.method.recipe + 1})
    planned = step.model_copy(update={"method": other}), rows
    with pytest.raises(InputError, match="plan it again"):
        fitted(world, "base", tmp_path, planned=planned)


def test_the_curves_tell_what_training_takes_of_its_machine(published: dict[str, Path]):
    rows = json.loads((published["base"] / "curves.json").read_text())
    assert all(0 <= row["usage/cpu_percent"] <= 100 for row in rows)
    assert all(row["usage/process_megabytes"] > 10 for row in rows)


def test_the_journal_gets_how_long_training_waited(world: World, tmp_path: Path):
    step, rows = document(world.train, "base")
    runtime = Runtime(log_every=1, checkpoint_every=0)
    kept: list[int] = []

    def save(folder: Path, iteration: int) -> None:
        kept.append(iteration)
        time.sleep(0.05)

    journal = MemoryJournal(save)
    paths = {"parent": None, "encoder_weights": None, "folder": tmp_path, "resume": None}
    began = time.monotonic()
    fit(step, world.train, rows, runtime, **paths, journal=journal)
    took = time.monotonic() - began
    assert set(journal.waited) == {"data", "checkpoint"}
    assert journal.waited["data"] > 0
    assert journal.waited["checkpoint"] >= 0.05 * len(kept) > 0
    assert sum(journal.waited.values()) < took


@pytest.mark.parametrize("name", ["base", "wilson", "base swin"])
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


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_trains_every_method_close_to_float32(world: World, tmp_path: Path, name: str):
    """The first loss differs by rounding alone, and a bfloat16 has 8 bits."""
    rows = {}
    for precision in ("float32", "bfloat16"):
        folder = fitted(world, name, tmp_path / precision, precision=precision)
        rows[precision] = curves(folder)
        weights = load_file(folder / "model.safetensors").values()
        assert all(value.isfinite().all() for value in weights)
        assert torch.bfloat16 not in {value.dtype for value in weights}
    for exact, rounded in zip(rows["float32"], rows["bfloat16"], strict=True):
        assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.1)
    first, rounded = rows["float32"][0]["loss"], rows["bfloat16"][0]["loss"]
    assert rounded == pytest.approx(first, rel=0.02)
    assert rounded != first


def test_recording_importance_changes_no_weight(
    world: World, published: dict[str, Path], tmp_path: Path
):
    step, rows = document(world.train, "base")
    plain = step.model_copy(update={"method": PLAIN.with_current_recipe()})
    without = fitted(world, "base", tmp_path, planned=(plain, rows))
    assert (without / "model.safetensors").read_bytes() == (
        published["base"] / "model.safetensors"
    ).read_bytes()
    plainly = set(load_file(without / "state.safetensors"))
    assert plainly == {"reserved.weight", "reserved.bias"}
    measures = ("fisher", "path_integral", "walk")
    assert set(load_file(published["base"] / "state.safetensors")) - plainly == {
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


@pytest.mark.parametrize(
    "name",
    [
        "base",
        "wilson",
        "offline",
        "plop",
        "pi",
        "rw",
        "dft",
        "mib-augm",
        "ewf",
        "ssul",
        "base swin",
    ],
)
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
    stop_at_second_row(world, folder, rank)
    distributed.destroy_process_group()


def stop_at_second_row(world: World, folder: Path, rank: int) -> None:
    """Train until the journal of rank 0 stops the step, and write when this worker ended."""

    def keep(checkpoint: Path, iteration: int) -> None:
        time.sleep(1)
        (folder / "stopping/kept").touch()

    step, rows = document(world.train, "base")
    runtime = Runtime(rank, 2, log_every=1)
    paths = {"parent": None, "encoder_weights": None, "resume": None}
    journal = Stopping(keep)
    with pytest.raises(Interrupted):
        fit(step, world.train, rows, runtime, **paths, folder=folder / "stopping", journal=journal)
    (folder / f"stopped-{rank}").write_text(str(time.time()))


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
    for name in ("wilson", "base weak", "base offline"):
        same_bytes(fitted(maskless, name, tmp_path / name), published[name])
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
    step, rows = document(world.train, "base")
    kept: list[int] = []
    journal = Stopping(lambda folder, iteration: kept.append(iteration))
    paths = {"parent": None, "encoder_weights": None, "folder": tmp_path, "resume": None}
    with pytest.raises(Interrupted):
        fit(step, world.train, rows, Runtime(log_every=1), **paths, journal=journal)
    assert kept == [row["iteration"] for row in journal.rows][-1:] == [2]


def test_workers_stop_together_after_the_checkpoint(team: Path):
    """Rank 0 alone is told to stop, and takes a second to keep its checkpoint."""
    ended = [float((team / f"stopped-{rank}").read_text()) for rank in range(2)]
    assert min(ended) >= (team / "stopping/kept").stat().st_mtime


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
