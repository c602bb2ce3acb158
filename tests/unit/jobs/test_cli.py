"""The command `stepchain` runs each job by its verb, and every job answers quickly."""

import subprocess
import sys
from contextlib import suppress

import pytest

from jobs import cli
from tests.support.paths import ROOT

HEAVY = {"ray", "mlflow", "torch"}


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_shows_its_options(verb: str, capsys: pytest.CaptureFixture[str]):
    with suppress(SystemExit):
        cli.main([verb, "--help"])
    assert "python -m jobs" in capsys.readouterr().out


def test_without_a_verb_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]):
    cli.main([])
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in cli.VERBS)


def test_an_unknown_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["reprot"])
    assert stop.value.code == 2
    assert "did you mean 'report'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "--help"],
        ["campaign", "--help"],
        ["ingest", "--help"],
        ["evaluate", "--help"],
        ["analyze", "--help"],
        ["demo", "--help"],
        ["doctor", "--help"],
        ["ingest", "ls", "--store", "absent"],
        ["campaign", "prune", "--store", "absent"],
    ],
    ids=" ".join,
)
def test_what_needs_no_cluster_and_no_model_imports_neither(arguments: list[str]):
    code = (
        "import sys\nfrom jobs.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('imported:', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].strip() == "imported:"
