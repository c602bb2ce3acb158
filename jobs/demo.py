"""A first result in minutes, on a laptop and without a download: `make demo`, or `python -m jobs.demo`.

Scenes of handwritten digits: 0-5 are learned with masks, then 6-9 three ways: by WILSON from image labels alone, and by
fine-tuning and MiB from masks. Each is a chain like any other, so a second run finds every step published.
"""

import time
from pathlib import Path

import tyro
from rich.console import Console

from jobs.errors import user_errors
from jobs.ingest import ingest
from jobs.report import print_tables
from orchestrator.cluster.resources import Request
from orchestrator.datasets.catalog import known
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.planning.planner import plan_chain
from orchestrator.report.chain_page import build_report, write_report
from orchestrator.report.predictions import published_pictures
from orchestrator.store.base import check_writable
from orchestrator.store.open import DEFAULT_STORE, open_store
from orchestrator.tracking.tracker import store_tracker
from stepchain.presets import digits_finetuning, digits_mib, digits_wilson
from training.data.digits import Digits
from training.metrics import wilson


@user_errors()
def demo(store: str = DEFAULT_STORE, out: Path = Path("reports/demo")) -> None:
    """Train three methods on digits, print their table, write a report.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        out: Folder for the report.
    """
    begun, console = time.monotonic(), Console(highlight=False, markup=False, soft_wrap=True)
    place = open_store(store)
    check_writable(place)
    if "digits" not in known(place):
        ingest(Digits(), place, "digits", "error", console)
    plans = [
        plan_chain(chain, place) for chain in (digits_wilson(), digits_finetuning(), digits_mib())
    ]
    request = Request(cpus_per_worker=1)  # threads do not help a network this small
    with store_tracker(place) as tracker:
        results = [
            ensure_chain(plan, RunContext(place, request, console, tracker)) for plan in plans
        ]
    page = write_report(build_report(results, wilson(), published_pictures(place, results)), out)
    print_tables(results, wilson(), console)
    console.print(
        f"{time.monotonic() - begun:.0f} s in all", f"report  {page}", "MLflow  make ui", sep="\n"
    )


if __name__ == "__main__":
    tyro.cli(demo, prog="python -m jobs.demo", description=__doc__)
