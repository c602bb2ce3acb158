"""A user's mistake ends in one line and exit code 2, before anything is published or started."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from jobs import evaluate, ingest, train
from jobs.store_dataset import IngestRequest, store_dataset
from orchestrator.store.open import open_store
from stepchain.presets import PRESETS
from tests.support.records import publish_chain
from training.data.digits import Digits

SMALL = ("--base.optimization.batch", "4", "--optimization.batch", "4")  # the dataset has 24 scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a store of 24 + 6 scenes of digits, and with other files."""
    folder = tmp_path_factory.mktemp("bad")
    store = open_store(str(folder / "store"))
    scenes = Digits(train=24, val=6)
    store_dataset(IngestRequest(scenes, store, "digits", Console(quiet=True)))
    (folder / "text").write_text("neither a folder nor weights")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, folder / "resnet.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPCHAIN_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a check is missing or late, rather than start a cluster or a tracker."""

    def started(*_: object) -> None:
        raise AssertionError("this had to be refused before anything starts")

    for name in (
        "orchestrator.cluster.machines.connect",
        "orchestrator.cluster.workers.connect",
        "orchestrator.tracking.tracker.Tracker",
    ):
        monkeypatch.setattr(name, started)


def refused(
    main: Callable[[list[str]], None],
    arguments: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture,
) -> str:
    """Assert that `main` exits with 2 and leaves the store as it was; return its stderr."""
    before = stored(folder / "store")
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([argument.format(folder=folder) for argument in arguments])
    assert caught.value.code == 2
    assert stored(folder / "store") == before
    assert not ray.is_initialized()
    return capsys.readouterr().err


def stored(store: Path) -> dict[str, int]:
    return {
        path.relative_to(store).as_posix(): path.stat().st_mtime_ns
        for path in store.rglob("*")
        if path.is_file()
    }


def assert_one_line(err: str, *parts: str) -> None:
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["digit_wilson"], ["no preset 'digit_wilson'", "did you mean 'digits_wilson'?"]),
        (
            ["digits_wilson", "--scenario.dataset", "digts"],
            ["no dataset 'digts'", "did you mean 'digits'?"],
        ),
        (["voc_wilson"], ["no dataset 'voc'", "It has digits"]),
        (["digits_wilson", "--groups", "0,1", "2,x3"], ["no class 'x3'", "did you mean '3'?"]),
        (["digits_wilson", "--groups", "0,1", "1,2"], ["class '1' stands in the groups twice"]),
        (["digits_wilson", "--groups", "0,1", ","], ["blanks after some commas"]),
        (
            ["digits_wilson", "--groups", "0,1", "2,3", "--split", "6-4"],
            ["either --groups or --split"],
        ),
        (["digits_wilson", "--split", "6-3"], ["'6-3' does not divide 10 classes"]),
        (["digits_wilson", "--split", "six-four"], ["not of the form A-B, such as"]),
        # A weak step with a single new class: why not, and two ways out.
        (
            ["digits_wilson", "--groups", "0,1,2", "4"],
            ["single class", "images without the new class", "group the class", "use masks"],
        ),
        (
            ["digits_wilson", "--split", "9-1"],
            ["single class", "images without the new class", "group the class", "use masks"],
        ),
        (
            ["digits_wilson", "--scenario.supervision", "pixel"],
            ["'wilson' learns from image labels", "change the method"],
        ),
        (
            ["digits_mib", "--scenario.supervision", "image"],
            ["'mib' learns from pixel labels", "change the method"],
        ),
        (
            ["digits_wilson", "--method.alpha", "1.5"],
            ["method.alpha", "less than or equal to 1", "1.5"],
        ),
        (
            ["digits_wilson", "--method.alpha", "-0.1"],
            ["method.alpha", "greater than or equal to 0", "-0.1"],
        ),
        (["digits_wilson", "--method.alpha", "nan"], ["method.alpha", "finite"]),
        (
            ["digits_wilson", "--optimization.epochs", "0"],
            ["optimization.epochs", "greater than 0"],
        ),
        (
            ["digits_wilson", "--optimization.epochs", "0.01"],
            ["step 1 would end before its first batch", "optimization.epochs"],
        ),
        (
            ["digits_wilson", "--base.optimization.batch", "0"],
            ["base.optimization.batch", "greater than or equal to 2"],
        ),
        (
            ["digits_wilson", "--optimization.batch", "100"],
            ["step 1 (6, 7, 8, 9) finds", "fewer than one batch of 100", "lower"],
        ),
        (
            ["digits_wilson", "--optimization.momentum", "1"],
            ["optimization.momentum", "less than 1"],
        ),
        (
            ["digits_wilson", "--augmentation.scale", "2", "0.5"],
            ["augmentation.scale", "smaller bound first"],
        ),
        (
            ["digits_wilson", "--model.output-stride", "16"],
            ["'tiny' has no output stride 16", "to 4"],
        ),
        (["digits_wilson", "--seed", "-1"], ["seed", "greater than or equal to 0"]),
        (["digits_wilson", "--workers", "3"], ["3 workers cannot share a batch of 4", "use 2"]),
        (["digits_wilson", "--workers", "0"], ["workers", "greater than or equal to 1"]),
        (
            ["digits_wilson", "--encoder-weights", "{folder}/absent.pth"],
            ["no file of weights", "absent.pth"],
        ),
        (
            ["digits_wilson", "--encoder-weights", "{folder}/text"],
            ["text is not a file of weights", "give safetensors"],
        ),
        (
            ["digits_wilson", "--encoder-weights", "{folder}/resnet.safetensors"],
            ["does not hold weights of a Tiny", "unexpected"],
        ),
        (
            ["digits_wilson", "--model.weights", "a" * 64],
            ["has no encoder weights aaaa", "--encoder-weights"],
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if value and value[0] in PRESETS else None,
)
def test_train_refuses(
    folder: Path, capsys: pytest.CaptureFixture, arguments: list[str], parts: list[str]
):
    small = SMALL if arguments[0].startswith("digits_") else ()
    preset, *rest = arguments
    assert_one_line(
        refused(train.main, [preset, "--store", "{folder}/store", *small, *rest], folder, capsys),
        *parts,
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["abcd0"], ["no published step has the key 'abcd0'"]),
        (["../x"], ["no published step has the key '../x'"]),
        (["nobody:1"], ["no chain is named 'nobody'", "published: digits"]),
        (["digits:2"], ["chain 'digits' has steps 0 to 1, and no step '2'"]),
        (["digits:1", "--data", "digts"], ["no dataset 'digts'", "did you mean 'digits'?"]),
        (["digits:1", "--data", "digits", "--split", "test"], ["no split 'test'", "train, val"]),
        (["other:1", "--data", "digits"], ["as 'a'", "which is '0' in dataset 'digits'"]),
        (["digits:1", "--data", "digits", "--crop", "0"], ["crop", "greater than or equal to 1"]),
        (["digits:1", "--workers", "0"], ["workers", "greater than or equal to 1"]),
    ],
)
def test_evaluate_refuses(
    folder: Path,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    parts: list[str],
):
    store = open_store(str(folder / "store"))
    publish_chain(store, "digits")
    if arguments[0] == "other:1":
        publish_chain(store, "other", names=tuple("abcdefghij"))
    assert_one_line(
        refused(evaluate.main, [*arguments, "--store", "{folder}/store"], folder, capsys), *parts
    )


