"""Test the architecture: which package may import what, and how long a file may be.

The import contracts stand in pyproject.toml; each one's name is the sentence that explains it.
import-linter sees `ray.train` and `ray.tune` as `ray`, so these are read from the syntax tree here.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("jobs", "orchestrator", "stepchain", "training")
LONGEST = 300  # lines; house style is 100 to 250
ADVICE = (
    "ARCHITECTURE.md says what belongs where. Move what is needed down to the package that may be "
    "imported, or pass it in; a contract in pyproject.toml changes only together with "
    "ARCHITECTURE.md. What import-linter found:\n"
)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Give the dotted names that a file imports: `from ray import tune` gives `ray.tune`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str, *folders: str) -> set[str]:
    """Files below `folders` that import `module` or something of it."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in sources(*folders)
        if any(f"{name}.".startswith(f"{module}.") for name in imported(path))
    }


def test_import_contracts_are_kept():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode:
        broken = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
        pytest.fail("\n".join([*broken, ADVICE, result.stdout, result.stderr]), pytrace=False)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("ray.train", {"orchestrator/cluster/ray_train.py"}),
        ("ray.tune", {"orchestrator/cluster/ray_tune.py"}),
    ],
)
def test_each_of_rays_libraries_is_known_to_one_file(module: str, allowed: set[str]):
    others = importers(module, *PACKAGES) - allowed
    assert not others, (
        f"only {allowed} may import {module}, so that its next version changes one file; "
        f"{others} import it too"
    )


def test_nothing_imports_torchvision():
    breach = importers("torchvision", *PACKAGES, "benchmarks", "tests")
    assert not breach, (
        f"torchvision's wheels do not import beside torch's CPU build; {breach} must do without it"
    )


def test_packages_are_typed():
    missing = [name for name in PACKAGES if not (ROOT / name / "py.typed").exists()]
    assert not missing, (
        f"{missing} have no py.typed, so their users' type checkers see nothing of them"
    )


@pytest.mark.parametrize(
    "path", sources(*PACKAGES), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_file_is_short_and_says_what_it_is_for(path: Path):
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= LONGEST, (
        f"{path.name} has {lines} lines; split it by what its parts know "
        "(house style: 100 to 250 lines)"
    )
    assert not text.strip() or ast.get_docstring(ast.parse(text)), (
        f"{path.name} needs a docstring that says what it is for"
    )


def literals(path: Path) -> Iterator[str]:
    """The string literals of a file, and the literal beginnings of its f-strings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_one_file_spells_the_keys_of_a_store():
    # "reports/" is left out, because jobs write their pages to a local folder of that name.
    folders = ("steps", "evaluations", "chains", "campaigns", "probes", "analyses", "datasets")
    prefixes = tuple(f"{folder}/" for folder in (*folders, "selections", "weights"))
    breach = {
        path.relative_to(ROOT).as_posix()
        for path in sources(*PACKAGES, "infra", "benchmarks")
        if any(text.startswith(prefixes) for text in literals(path))
    }
    assert breach == {"orchestrator/records/layout.py"}, (
        "orchestrator/records/layout.py alone says where things lie in a store; "
        "add a function there"
    )


@pytest.mark.parametrize(
    "module",
    [
        "orchestrator.campaigns.status",
        "orchestrator.planning.campaign",
        "orchestrator.planning.planner",
        "orchestrator.records.prune",
        "orchestrator.records.schema",
        "training.data.shards",
        "training.scenario",
    ],
)
def test_what_reads_documents_does_not_import_torch(module: str):
    """A method's document is the exception: reading one imports the method's module."""
    heavy = {"PIL", "cv2", "mlflow", "ray", "scipy", "torch"}
    program = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [], f"{module} imports these"
