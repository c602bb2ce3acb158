"""A preset's fields are options, and whatever is wrong with them is one clear error."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jobs.train import Options, main, parse, print_plan
from orchestrator.cluster.resources import Request
from orchestrator.datasets.catalog import publish
from orchestrator.planning.planner import plan_chain
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from stepchain.presets import PRESETS
from tests.support.chains import complete
from tests.support.datasets import build_dataset
from training.config import InputError
from training.data.digits import Digits
from training.methods import mib, wilson


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("digits")
    store = open_store(str(folder / "store"))
    publish(
        store,
        "digits",
        folder / "built",
        build_dataset(Digits(train=60, val=4), folder / "built")[0],
    )
    return store


def run(digits: Store, *arguments: str) -> None:
    main([*arguments, "--store", digits.uri, "--no-tracking"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_the_command_line(name: str):
    chain, options = parse(name.replace("_", "-"), [])
    assert chain == PRESETS[name]()
    assert options == Options()


def test_an_encoder_of_transformers_is_chosen_by_options():
    chain, _ = parse("voc_mib", ["--model.encoder", "transformers"])
    assert (chain.model.encoder, chain.model.backbone) == ("transformers", None)
    options = ["--model.backbone.maps", "stage3", "--model.backbone.mean", "0.5", "0.5", "0.5"]
    chain, _ = parse("voc_wilson_swin", options)
    preset = PRESETS["voc_wilson_swin"]().model.backbone
    assert preset is not None
    changed = preset.model_copy(update={"maps": ("stage3",), "mean": (0.5, 0.5, 0.5)})
    assert chain.model.backbone == changed


def test_the_plan_says_what_memory_a_worker_needs(digits: Store):
    chain, options = parse("digits_mib", [])
    plan = plan_chain(complete(chain, options, digits), digits)
    printed = StringIO()
    print_plan(plan, digits, Console(file=printed, width=200), Request())
    assert "memory: about 0." in printed.getvalue()
    assert "GB a worker (step 1, mib)\n" in printed.getvalue()


def test_fields_are_options():
    arguments = (
        "--method.alpha 0.7 --scenario.setting disjoint --base.optimization.epochs 3 "
        "--evaluation.crop None --workers 2"
    )
    chain, options = parse("small_voc_wilson", arguments.split())
    assert isinstance(chain.method, wilson.Config)
    assert chain.method.alpha == 0.7
    assert (chain.scenario.setting, chain.base.optimization.epochs, chain.evaluation.crop) == (
        "disjoint",
        3,
        None,
    )
    assert chain.optimization == PRESETS["small_voc_wilson"]().optimization
    assert options.request.workers == 2


def test_each_preset_has_the_options_of_its_own_method(capsys: pytest.CaptureFixture[str]):
    chain, _ = parse("digits_mib", ["--method.distillation-weight", "20"])
    assert chain.method == mib.Config(distillation_weight=20)
    with pytest.raises(SystemExit):
        parse("digits_mib", ["--method.warmup-epochs", "2"])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["digits_wison"], "did you mean 'digits_wilson'?"),
        (["digits_wilson", "--method.aplha", "0.7"], "--method.alpha"),
        (["digits_wilson", "--scenario.setting", "disjont"], "disjoint"),
        (["digits_wilson", "--method.alpha", "7"], "less than or equal to 1"),
        (["digits_wilson", "--groups", "0,1,2", "3,nine"], "no class 'nine'"),
        (["digits_wilson", "--groups", "0,1,", "2,3"], "blanks after some commas"),
        (["digits_wilson", "--groups", "0,1", "1,2"], "stands in the groups twice"),
        (["digits_wilson", "--split", "9-1"], "brings a single class"),
        (["digits_wilson", "--split", "7-2"], "does not divide 10 classes"),
        (
            ["digits_wilson", "--split", "6-4", "--groups", "0,1", "2,3"],
            "either --groups or --split",
        ),
        (["digits_wilson", "--scenario.dataset", "digit"], "did you mean 'digits'?"),
        (["digits_wilson", "--optimization.batch", "61"], "fewer than one batch of 61"),
        (["digits_wilson", "--workers", "3"], "3 workers cannot share a batch of 16"),
        (
            ["digits_wilson", "--encoder-weights", "nowhere.pth"],
            "no file of weights at nowhere.pth",
        ),
    ],
)
def test_mistakes_end_before_anything_is_spent(
    digits: Store,
    arguments: list[str],
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path))
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(SystemExit) as stop:
        run(digits, *arguments)
    assert stop.value.code == 2
    assert shown in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_groups_and_weights_complete_a_chain(digits: Store, tmp_path: Path):
    import safetensors.torch

    from training.models.backbones import build_encoder

    chain, _ = parse("digits_wilson", [])
    file = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(build_encoder(chain.model).state_dict(), file)
    done = complete(chain, Options(groups=("0,1,2", "3,4"), encoder_weights=(str(file),)), digits)
    assert done.scenario.groups == (("0", "1", "2"), ("3", "4"))
    spaced = complete(chain, Options(groups=("0,", "1,", "2", "3,", "4")), digits)
    assert spaced.scenario.groups == done.scenario.groups
    assert done.model.weights is not None
    assert digits.read(layout.encoder_weights(done.model.weights)) == file.read_bytes()
    assert complete(chain, Options(split="8-2"), digits).scenario.groups == (
        tuple("01234567"),
        tuple("89"),
    )
    other = chain.model_copy(
        update={
            "model": chain.model.model_copy(update={"encoder": "mobilenet_v2", "output_stride": 16})
        }
    )
    with pytest.raises(InputError, match="does not hold weights of a MobileNetV2"):
        complete(other, Options(encoder_weights=(str(file),)), digits)


def test_lists_of_images_replace_the_settings_rule(digits: Store, tmp_path: Path):
    np.save(tmp_path / "train-0.npy", np.arange(40))
    (tmp_path / "train-1.txt").write_text(
        "\n".join(f"train-{number:05d}" for number in range(20, 60))
    )
    chain, _ = parse("digits_wilson", [])
    plan = plan_chain(complete(chain, Options(selections=tmp_path), digits), digits)
    assert [step.rows.tolist() for step in plan.steps] == [list(range(40)), list(range(20, 60))]


def test_a_plan_trains_and_writes_nothing(
    digits: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    import safetensors.torch

    from training.models.backbones import build_encoder

    chain, _ = parse("digits_wilson", [])
    file = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(build_encoder(chain.model).state_dict(), file)
    np.save(tmp_path / "train-0.npy", np.arange(30))
    np.save(tmp_path / "train-1.npy", np.arange(25, 60))
    before = sorted(digits.list())
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    given = ["--encoder-weights", str(file), "--selections", str(tmp_path)]
    run(digits, "digits_wilson", "--plan", "--why", "--verify", *given)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("to train") == 2
    assert "step 0 (fine-tuning: 0, 1, 2, 3, ...): the store has no trained step" in shown
    assert "0 published files" in shown
    assert sorted(digits.list()) == before
    with pytest.raises(SystemExit):
        run(digits, "digits_wilson", "--why")
    assert "--why and --verify are questions to a plan" in capsys.readouterr().err


def test_interrupted_work_says_how_to_go_on(
    digits: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    # Before Ray is started, which would stay for the tests that follow.
    monkeypatch.setattr("jobs.machines.check_machines", interrupt)
    with pytest.raises(SystemExit) as stop:
        run(digits, "digits_wilson")
    assert stop.value.code == 130
    assert "the same command resumes the work" in capsys.readouterr().err


def test_without_a_preset_the_presets_are_listed(capsys: pytest.CaptureFixture[str]):
    main([])
    shown = capsys.readouterr().out
    assert all(name in shown for name in PRESETS)
