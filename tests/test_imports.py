"""Test that what only reads records starts without the heavy libraries."""

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

# Modules that read records and print numbers.
LIGHT = (
    "orchestrator.report.chain_tables",
    "orchestrator.report.campaign_tables",
    "orchestrator.report.render",
    "orchestrator.report.scores_parquet",
    "orchestrator.campaigns.status",
    "orchestrator.planning.store_state",
    "orchestrator.records.prune",
)
# Modules that also draw pages. They need matplotlib, but nothing that trains.
PAGES = (
    "orchestrator.report.chain_page",
    "orchestrator.report.campaign_page",
    "orchestrator.report.predictions",
)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (LIGHT, ("ray", "mlflow", "torch", "matplotlib", "jinja2")),
        (PAGES, ("ray", "mlflow", "torch")),
    ],
    ids=["tables", "pages"],
)
def test_readers_start_without_heavy_libraries(modules: tuple, heavy: tuple) -> None:
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(heavy) & set(json.loads(result.stdout))


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
