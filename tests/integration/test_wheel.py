"""The wheel holds what a person installs and nothing else, and its command works elsewhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PACKAGES = ("jobs", "orchestrator", "stepchain", "training")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the files that git tracks, so that no build folder is left."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES, "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.splitlines():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*command, *options, str(folder / "source")], check=True)
    (built,) = folder.glob("stepchain-*.whl")
    return built


def test_it_holds_the_packages_and_their_data(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert folders == set(PACKAGES)
    expected = {f"{package}/py.typed" for package in PACKAGES}
    expected |= {
        "orchestrator/planning/paper_numbers.csv",
        "jobs/campaigns/digits_wilson_alpha.py",
    }
    for path in (ROOT / "orchestrator" / "report" / "templates").iterdir():
        expected.add(path.relative_to(ROOT).as_posix())
    assert expected <= names


def test_its_command_works_from_another_folder(wheel: Path, tmp_path: Path):
    """The other packages come from this environment, because installing them takes minutes."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["STEPCHAIN_CACHE"] = str(tmp_path / "cache")

    def run(program: str, *arguments: str) -> str:
        """Run a program of the environment in another folder, and return what it printed."""
        done = subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import jobs, stepchain; print(jobs.__file__, stepchain.__file__)"
    assert run("python", "-c", where).count(str(environment)) == 2
    assert "reports/demo" in run("stepchain", "demo", "--help")
    assert "--parquet" in run("stepchain", "report", "--help")
    run("stepchain", "ingest", "digits", "--train", "80", "--val", "4")
    shown = run("stepchain", "campaign", "plan", "digits_wilson_alpha")
    assert "25 chains, 30 different steps" in " ".join(shown.split())
