"""`jobs.predict` leaves masks, overlays, tables and a page, and goes on where it was."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.predict import main
from orchestrator.records import layout
from orchestrator.store.base import Store
from stepchain import find_step, predict
from tests.support.models import publish_model
from training.methods import lwf


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with three photos, two of one name, and a text."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.JPG", (48, 64)), ("a.png", (30, 20)), ("sub/b.webp", (200, 150))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def run(published: Store, photos: Path, tmp_path: Path):
    """Return a function that predicts the photos, and returns the folder."""

    def predict_all(*options: str, step: str = "demo:1", out: str = "out") -> Path:
        where = ["--images", str(photos), "--out", str(tmp_path / out), "--store", published.uri]
        main([step, *where, "--device", "cpu", *options])
        return tmp_path / out

    return predict_all


def test_masks_are_the_predictions_at_the_size_of_the_photo(run, published: Store, photos: Path):
    out = run()
    step = find_step(published, "demo:1")
    for photo, mask in (("a.png", "a.png.png"), ("sub/b.webp", "sub/b.png")):
        with Image.open(out / "masks" / mask) as picture:
            assert picture.mode == "P"
            labels = np.array(picture)
        with Image.open(photos / photo) as picture:
            (expected,) = predict(step, [np.array(picture.convert("RGB"))])
        np.testing.assert_array_equal(labels, expected)
        assert set(np.unique(labels).tolist()) <= set(step.class_names)


def test_tables_and_page_say_what_each_photo_shows(run, capsys: pytest.CaptureFixture[str]):
    out = run()
    printed = capsys.readouterr().out
    assert "3 photos, 1 other files passed over" in printed
    assert f"3 photos predicted: {out / 'index.html'}" in printed
    document = json.loads((out / "predictions.json").read_text())
    rows = document["photos"]
    assert [row["photo"] for row in rows] == ["a.JPG", "a.png", "sub/b.webp"]
    for row in rows:
        assert sum(each["pixels"] for each in row["classes"]) == row["width"] * row["height"]
        assert (out / row["overlay"]).is_file()
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        table = [*csv.DictReader(file)]
    for row, line in zip(rows, table, strict=True):
        for each in row["classes"]:
            assert float(line[each["name"]]) == pytest.approx(each["share"], abs=1e-6)
    page = (out / "index.html").read_text()
    assert page.count('src="data:image/') == 3
    assert "http" not in page


def test_all_classes_of_a_model_without_background_are_counted(
    run, published: Store, publish_chain, capsys: pytest.CaptureFixture[str]
):
    (key, _) = publish_chain(published, "streets", method=lwf.Config()).steps
    path = layout.step_record(key)
    record = json.loads(published.read(path))
    record["step"]["task"]["background"] = "none"
    published.write(path, json.dumps(record).encode())
    publish_model(published, key)
    document = json.loads((run(step="streets:0") / "predictions.json").read_text())
    assert f"step {key}: 6 classes" in capsys.readouterr().out
    assert 0 not in {each["id"] for photo in document["photos"] for each in photo["classes"]}


def test_a_photo_that_cannot_be_read_is_listed_and_the_rest_predicted(
    run, photos: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "broken.jpg").write_bytes((photos / "a.JPG").read_bytes()[:300])
    os.mkfifo(photos / "pipe.png")
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert "unreadable: broken.jpg" in printed
    assert "unreadable: pipe.png" in printed
    assert "3 photos predicted" in printed


def test_a_photo_of_few_of_16_bits_is_predicted_and_told(
    run, photos: Path, capsys: pytest.CaptureFixture[str]
):
    Image.fromarray(np.full((30, 40), 4095, np.uint16)).save(photos / "camera.png")
    run()
    printed = " ".join(capsys.readouterr().out.split())
    assert "read nearly black: save them as 8 bits: 1, the first is camera.png" in printed


def test_a_repeated_command_goes_on(run, photos: Path, capsys: pytest.CaptureFixture[str]):
    out = run()
    first = (out / "predictions.json").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    (out / "masks" / "sub" / "b.png").unlink()
    Image.new("RGB", (8, 8)).save(photos / "c.png")
    capsys.readouterr()
    run()
    assert "going on: 3 photos" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    written = {path.name for path in after if after[path] != before.get(path)}
    assert written == {"b.png", "c.png"}
    (photos / "c.png").unlink()
    run()
    assert (out / "predictions.json").read_bytes() == first


def test_another_step_needs_another_folder(run, capsys: pytest.CaptureFixture[str]):
    run()
    with pytest.raises(SystemExit) as end:
        run(step="demo:0")
    assert end.value.code == 2
    assert "predictions of another kind (step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--short-side", "0"), "leaves no pixel"),
        (("--device", "tpu"), "--device tpu is not here"),
        (("--tile", "7"), "--tile 7"),
    ],
)
def test_options_that_cannot_work_are_refused(
    run, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
):
    with pytest.raises(SystemExit) as end:
        run(*options)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_fetched(
    run, published: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in [*published.list("steps/")]:
        if name.endswith("model.safetensors"):
            published.delete(name)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folders", "files", "words"),
    [
        (["progress.jsonl"], [], "progress.jsonl is a folder"),
        (["predictions.csv"], ["progress.jsonl"], "predictions.csv is a folder"),
        ([], ["masks"], "masks is a file"),
        ([], ["overlays", "progress.jsonl"], "overlays is a file"),
    ],
)
def test_what_is_in_the_way_of_predictions_is_named_before_anything_is_predicted(
    run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folders: list[str],
    files: list[str],
    words: str,
):
    for name in folders:
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out").mkdir(exist_ok=True)
    for name in files:
        (tmp_path / "out" / name).touch()
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(folders + files)


def test_a_folder_below_the_photos_is_not_predicted(run, photos: Path):
    out = run(out="photos/predicted")
    again = run(out="photos/predicted")
    assert len(json.loads((again / "predictions.json").read_text())["photos"]) == 3
    assert out.parent == photos


def test_earlier_predictions_are_no_photos(run, capsys: pytest.CaptureFixture[str]):
    run(out="photos/first")
    capsys.readouterr()
    again = run(out="photos/second")
    assert "passed over: first, which holds predictions" in capsys.readouterr().out
    assert len(json.loads((again / "predictions.json").read_text())["photos"]) == 3


def test_a_step_without_scores_predicts(run, published: Store):
    for name in published.list("evaluations/"):
        published.delete(name)
    out = run("--short-side", "original")
    assert (out / "masks" / "sub" / "b.png").is_file()