@pytest.mark.parametrize(
    ("main", "first"), [(train.main, "digits_wilson"), (evaluate.main, "digits:1")]
)
@pytest.mark.parametrize(
    ("store", "parts"),
    [
        ("{folder}/text/below", ["there is no store at", "text/below"]),
        ("gs://bucket", ["is not a store"]),
    ],
)
def test_a_store_that_cannot_be_used_is_refused(
    folder: Path,
    capsys: pytest.CaptureFixture,
    main: Callable,
    first: str,
    store: str,
    parts: list[str],
):
    assert_one_line(refused(main, [first, "--store", store], folder, capsys), *parts)


@pytest.mark.parametrize(
    ("main", "arguments", "meant"),
    [
        (train.main, ["digits_wilson", "--method.alfa", "1"], "--method.alpha"),
        (train.main, ["digits_mib", "--method.alpha-x", "1"], "--method.alpha"),
        (train.main, ["digits_wilson", "--wrkers", "1"], "--workers"),
        (evaluate.main, ["abcd", "--splt", "val"], "--split"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture, main: Callable, arguments: list[str], meant: str
):
    err = refused(main, arguments, folder, capsys)
    assert "Perhaps you meant" in err
    assert meant in err


def uniform_mask(value: int, mode: str = "L") -> Callable[[Path, Path], None]:
    """Return a function that replaces a mask by one of a single value, of the image's size."""
    return lambda image, mask: Image.new("L", size(image), value).convert(mode).save(mask)


def size(image: Path) -> tuple[int, int]:
    with Image.open(image) as picture:
        return picture.size


FLAWS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no mask": (lambda image, mask: mask.unlink(), "the mask {mask} does not exist"),
    "no image": (lambda image, mask: image.unlink(), "the image {image} does not exist"),
    "undeclared class": (uniform_mask(21), "the mask holds the value 21; declared are 0 to 20"),
    "colours for classes": (
        uniform_mask(1, "RGB"),
        "the mask holds RGB colours: say which class each is, with --palette",
    ),
    "another size": (
        lambda image, mask: Image.new("L", (5, 7)).save(mask),
        "the mask is 5 x 7 pixels and the image {width} x {height}",
    ),
    "truncated": (
        lambda image, mask: image.write_bytes(image.read_bytes()[:300]),
        "the image cannot be decoded",
    ),
    "empty": (lambda image, mask: image.write_bytes(b""), "the image cannot be decoded"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_ingest_says_which_image_is_unusable_and_why(
    flaw: str, voc_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    spoil, reason = FLAWS[flaw]
    id = "2007_train_aug_003"
    image, mask = (
        voc_folder / "JPEGImages" / f"{id}.jpg",
        voc_folder / "SegmentationClassAug" / f"{id}.png",
    )
    width, height = size(image)
    spoil(image, mask)
    with pytest.raises(SystemExit) as caught:
        ingest.main(["voc", "--root", str(voc_folder), "--store", str(tmp_path / "store")])
    assert caught.value.code == 2
    problem = reason.format(image=image, mask=mask, width=width, height=height)
    assert_one_line(
        capsys.readouterr().err, "1 image cannot be used", f"train/{id}", problem, "--on-bad skip"
    )
    assert not [
        key for key in stored(tmp_path / "store") if "/manifests/" in key or "/refs/" in key
    ]
