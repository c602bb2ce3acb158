"""Train a first result in minutes, without a download: `make demo` or `python -m jobs.demo`.

Images are scenes of handwritten digits. Digits 0-5 are learned with masks, then 6-9 in three ways:
by WILSON from image labels alone, and by fine-tuning and MiB from masks. These chains are chains
like any other, so a second run finds every step published.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from jobs.console import open_console
from jobs.errors import user_errors
from jobs.options import AtStore
from jobs.places import checked_folder
from orchestrator.store.base import Store


def demo(at: AtStore, out: Path = Path("reports/demo")) -> None:
    """Train three methods on digits, print their table, write a report.

    Args:
        out: Folder for the report.
    """
    from jobs.tables import print_chains
    from orchestrator.records.store_version import prepare_store
    from orchestrator.report.chain_page import build_report, write_report
    from orchestrator.report.predictions import published_pictures
    from training.metrics import wilson

    begun = time.monotonic()
    out = checked_folder(out)
    console = open_console()
    store = at.open()
    prepare_store(store)
    results = _train(store, console)
    pictures = published_pictures(store, results)
    page = write_report(build_report(results, wilson(), pictures), out)
    print_chains(results, wilson(), console)
    console.print(f"{time.monotonic() - begun:.0f} s in all")
    console.print(f"report  {page}")
    console.print("MLflow  make ui")


def _train(store: Store, console: Console) -> list:
    """Train the three chains; the first time, also make the scenes."""
    from jobs.digits_saliency import store_saliency
    from jobs.store_dataset import IngestRequest, store_dataset
    from orchestrator.cluster.connection import connect
    from orchestrator.cluster.resources import Request
    from orchestrator.datasets.catalog import known
    from orchestrator.execution.context import RunContext
    from orchestrator.execution.ensure import ensure_chain
    from orchestrator.planning.planner import plan_chain
    from orchestrator.tracking.tracker import open_tracker
    from stepchain.presets import digits_finetuning, digits_mib, digits_wilson
    from training.data.digits import Digits

    if "digits" not in known(store):
        connect()  # a cluster that does not answer is named before anything is made
        scenes = Digits()
        store_dataset(IngestRequest(scenes, store, "digits", console))
        store_saliency(store, "digits", scenes)
    chains = (digits_wilson(), digits_finetuning(), digits_mib())
    plans = [plan_chain(chain, store) for chain in chains]
    # More threads do not help a network this small.
    request = Request(cpus_per_worker=1)
    with open_tracker(store) as tracker:
        context = RunContext(store, request, console, tracker)
        return [ensure_chain(plan, context) for plan in plans]


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(demo, prog="python -m jobs.demo", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
