"""Image lists are read from a folder, stored by digest, and followed by the plan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets.image_lists import Lists, load_lists, publish_lists, read_lists
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.resolver import PlanError, PlannedStep, Resolver
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import CorruptedObject
from orchestrator.store.open import open_store
from tests.support.datasets import make_index
from training.config import InputError, MethodConfig, Optimization
from training.methods import fine_tuning, joint, mib
from training.scenario import Scenario

IDS = [f"image-{number}" for number in range(12)]
LISTS: Lists = (
    ("image-0", "image-3", "image-4", "image-8"),
    ("image-3", "image-1", "image-9", "image-10", "image-11"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_lists_of_ids_and_of_positions_read_alike(tmp_path: Path):
    (tmp_path / "train-0.txt").write_text("\n".join(LISTS[0]) + "\n")
    np.save(tmp_path / "train-1.npy", np.array([1, 3, 9, 10, 11]))
    (tmp_path / "notes.md").write_text("not a list")
    first, second = read_lists(tmp_path, IDS)
    assert first == LISTS[0]
    assert set(second) == set(LISTS[1])


def test_positions_are_refused_where_images_were_left_out(tmp_path: Path):
    np.save(tmp_path / "train-0.npy", np.array([1, 3]))
    assert read_lists(tmp_path, IDS) == (("image-1", "image-3"),)
    with pytest.raises(InputError, match=r"2 of them were left out .*: give ids, as train-0\.txt"):
        read_lists(tmp_path, IDS, left_out=2)
    (tmp_path / "train-0.npy").unlink()
    (tmp_path / "train-0.txt").write_text("image-1 image-3")
    assert read_lists(tmp_path, IDS, left_out=2) == (("image-1", "image-3"),)


def test_lists_are_read_as_people_have_them(tmp_path: Path):
    (tmp_path / "train-0.txt").write_bytes(
        "# step 0\r\nimage-0.jpg\r\n/JPEGImages/image-3.jpg /Masks/image-3.png\r\n"
        "image-4 7 14\r\nimage-8 image-9\r\n".encode("utf-16")
    )
    (tmp_path / "._train-0.txt").write_bytes(b"\0\5")
    expected = tuple(f"image-{number}" for number in (0, 3, 4, 8, 9))
    assert read_lists(tmp_path, IDS) == (expected,)
    ids = ["photo #1", "#2", "my photo", "sub/a", "other/a"]
    (tmp_path / "train-0.txt").write_text("photo #1\n#2\nmy photo.jpg\nsub/a\n# other/a\n")
    assert read_lists(tmp_path, ids) == (("photo #1", "#2", "my photo", "sub/a"),)
    (tmp_path / "train-0.txt").write_text("a.jpg\n")
    with pytest.raises(
        InputError, match=r"line 1 of .*'a\.jpg', can mean the images sub/a and oth"
    ):
        read_lists(tmp_path, ids)


def test_exported_lists_are_read_and_several_exports_are_asked_back(tmp_path: Path):
    for name in ("pets_2-1_overlap", "pets_2-1_disjoint"):
        (tmp_path / f"{name}_step0.txt").write_text("image-1\n")
        (tmp_path / f"{name}_step1.txt").write_text("image-3\n")
    asked = r"lists of 2 scenarios: say which, as --selections .*pets_2-1_disjoint or .*_overlap"
    with pytest.raises(InputError, match=asked):
        read_lists(tmp_path, IDS)
    expected = (("image-1",), ("image-3",))
    assert read_lists(tmp_path / "pets_2-1_overlap", IDS) == expected
    for path in tmp_path.glob("*disjoint*"):
        path.unlink()
    assert read_lists(tmp_path, IDS) == expected


def gap(folder: Path) -> None:
    (folder / "train-0.txt").write_text("image-0")
    (folder / "train-2.txt").write_text("image-1")


def twice(folder: Path) -> None:
    (folder / "train-0.txt").write_text("image-0")
    np.save(folder / "train-0.npy", np.array([0]))


def stranger(folder: Path) -> None:
    (folder / "train-0.txt").write_text("image-0\nimage-77\n")


def empty(folder: Path) -> None:
    (folder / "train-0.txt").write_text("\n")


def several(folder: Path) -> None:
    (folder / "train-0.txt").write_text("image-0 image-77\n")


def no_array(folder: Path) -> None:
    (folder / "train-0.npy").write_text("image-0\n")


def table(folder: Path) -> None:
    np.save(folder / "train-0.npy", np.zeros((2, 2), int))


def beyond(folder: Path) -> None:
    np.save(folder / "train-0.npy", np.array([3, 12]))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: None, "must hold one list for each step"),
        (gap, "without a gap"),
        (twice, "one list for each step"),
        (stranger, "line 2 of .* names 'image-77', which is not in the training list"),
        (several, "line 1 of .* names 'image-77', which is not in the training list"),
        (no_array, "cannot be read as an array of numpy"),
        (table, "must hold positions"),
        (empty, "is empty"),
        (beyond, "which has 12 images: 0 to 11"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    tmp_path: Path, write: Callable[[Path], None], message: str
):
    write(tmp_path)
    with pytest.raises(InputError, match=message):
        read_lists(tmp_path, IDS)


def test_lists_are_stored_once_under_their_digest(store: Store):
    digest = publish_lists(store, LISTS)
    assert publish_lists(store, LISTS) == digest
    assert load_lists(store, digest) == LISTS
    with pytest.raises(NotFound):
        load_lists(store, "0" * 64)
    (key,) = store.list("selections/")
    store.write(key, b"[]")
    with pytest.raises(CorruptedObject, match="publish the lists again"):
        load_lists(store, digest)


def planned(
    lists: Lists, method: MethodConfig | None = None, selections: str | None = "digest"
) -> tuple[PlannedStep, ...]:
    index = make_index(np.ones((len(IDS), 3)), IDS)  # every image shows every class
    small = Optimization(batch=2, epochs=1)
    scenario = Scenario(
        dataset="pets",
        groups=(("cat", "cow"), ("dog",)),
        supervision="pixel",
        selections=selections,
    )
    chain = Chain(
        name="n",
        scenario=scenario,
        base=Base(optimization=small),
        optimization=small,
        method=method or mib.Config(),
    )
    return Resolver(("cat", "cow", "dog"), index, "content", {"digest": lists}.__getitem__).resolve(
        chain
    )


def test_a_step_trains_on_the_images_that_its_list_names():
    base, later = planned(LISTS)
    assert base.rows.tolist() == [0, 3, 4, 8]
    assert later.rows.tolist() == [1, 3, 9, 10, 11]
    assert (base.step.task.images, later.step.task.images) == (4, 5)
    (together,) = planned(LISTS, joint.Config())
    assert together.rows.tolist() == [0, 1, 3, 4, 8, 9, 10, 11]


def test_lists_that_say_what_the_rule_says_lead_to_the_same_keys():
    assert [step.key for step in planned((tuple(IDS), tuple(IDS)))] == [
        step.key for step in planned((), selections=None)
    ]


def test_lists_that_do_not_fit_the_scenario_are_refused():
    with pytest.raises(PlanError, match="has 2 steps, and its selections list the images of 1"):
        planned(LISTS[:1], fine_tuning.Config())
    with pytest.raises(PlanError, match="name image 'image-77'"):
        planned((LISTS[0], ("image-77", "image-0")))


def test_a_listed_scenario_says_so_in_its_title():
    groups = (("cat", "cow"), ("dog",))
    assert Scenario(dataset="pets", groups=groups, selections="d").title == "pets 2-1 listed"
