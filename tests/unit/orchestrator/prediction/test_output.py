"""The folder of predictions is completed by the same command, and by no other."""

import csv
import io
from pathlib import Path

import pytest

from orchestrator.prediction.documents import (
    ClassShare,
    Prediction,
    Predictions,
    Question,
    Unreadable,
)
from orchestrator.prediction.output import OutputFolder, output_names, to_csv
from orchestrator.prediction.photos import Photo
from training.config import InputError

QUESTION = Question(
    step="5" * 16,
    attempt="a1",
    class_names={0: "background", 3: "crack"},
    short_side=512,
    tile=1024,
    precision="float32",
)
CRACK = ClassShare(id=3, name="crack", pixels=6, share=1.0)
DONE = Prediction(
    photo="a.jpg",
    sha256="1" * 64,
    width=2,
    height=3,
    mask="masks/a.png",
    overlay="overlays/a.jpg",
    classes=(CRACK,),
)


def begun(root: Path, question: Question = QUESTION) -> OutputFolder:
    root.mkdir(exist_ok=True)
    folder = OutputFolder(root)
    folder.begin(question)
    return folder


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """Return a folder in which one photo is done."""
    folder = begun(tmp_path / "out")
    folder.write_picture(DONE.mask, b"mask")
    folder.write_picture(DONE.overlay, b"overlay")
    folder.add(DONE)
    return folder.root


def test_what_is_done_is_found_again(held: Path):
    folder = OutputFolder(held)
    assert folder.begin(QUESTION) == 1
    assert folder.find_done("a.jpg", "1" * 64, "masks/a.png") == DONE
    assert folder.find_done("a.jpg", "2" * 64, "masks/a.png") is None
    assert folder.find_done("b.jpg", "1" * 64, "masks/b.png") is None
    (held / DONE.overlay).unlink()
    assert folder.find_done("a.jpg", "1" * 64, "masks/a.png") is None


def test_a_line_that_was_cut_is_not_done(held: Path):
    path = held / "progress.jsonl"
    path.write_text(path.read_text()[:-20])
    folder = OutputFolder(held)
    assert folder.begin(QUESTION) == 0
    folder.add(DONE)
    assert OutputFolder(held).begin(QUESTION) == 0
    folder = begun(held)
    folder.add(DONE)
    assert OutputFolder(held).begin(QUESTION) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": "6" * 16}, "step 5555555555555555"),
        ({"short_side": None}, "short side 512"),
        ({"class_names": {0: "background"}}, "other classes"),
    ],
)
def test_another_question_is_refused(held: Path, change: dict[str, object], words: str):
    with pytest.raises(InputError, match=rf"predictions of another kind \({words}\)"):
        begun(held, QUESTION.model_copy(update=change))


def test_a_folder_with_other_files_is_refused(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(thesis\.tex\)"):
        OutputFolder(tmp_path)


def test_a_folder_with_hidden_files_is_empty(tmp_path: Path):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    begun(tmp_path)


def test_masks_of_photos_of_one_name_differ():
    photos = [Photo(name, bytes) for name in ("a.jpg", "A.png", "b.jpg", "sub/b.jpg", "c.d.jpg")]
    assert output_names(photos) == ["a.jpg", "A.png", "b", "sub/b", "c.d"]
    photos = [Photo(name, bytes) for name in ("a.jpg", "a.png", "A.jpg.png", "d.jpg")]
    assert output_names(photos) == ["a.jpg", "a.png", "A.jpg.png", "d"]


def test_the_table_has_a_row_for_each_photo():
    bad = Unreadable(photo="Ä.jpg", problem='a "reason", it has')
    table = to_csv(Predictions(question=QUESTION, photos=(DONE,), unreadable=(bad,)))
    first, second = csv.DictReader(io.StringIO(table))
    assert (first["photo"], first["crack"], first["background"]) == ("a.jpg", "1.000000", "0")
    assert (second["photo"], second["problem"], second["crack"]) == (bad.photo, bad.problem, "")
