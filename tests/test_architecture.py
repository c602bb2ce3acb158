"""Test the architecture: imports, the size and style of files, the places of tests and guides.

The import contracts are in pyproject.toml, and each one's name is the sentence that explains it.
import-linter sees `ray.train` and `ray.tune` as `ray`, so those are read from the syntax tree here.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("jobs", "orchestrator", "stepchain", "training")
TESTED = (*PACKAGES, "infra", "benchmarks")
# House style is 100 to 250 lines.
MAX_LINES = 300
MAX_CLAUSES = 2  # `for` and `if` of one comprehension
ADVICE = (
    "ARCHITECTURE.md says what belongs where. Move what is needed down to the package that may be "
    "imported, or pass it in; a contract in pyproject.toml changes only together with "
    "ARCHITECTURE.md. What import-linter found:\n"
)


def sources(*folders: str) -> list[Path]:
    """Return the Python files below some folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    """Return a file's path from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports: `from ray import tune` yields `ray.tune`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str, *folders: str) -> set[str]:
    """Return the files below `folders` that import `module` or something of it."""

    def imports(path: Path) -> bool:
        return any(f"{name}.".startswith(f"{module}.") for name in imported(path))

    return {relative(path) for path in sources(*folders) if imports(path)}


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
        (
            "ray.tune",
            {
                "orchestrator/cluster/ray_tune.py",
                "orchestrator/cluster/search_spaces.py",
                "orchestrator/cluster/tune_halving.py",
                "orchestrator/cluster/tune_searchers.py",
                "orchestrator/cluster/tune_seams.py",
            },
        ),
        (
            "mlflow",
            {
                "orchestrator/tracking/mlflow_client.py",
                "orchestrator/tracking/mlflow_database.py",
                "orchestrator/tracking/mlflow_entities.py",
            },
        ),
    ],
)
def test_each_library_with_a_protocol_is_known_to_few_files(module: str, allowed: set[str]):
    others = importers(module, *PACKAGES) - allowed
    assert not others, (
        f"only {allowed} may import {module}, so that its next version changes few files; "
        f"{others} import it too"
    )


def test_only_the_cluster_room_imports_ray():
    others = {
        path for path in importers("ray", *PACKAGES) if not path.startswith("orchestrator/cluster/")
    }
    assert not others, (
        f"{others} import Ray; hand orchestrator/cluster a function to run, so that the rest can "
        "be tested without a cluster"
    )


def job_name(path: Path) -> str | None:
    """Return the job that a file of jobs/ belongs to, None for what the jobs share.

    A job is a module or a package of jobs/ that can be run by `python -m`.
    """
    first = path.relative_to(ROOT / "jobs").parts[0].removesuffix(".py")
    module = ROOT / "jobs" / f"{first}.py"
    is_package = (ROOT / "jobs" / first / "__main__.py").exists()
    is_module = module.exists() and '__name__ == "__main__"' in module.read_text(encoding="utf-8")
    return first if is_package or is_module else None


def test_no_job_imports_another():
    jobs = {name for path in sources("jobs") if (name := job_name(path))}
    assert {"campaign", "doctor", "train"} <= jobs
    for path in sources("jobs"):
        others = {f"jobs.{name}" for name in jobs - {job_name(path)}}
        breach = others & {".".join(name.split(".")[:2]) for name in imported(path)}
        assert not breach, (
            f"{relative(path)} imports {breach}; what jobs share is in the support modules of "
            "jobs/, or in a room below"
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


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=relative)
def test_file_is_short_and_says_what_it_is_for(path: Path):
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_LINES, (
        f"{path.name} has {lines} lines; split it by what its parts know "
        "(house style: 100 to 250 lines)"
    )
    assert not text.strip() or ast.get_docstring(ast.parse(text)), (
        f"{path.name} needs a docstring that says what it is for"
    )


def literals(path: Path) -> Iterator[str]:
    """Yield the string literals of a file, and the literal beginnings of its f-strings."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_one_file_spells_the_keys_of_a_store():
    # "reports/" is left out, because jobs write their pages to a local folder of that name.
    folders = ("steps", "evaluations", "chains", "campaigns", "probes", "analyses", "datasets")
    prefixes = tuple(f"{folder}/" for folder in (*folders, "selections", "weights"))

    def spells_a_key(path: Path) -> bool:
        return any(text.startswith(prefixes) for text in literals(path))

    breach = {relative(path) for path in sources(*TESTED) if spells_a_key(path)}
    assert breach == {"orchestrator/records/layout.py"}, (
        "orchestrator/records/layout.py alone says where things lie in a store; "
        "add a function there"
    )


ROOMS = sorted(path.parent for path in (ROOT / "orchestrator").glob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_in_one_sentence_what_it_does(room: Path):
    docstring = ast.get_docstring(parse(room / "__init__.py")) or ""
    assert re.match(r"[A-Z][^.\n]*\.( |$)", docstring, re.MULTILINE), (
        f"{relative(room)}/__init__.py needs a docstring whose first line is a sentence"
    )


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def dense_comprehensions(path: Path) -> Iterator[int]:
    """Yield the lines of comprehensions that hold another, or too many clauses."""
    for node in ast.walk(parse(path)):
        if isinstance(node, COMPREHENSIONS):
            clauses = sum(1 + len(generator.ifs) for generator in node.generators)
            inner = [each for each in ast.walk(node) if isinstance(each, COMPREHENSIONS)]
            if clauses > MAX_CLAUSES or len(inner) > 1:
                yield node.lineno


def test_comprehensions_are_plain():
    dense = {}
    for path in sources(*TESTED, "tests"):
        # The program that wrote the store of version 0.1.0 stays as it was.
        if path.is_relative_to(ROOT / "tests" / "data"):
            continue
        if lines := [*dense_comprehensions(path)]:
            dense[relative(path)] = lines
    assert not dense, (
        f"comprehensions hold another one, or more than {MAX_CLAUSES} clauses, at {dense}; "
        "write a loop, or give the inner one a name or a function"
    )


UNIT = ROOT / "tests" / "unit"


@pytest.mark.parametrize("path", sorted(UNIT.rglob("test_*.py")), ids=relative)
def test_unit_tests_mirror_the_tree(path: Path):
    """The test of a package stands beside the folder of that package's own tests."""
    place = path.relative_to(UNIT).parent / path.stem.removeprefix("test_")
    assert (ROOT / f"{place}.py").exists() or (ROOT / place / "__init__.py").exists(), (
        f"there is no {place}.py that {relative(path)} could be the test of; what several modules "
        "do together is tested in tests/functional"
    )


def linked(path: Path) -> Iterator[Path]:
    """Yield the files of the repository that a guide links to."""
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            yield (path.parent / target).resolve()


def test_every_guide_can_be_reached_from_the_readme():
    reached = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        assert path.exists(), f"a guide links to {path}, which does not exist"
        if path.is_dir():
            waiting += path.glob("*.md")
        elif path.suffix == ".md" and path not in reached:
            reached.add(path)
            waiting += linked(path)
    missing = [relative(path) for path in (ROOT / "docs").rglob("*.md") if path not in reached]
    assert not missing, f"no guide that the README leads to links to {missing}"
