"""Check which images of earlier steps are kept, their labels, and how training reads them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.checkpoint import load_model
from training.config import Augmentation, InputError, MethodConfig, ModelConfig, Optimization, Task
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import base, fine_tuning, mib, wilson
from training.runtime import Runtime
from training.scenario import (
    choose_memory,
    hashed_order,
    image_labels,
    keep_share,
    label_map,
    memory_image_labels,
    memory_label_map,
    select_images,
)
from training.step_config import StepConfig

# Six images of three classes; image 5 shows all of them.
LABELS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).astype(bool)
IDS = [f"image-{number}" for number in range(6)]


def task(*groups: list[int], **fields: object) -> Task:
    return Task.model_validate(
        {"data": "d", "groups": groups, "selection": "s", "images": 1, "supervision": "pixel"}
        | fields
    )


@given(st.permutations(range(20)), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_share_is_part_of_a_larger_one_whatever_the_order(
    rows: list[int], one: float, other: float
):
    ids = [f"image-{number}" for number in range(20)]
    small, large = (keep_share(np.array(rows), ids, share) for share in sorted((one, other)))
    assert set(small) <= set(large)
    assert len(small) == max(1, round(20 * min(one, other)))
    assert list(small) == sorted(small)
    assert keep_share(np.arange(20), ids, 1).tolist() == list(range(20))


def test_a_share_is_drawn_by_id_not_by_position():
    """The same images, listed the other way round, with another among them."""
    ids = [f"image-{number}" for number in range(20)]
    kept = {ids[row] for row in keep_share(np.arange(20), ids, 0.25)}
    reversed_ids = ids[::-1]
    assert {reversed_ids[row] for row in keep_share(np.arange(20), reversed_ids, 0.25)} == kept
    without = [number for number in range(20) if ids[number] not in kept]
    assert not kept & {ids[row] for row in keep_share(np.array(without), ids, 0.25)}


def test_classes_take_turns_in_the_memory():
    order = hashed_order(np.arange(6), IDS)
    first = {c: order[LABELS[order, c - 1]][0] for c in (1, 2)}
    both = choose_memory(LABELS, (1, 2), np.arange(6), IDS, 2)
    assert len(both) == 2
    assert first[1] in both
    assert LABELS[both, 1].any()
    alone = choose_memory(LABELS, (2, 1), np.arange(6), IDS, 1)
    assert alone.tolist() == [first[2]], "the class learned first chooses first"
    assert 4 not in choose_memory(LABELS, (1, 2), np.arange(6), IDS, 6), (
        "it shows no previous class"
    )


@st.composite
def memories(draw: st.DrawFn) -> tuple[np.ndarray, list[int], int]:
    images = draw(st.integers(1, 30))
    classes = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (
        rng.random((images, classes)) < 0.3,
        draw(st.permutations(range(1, classes + 1))),
        draw(st.integers(1, 40)),
    )


@given(memories())
def test_the_memory_is_balanced_and_grows_by_adding(world: tuple[np.ndarray, list[int], int]):
    labels, classes, size = world
    ids = [f"image-{number}" for number in range(len(labels))]
    useful = np.flatnonzero(labels.any(1))
    chosen = choose_memory(labels, classes, np.arange(len(labels)), ids, size)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert set(chosen) <= set(useful)
    assert len(chosen) == min(size, len(useful))
    assert set(chosen) <= set(choose_memory(labels, classes, np.arange(len(labels)), ids, size + 1))
    shown = {c: int(labels[chosen, c - 1].sum()) for c in classes}
    for c in classes:  # only a class that has no image left may have fewer than its turns
        assert shown[c] >= min(
            size // len(classes), int(labels[:, c - 1].sum()), len(chosen) // len(classes)
        )


def test_kept_images_know_their_previous_classes_and_no_new_one():
    step = task([3, 1], [2])
    assert memory_label_map(step)[[0, 1, 2, 3, 255]].tolist() == [0, 2, 0, 1, 0]
    assert memory_label_map(task([3, 1], [2], void="ignore"))[255] == 255
    assert label_map(step)[[1, 2, 3]].tolist() == [0, 3, 0]
    everything = np.array([[True, True, True], [False, True, False]])
    assert memory_image_labels(step, everything).tolist() == [[1, 1, 0], [0, 0, 0]]
    assert image_labels(step, everything).tolist() == [[0, 0, 1], [0, 0, 1]]


GROUPS = ((1, 2, 3, 4, 5, 6), (7,))
MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=6, eval_pooling=8)


def trained(
    data: LocalSplit,
    method: MethodConfig,
    folder: Path,
    parent: Path | None = None,
    memory: int = 0,
    drop: bool = False,
) -> Path:
    """Train the first step, or the second one of a parent, and return its folder.

    `drop` gives it the selected images alone.
    """
    number = 0 if parent is None else 1
    rows = select_images(data.index.labels, GROUPS, number, "overlap")
    others = np.setdiff1d(np.arange(len(data.index.ids)), rows)
    kept = choose_memory(data.index.labels, GROUPS[0], others, data.index.ids, memory)
    step = StepConfig(
        task=Task(
            data=data.content,
            groups=GROUPS[: number + 1],
            selection=data.index.selection_digest(rows),
            images=len(rows),
            supervision=method.supervision,
            memory=data.index.selection_digest(kept) if memory else None,
            memory_images=len(kept),
        ),
        method=method.with_current_recipe(),
        model=MODEL,
        optimization=Optimization(epochs=2, batch=2, precision="float64"),
        augmentation=Augmentation(crop=64, scale=(0.99, 1)),
    )
    given = rows if drop else np.concatenate([rows, kept])
    paths = {"parent": parent, "encoder_weights": None, "folder": folder, "resume": None}
    return fit(
        step,
        data,
        given,
        Runtime(log_every=1),
        **paths,
        journal=MemoryJournal(),
    )


@pytest.fixture
def data(local_split: Callable[..., LocalSplit]) -> LocalSplit:
    return local_split(Digits(seed=3, train=24, val=1))


@pytest.fixture
def parent(data: LocalSplit, tmp_path: Path) -> Path:
    return trained(data, fine_tuning.Config(loss="bce"), tmp_path / "base")


def test_training_meets_kept_images_as_what_they_are(
    data: LocalSplit, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each epoch has every image once, with the labels it may have.

    Images of the new class name it alone; kept images name their previous classes.
    """
    seen: list[base.Batch] = []
    for method in (wilson.Method, mib.Method):
        forward = method.forward
        monkeypatch.setattr(
            method,
            "forward",
            lambda self, batch, progress, forward=forward: (
                seen.append(batch),
                forward(self, batch, progress),
            )[1],
        )
    for config in (wilson.Config(warmup_epochs=1, localizer_channels=4), mib.Config()):
        seen.clear()
        folder = trained(data, config, tmp_path / config.name, parent, memory=6)
        assert load_model(folder)[1].groups == GROUPS
        known = torch.cat([batch.image_labels for batch in seen])
        new = known[:, 6] > 0
        images = int(data.index.labels[:, 6].sum())
        assert len(known) == 2 * ((images + 6) // 2 * 2)
        assert (~new).sum() in (12, 12 - 1, 12 - 2)  # an odd image may be left out of an epoch
        assert not known[new, :6].any()
        assert known[~new, :6].any(1).all()
        if config.name == "wilson":
            assert all(batch.targets is None for batch in seen)
            continue
        for target, mine, is_new in zip(
            torch.cat([batch.masks for batch in seen]), known, new, strict=True
        ):
            channels = set(target.unique().tolist()) - {0}
            assert channels <= ({7} if is_new else set((mine.nonzero()[:, 0] + 1).tolist()))
            assert channels, "a digit is never cropped away at this scale"


def test_images_other_than_those_kept_are_refused(data: LocalSplit, parent: Path, tmp_path: Path):
    with pytest.raises(InputError, match="not the ones that the step's document selects"):
        trained(data, wilson.Config(), tmp_path / "step", parent, memory=6, drop=True)
