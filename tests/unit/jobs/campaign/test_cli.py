"""The campaign command: plans that cost nothing, chosen chains, exit codes, mistakes."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from safetensors.torch import save_file

import jobs.campaign.run
import jobs.report
import orchestrator.planning.planner
import orchestrator.planning.resolver
from jobs.campaign.cli import main
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.outcome import CampaignOutcome, ChainOutcome
from orchestrator.datasets import pretrained
from orchestrator.datasets.catalog import publish
from orchestrator.planning.campaign_record import find_campaign
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from orchestrator.store.folder import FolderStore
from orchestrator.store.open import open_store
from stepchain.presets import digits_wilson
from tests.support.datasets import build_dataset
from training.data.digits import Digits
from training.models.backbones import build_encoder

HEADER = '''"""Does harder pseudo-supervision help?"""
from stepchain.presets import digits_wilson
from orchestrator.planning.campaign import sweep
'''
SWEEP = (
    HEADER
    + 'def chains():\n    axes = {"method.alpha": (0, 0.5, 1), "seed": (1, 2)}\n'
    + "    return sweep(digits_wilson(), axes)\n"
)


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


@pytest.fixture
def campaign(digits: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a verb on a campaign with this text. No Ray is there for it."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    monkeypatch.setattr("jobs.campaign.run.check_machines", lambda *_, **options: None)

    def call(verb: str, *arguments: str, text: str = SWEEP) -> None:
        file = tmp_path / "question.py"
        file.write_text(text)
        main([verb, str(file), *arguments, "--store", digits.uri])

    return call


def plan_of(
    campaign: Callable[..., None], capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    campaign("plan", "--json", *arguments)
    return json.loads(capsys.readouterr().out)


def test_a_plan_for_machines(campaign: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    plan = plan_of(campaign, capsys)
    assert (plan["unique_steps"], plan["naive_steps"], plan["published_steps"]) == (8, 12, 0)
    assert plan["gpu_hours"] is plan["naive_gpu_hours"] is plan["critical_path_hours"] is None
    assert 0.6 < plan["memory_gigabytes"] < 0.8
    assert [step["state"] for step in plan["steps"]].count("to train") == 2
    base, weak = plan["steps"][:2]
    assert (base["parent"], weak["parent"], len(base["chains"])) == (None, base["key"], 3)
    assert weak["chains"] == ["digits_wilson alpha=0 seed=1"]
    assert plan["images"] == 2 * base["images"] + 6 * weak["images"]
    guessed = plan_of(campaign, capsys, "--images-per-second", "10")
    assert guessed["gpu_hours"] == pytest.approx(plan["images"] / 36000)
    assert guessed["naive_gpu_hours"] == pytest.approx(plan["naive_images"] / 36000)
    assert guessed["critical_path_hours"] == pytest.approx(
        (base["images"] + weak["images"]) / 36000
    )


def test_a_plan_for_people(campaign: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    campaign("plan")
    shown = " ".join(capsys.readouterr().out.split())
    assert "question Does harder pseudo-supervision help?" in shown
    assert shown.count("step 0 (fine-tuning: 0, 1, 2, 3, ...)") == 2
    assert shown.count("step 1 (wilson: 6, 7, 8, 9)") == 6
    assert (
        "6 chains, 8 different steps (2 to train, 6 waiting); "
        "trained one by one, the chains would take 12" in shown
    )
    assert "give a guess with --images-per-second" in shown
    campaign("run", "--dry-run", "--images-per-second", "10")
    assert "GPU-hours to go" in capsys.readouterr().out
    campaign("plan", "--compile")
    shown = " ".join(capsys.readouterr().out.split())
    assert "memory: about 0.6 GB a worker (step 1, wilson)" in shown
    assert "pays off in steps that train longer than 4 to 6 minutes without it" in shown


def test_a_step_whose_files_are_gone_is_refused_before_anything_starts(
    campaign: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    gone = StoredStep(StepState.TO_TRAIN, problem="step k is published, and its file is gone")
    monkeypatch.setattr(
        "orchestrator.planning.campaign_plan.look_up_steps",
        lambda tree, store, **_: dict.fromkeys(tree.nodes, gone),
    )
    with pytest.raises(SystemExit) as end:
        campaign("run")
    assert end.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "step k is published, and its file is gone; 7 more steps are like that" in said


@pytest.mark.parametrize(
    ("arguments", "steps", "names"),
    [
        ("--only alpha=0.5", 4, {"alpha=0.5 seed=1", "alpha=0.5 seed=2"}),
        (
            "--only alpha=0.5 --only *0?seed=1",
            5,
            {"alpha=0.5 seed=1", "alpha=0.5 seed=2", "alpha=0 seed=1"},
        ),
        (
            "--until-step 0 --only seed=1",
            1,
            {"alpha=0 seed=1", "alpha=0.5 seed=1", "alpha=1 seed=1"},
        ),
        (
            "--until-step 7 --only *1",
            6,
            {"alpha=0 seed=1", "alpha=0.5 seed=1", "alpha=1 seed=1", "alpha=1 seed=2"},
        ),
    ],
)
def test_parts_of_a_campaign(
    campaign: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    steps: int,
    names: set[str],
):
    plan = plan_of(campaign, capsys, *arguments.split())
    assert plan["unique_steps"] == steps
    asked = {
        name.removeprefix("digits_wilson ") for step in plan["steps"] for name in step["chains"]
    }
    assert asked == names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "import nothing_of_that_name\n",
            ", line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        ("x = 1\ndef chains(:\n", ", line 2: SyntaxError"),
        ("x = 1\n", ": it has no function chains()"),
        (
            HEADER + "def chains():\n    return 1\n",
            "must return a sequence of chains; it returned a int",
        ),
        (HEADER + "def chains():\n    return [digits_wilson(), 'wilson']\n", "with 'wilson'"),
        (
            HEADER + "def chains():\n    return [1 / 0]\n",
            ", line 5: ZeroDivisionError: division by zero",
        ),
        (HEADER + "def chains():\n    return []\n", "has no chains"),
        (
            HEADER + "def chains():\n    return [digits_wilson()] * 2\n",
            "two chains of campaign 'question' are called",
        ),
        (
            HEADER + 'def chains():\n\n    return sweep(digits_wilson(), {"metho.alpha": [1]})\n',
            ", line 6: there is no field",
        ),
        (
            HEADER + "def chains():\n    return [digits_wilson().__class__(name='a')]\n",
            ", line 5: scenario: Field required",
        ),
        (
            SWEEP.replace("0, 0.5, 1", "0, 7"),
            "method.alpha cannot be 7: Input should be less than or equal to 1",
        ),
        (
            SWEEP.replace('"method.alpha": (0, 0.5, 1)', '"scenario.dataset": ["digts"]'),
            "did you mean 'digits'?",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(
    campaign: Callable[..., None], capsys: pytest.CaptureFixture[str], text: str, shown: str
):
    with pytest.raises(SystemExit) as stop:
        campaign("plan", text=text)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert shown in err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (
            ["--only", "alpha=0.7"],
            "--only 'alpha=0.7' matches no chain of 'question', whose chains are called",
        ),
        (["--until-step", "-1"], "--until-step counts from step 0"),
        (["--workers", "3"], "3 workers cannot share a batch of 16"),
        (["--retries", "-1"], "--retries must be at least 0"),
        (["--max-concurrent", "0"], "--max-concurrent must be at least 1"),
        (["--stop-behind", "nan"], "--stop-behind must be at least 0, and nan is not"),
        (["--max-gpu-hours", "nan"], "--max-gpu-hours must be at least 0, and nan is not"),
        (["--max-gpu-hours", "inf"], "--max-gpu-hours must be at most 1e+09, and inf is not"),
        (["--lease-seconds", "0"], "--lease-seconds must be at least 1, and 0 is not"),
        (["--lease-seconds", "-1"], "--lease-seconds must be at least 1, and -1 is not"),
        (["--images-per-second", "0"], "--images-per-second must be at least 0.001, and 0 is not"),
        (["--encoder-weights", "nowhere.pth"], "no file of weights at nowhere.pth"),
        (["--max-gpuhours", "3"], "--max-gpu-hours"),
    ],
)
def test_mistakes_end_before_anything_is_spent(
    campaign: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    shown: str,
):
    with pytest.raises(SystemExit) as stop:
        campaign("run", *arguments)
    assert stop.value.code == 2
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize("hours", ["nan", "-1", "1e9"])
def test_a_grace_period_that_is_none_deletes_nothing(
    digits: Store, capsys: pytest.CaptureFixture[str], hours: str
):
    before = list(digits.list())
    with pytest.raises(SystemExit) as stop:
        main(["prune", "--delete", "--grace-hours", hours, "--store", digits.uri])
    assert stop.value.code == 2
    assert "error: --grace-hours must be at " in capsys.readouterr().err
    assert list(digits.list()) == before


def test_a_speed_of_nothing_is_refused_by_a_plan(
    campaign: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        campaign("plan", "--images-per-second", "0")
    assert stop.value.code == 2
    assert "error: --images-per-second must be at least 0.001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "code"), [("published", None), ("reused", None), ("failed", 1), ("not run", 1)]
)
def test_the_exit_code_tells_whether_all_is_published(
    campaign: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: Any,
    code: int | None,
):
    asked: list[Limits] = []

    def made_up(
        name: str, tree: Any, stored: Any, context: Any, costs: Any, limits: Limits, growth: None
    ) -> CampaignOutcome:
        asked.append(limits)
        return CampaignOutcome(
            {}, (ChainOutcome("one", StepState(state), "for a reason"),), (), 1.5, 60
        )

    monkeypatch.setattr(jobs.campaign.run, "run_campaign", made_up)
    arguments = ("--no-tracking", "--max-gpu-hours", "2", "--stop-behind", "5")
    if code is None:
        campaign("run", *arguments)
    else:
        with pytest.raises(SystemExit) as stop:
            campaign("run", *arguments)
        assert stop.value.code == code
        assert "for a reason" in capsys.readouterr().out
    assert asked == [Limits(max_gpu_hours=2, max_concurrent=None, retries=1, stop_behind=0.05)]


HARDNESS = (
    HEADER.replace(
        "orchestrator.planning.campaign import sweep", "stepchain import sweep, with_field"
    )
    + """
