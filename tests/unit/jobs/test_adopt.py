"""Check which exported models `jobs.adopt` refuses before it reads a dataset."""

from pathlib import Path

import pytest
from safetensors.torch import save

from jobs import adopt
from orchestrator.prediction.export import ABOUT, About
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from training.config import ModelConfig
from training.models.segmenter import Segmenter

TINY = ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path, seed=1, train=4, val=2)
    return store


def exported(path: Path, classes: tuple[str, ...], class_ids: tuple[int, ...]) -> Path:
    """Write a model as an export does, and return its path."""
    about = About(
        step="k",
        attempt="a",
        classes=classes,
        class_ids=class_ids,
        short_side=None,
        model=TINY,
        channels=(len(classes),),
    )
    metadata = {ABOUT: about.model_dump_json(), "format": "pt"}
    path.write_bytes(save(Segmenter(TINY, about.channels).state_dict(), metadata))
    return path


def adopted(store: Store, path: Path, *more: str) -> None:
    at = ["--name", "mine", "--store", store.uri, "--no-tracking", "--no-score"]
    adopt.main([str(path), *at, *more])


def test_an_exported_model_without_background_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = exported(tmp_path / "model.safetensors", ("3", "0", "1"), (4, 1, 2))
    for more in ([], ["--classes", "0,1"]):
        with pytest.raises(SystemExit):
            adopted(store, path, *more)
        said = " ".join(capsys.readouterr().err.split())
        assert "model.safetensors is a model without a background channel" in said


def test_a_file_whose_own_words_cannot_be_read_is_adopted_with_all_options(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "model.safetensors"
    state = Segmenter(TINY, (4,)).state_dict()
    path.write_bytes(save(state, {ABOUT: "oops", "format": "pt"}))
    with pytest.raises(SystemExit) as end:
        adopted(store, path, "--preset", "digits_mib")
    assert end.value.code == 2
    assert "give --classes and --preset" in capsys.readouterr().err
    fields = ["--model.output-stride", "4", "--model.eval-pooling", "8"]
    adopted(store, path, "--preset", "digits_mib", "--classes", "0,1,2", *fields)
    assert "increments start from it" in capsys.readouterr().out


def test_classes_that_contradict_the_file_are_refused_or_said(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = exported(tmp_path / "w.safetensors", ("background", "0", "1", "2"), (0, 1, 2, 3))
    with pytest.raises(SystemExit) as end:
        adopted(store, path, "--classes", "2,1,0")
    assert end.value.code == 2
    assert "w.safetensors says that its classes are 0,1,2, and" in capsys.readouterr().err
    for given, words in (
        ("0,1,2", ""),
        ("3,4,5", "calls its classes 0,1,2; --classes calls them "),
    ):
        adopted(store, path, "--classes", given)
        printed = capsys.readouterr().out
        assert ("note:" in printed) == bool(words)
        assert words in printed


def test_what_was_guessed_of_a_file_of_classes_is_said(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = exported(tmp_path / "w.safetensors", ("background", "0", "1", "2"), (0, 1, 2, 3))
    names = tmp_path / "names.txt"
    names.write_text("2 1\n1 0\n3 2\n")
    with pytest.raises(SystemExit):
        adopted(store, path, "--classes", str(tmp_path / "no.txt"))
    assert "no.txt" in capsys.readouterr().err
    adopted(store, path, "--classes", str(names))
    said = " ".join(capsys.readouterr().out.split())
    assert "are in the order of the numbers beside them: 0, 1, 2" in said
