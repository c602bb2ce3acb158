"""The public face: complete, light to import, and documented with examples that run."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stepchain
from infra.docs.api import PAGE, SECTIONS, api_page
from orchestrator.store.open import open_store
from tests.support.models import publish_model
from tests.support.paths import ROOT
from tests.support.records import publish_chain

CAMPAIGNS = sorted((ROOT / "jobs" / "campaigns").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", stepchain.__all__)
def test_every_public_name_is_what_type_checkers_see(name: str):
    """The lazy import and the import under TYPE_CHECKING give the same object."""
    value = getattr(stepchain, name)
    module, original = typed_names()[name]
    assert getattr(sys.modules[module], original) is value


def typed_names() -> dict[str, tuple[str, str]]:
    """Return module and name of everything that is imported under TYPE_CHECKING."""
    found = {}
    for node in ast.walk(ast.parse(Path(stepchain.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return found


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Chian'"):
        getattr(stepchain, "Chian")  # noqa: B009 - a type checker would refuse the plain form


def test_the_version_is_that_of_the_package():
    (line,) = [
        line for line in (ROOT / "pyproject.toml").read_text().splitlines() if "version = " in line
    ][:1]
    assert f'"{stepchain.__version__}"' in line


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import stepchain", {"ray", "mlflow", "torch", "numpy", "pydantic"}),
        ("from stepchain import Chain, sweep, open_store", {"ray", "mlflow", "torch"}),
        ("from stepchain import find_chain, find_step", {"ray", "mlflow", "torch"}),
        ("from stepchain import predict, digits_wilson", {"ray", "mlflow"}),
    ],
)
def test_imports_are_light(code: str, absent: set[str]):
    shown = f"{code}\nimport sys\nprint(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "", f"`{code}` imports {done.stdout}"


@pytest.mark.parametrize("path", CAMPAIGNS, ids=lambda path: path.stem)
def test_the_campaigns_we_ship_import_the_public_face_only(path: Path):
    """They may also import another campaign's constants, and the standard library."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    others = {name for name in modules if not name.startswith("jobs.campaigns.")}
    assert others - set(sys.stdlib_module_names) <= {"stepchain"}


def test_the_documentation_is_up_to_date():
    names = {name for group in SECTIONS.values() for name in group}
    assert names == set(stepchain.__all__)
    assert PAGE.read_text(encoding="utf-8") == api_page(), "run `python -m infra.docs.api`"


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All of docs/api.md that a person can type, in a folder with a made-up store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = open_store("stepchain-store")
    for key in publish_chain(store, "digits_wilson").steps:
        publish_model(store, key)
    parser = doctest.DocTestParser()
    page = re.sub(r"^```.*$", "", api_page(), flags=re.MULTILINE)
    test = parser.get_doctest(page, {}, "api.md", str(PAGE), 0)
    assert len(test.examples) >= 10
    runner = doctest.DocTestRunner(verbose=False)
    shown: list[str] = []
    runner.run(test, out=shown.append)
    assert not shown, "".join(shown)


def test_what_is_public_is_documented():
    for name in stepchain.__all__:
        value = getattr(stepchain, name)
        if callable(value):
            assert inspect.getdoc(value), f"{name} has no docstring"