def chains():
    start = with_field(digits_wilson(), "name", "hardness")
    axes = {"method.prior": ("bce", "fixed"), "method.alpha": (0, 0.5, 1), "seed": (1, 2)}
    return sweep(start, axes)
"""
)


def test_mlflow_shows_a_campaign_that_was_run(
    finished_campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    monkeypatch.setattr("jobs.campaign.run.check_machines", lambda *_, **options: None)
    shutil.copytree(finished_campaign[1].local_path("steps").parent, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "campaigns")
    (tmp_path / "hardness.py").write_text(HARDNESS)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    main(
        [
            "run",
            str(tmp_path / "hardness.py"),
            "--store",
            str(tmp_path / "store"),
            "--tracking-uri",
            uri,
        ]
    )

    client = MlflowClient(uri)
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    (run,) = client.search_runs([experiments["campaigns"]])
    assert (run.info.run_name, run.info.status) == ("hardness", "FINISHED")
    assert "report.html" in [artifact.path for artifact in client.list_artifacts(run.info.run_id)]
    chains = client.search_runs(
        [experiments["digits 6-4 overlap"]], "tags.`stepchain.campaign.hardness` = 'yes'"
    )
    assert len(chains) == 12
    record = find_campaign(open_store(str(tmp_path / "store")), "hardness")
    assert record is not None
    assert len(record.chains) == 12


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (RuntimeError("unexpected"), "FAILED"),
        (StoreError("the store does not answer"), "FAILED"),
        (None, "FAILED"),
    ],
)
def test_mlflow_shows_how_a_campaign_ended_that_was_not_finished(
    digits: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: BaseException | None,
    status: str,
):
    seen: list[str] = []
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    file = tmp_path / "unfinished.py"

    def made_up(*_: Any, growth: None) -> CampaignOutcome:
        while not (tmp_path / "mlflow.db").exists():
            time.sleep(0.05)
        while not (found := MlflowClient(uri).get_experiment_by_name("campaigns")):
            time.sleep(0.05)
        seen.extend(run.info.status for run in MlflowClient(uri).search_runs([found.experiment_id]))
        if ending:
            raise ending
        return CampaignOutcome(
            {}, (ChainOutcome("one", StepState.FAILED, "for a reason"),), (), 1.5, 60
        )

    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jobs.campaign.run, "run_campaign", made_up)
    file.write_text(SWEEP)
    with pytest.raises((SystemExit, RuntimeError)):
        main(["run", str(file), "--store", digits.uri, "--tracking-uri", uri])
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("campaigns").experiment_id])  # pyright: ignore[reportOptionalMemberAccess]
    assert run.info.status == status
    assert set(seen) <= {"RUNNING"}


@pytest.fixture
def encoder_weights(tmp_path: Path) -> str:
    """Return the path of pretrained weights that fit the encoder of the campaign."""
    encoder = build_encoder(digits_wilson().model)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    return str(tmp_path / "encoder.safetensors")


def objects(store: Store) -> list[str]:
    return sorted(store.list(""))


@pytest.mark.parametrize("verb", ["plan", "run --dry-run", "status", "table"])
def test_a_plan_with_encoder_weights_writes_nothing(
    campaign: Callable[..., None], digits: Store, encoder_weights: str, verb: str
):
    before = objects(digits)
    campaign(*verb.split(), "--encoder-weights", encoder_weights)
    assert objects(digits) == before


def test_a_report_of_a_campaign_that_was_not_run_writes_nothing(
    digits: Store, encoder_weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "question.py").write_text(SWEEP)
    before = objects(digits)
    arguments = ["--campaign", str(tmp_path / "question.py"), "--store", digits.uri, "--json"]
    out = ["--out", str(tmp_path / "out"), "--encoder-weights", encoder_weights]
    jobs.report.main([*arguments, *out])
    assert objects(digits) == before


def test_a_run_plans_once_and_handles_its_weights_once(
    campaign: Callable[..., None],
    digits: Store,
    encoder_weights: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(pretrained, "fetch_file")
    count(pretrained, "file_sha256")
    count(orchestrator.planning.planner.Planner, "plan")
    count(FolderStore, "upload")
    plans: list[Any] = []

    def made_up(name: str, tree: StepTree, *_: Any, growth: None) -> CampaignOutcome:
        plans.append(tree)
        return CampaignOutcome({}, (), (), 0, 0)

    monkeypatch.setattr(jobs.campaign.run, "run_campaign", made_up)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    campaign("run", "--encoder-weights", encoder_weights, "--tracking-uri", uri)
    (weights,) = {plan.chain.model.weights for plan in plans[0].chains}
    assert digits.exists(layout.encoder_weights(weights))
    assert calls == {"fetch_file": 1, "file_sha256": 1, "upload": 1, "plan": 6}


def test_status_and_table_of_what_is_not_begun(
    campaign: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    campaign("status")
    assert "2 to train, 6 waiting" in capsys.readouterr().out
    campaign("table", "--format", "csv")
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "0/2" in line]) == 3


def test_pruning_an_empty_store_finds_nothing(digits: Store, capsys: pytest.CaptureFixture[str]):
    main(["prune", "--store", digits.uri])
    assert "0 folders" in capsys.readouterr().out


def test_a_plan_says_why_a_step_is_not_there_and_what_is_damaged(
    finished_campaign,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(finished_campaign[1].local_path("steps").parent, tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "hardness.py").write_text(HARDNESS.replace("(1, 2)", "(1, 2, 3)"))
    arguments = ["plan", str(tmp_path / "hardness.py"), "--store", store.uri, "--why", "--verify"]
    main([*arguments, "--only", "prior=bce"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "nearest is" in shown
    assert "2026-01-02 by ada@node: seed 3 (there " in shown
    assert ": each is what its record names" in shown

    record = next(name for name in store.list("steps/") if layout.is_step_record(name))
    curves = next(name for name in store.list(record.removesuffix("record.json") + "attempts/"))
    store.write(curves, store.read(curves).replace(b"10", b"11"))
    before = objects(store)
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--json"])
    assert stop.value.code == 1
    plan = json.loads(capsys.readouterr().out)
    (problem,) = plan["verification"]["problems"]
    assert problem.startswith(f"{curves} is damaged")
    waiting = [step for step in plan["steps"] if step["state"] != "published"]
    assert {each["field"] for each in waiting[0]["nearest"]["differences"]} == {"seed"}
    assert all("nearest" not in step for step in plan["steps"] if step["state"] == "published")
    assert objects(store) == before


def test_what_kinds_of_work_are_given_is_in_the_file_and_in_options_and_in_no_key(
    campaign: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    keys = [step["key"] for step in plan_of(campaign, capsys)["steps"]]
    given = ["--images-per-second", "1000", "--json"]
    text = SWEEP + 'RESOURCES = {"base": {"workers": 2, "gpus": 1}, "increment": {"gpus": 0.5}}\n'
    campaign("plan", *given, text=text)
    plan = json.loads(capsys.readouterr().out)
    assert [step["key"] for step in plan["steps"]] == keys
    base, weak = plan["steps"][:2]
    assert base["gpu_hours"] == pytest.approx(base["images"] / 1000 / 3600)
    assert weak["gpu_hours"] == pytest.approx(0.5 * weak["images"] / 1000 / 3600)
    campaign("plan", *given, "--give", "increment:gpus=0.25", "base:gpus=1", text=text)
    later = json.loads(capsys.readouterr().out)["steps"][1]["gpu_hours"]
    assert later == pytest.approx(weak["gpu_hours"] / 2)
    campaign("plan", "--give", "increment:gpus=0.25", text=text)
    shown = " ".join(capsys.readouterr().out.split())
    assert "a worker (step 0, fine-tuning)" in shown
    assert "a worker (step 1, wilson); at 0.25 of a GPU each, the GPU must have" in shown
    with pytest.raises(SystemExit) as stop:
        campaign("plan", "--give", "base:workers=3", text=text)
    assert stop.value.code == 2
    assert "3 workers cannot share a batch of 16" in capsys.readouterr().err
