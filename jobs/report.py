"""Show what is published: `python -m jobs.report CHAIN [CHAIN ...]`, or `--campaign NAME`.

Chains are shown side by side, a campaign variant by variant: as tables on the terminal, and as a
page (report.html), Markdown, LaTeX, CSV and Parquet with the same numbers. `--parquet` writes every
score of every step as one table for pandas, of all published chains if none is named.
`--sync-mlflow` brings MLflow, even an empty one, into line with the records, and ends runs that no
job works on. A report trains nothing.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jobs.errors import user_errors
from jobs.options import ChainOptions
from jobs.places import checked_folder
from training.config import InputError
from training.metrics import CONVENTIONS, Convention, ConventionName

if TYPE_CHECKING:
    from orchestrator.records.repository import Repository
    from orchestrator.records.results import ChainResult
    from orchestrator.report.campaign_results import CampaignResult
    from orchestrator.store.base import Store

Flag = tyro.conf.FlagCreatePairsOff
Shown = dict[str, Any]  # what a report printed or wrote, as --json prints it


def report(
    chains: tyro.conf.Positional[tuple[str, ...]],
    options: Annotated[ChainOptions, tyro.conf.arg(name="")],
    out: Path = Path("reports"),
    convention: ConventionName = "wilson",
    campaign: str | None = None,
    parquet: Annotated[bool, Flag] = False,
    sync_mlflow: Annotated[bool, Flag] = False,
    tracking_uri: str | None = None,
    pictures: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), Flag] = False,
) -> None:
    """Show what is published.

    Args:
        chains: Names of chains (the latest of each name), or beginnings of their keys.
        out: Folder to write to.
        convention: The paper whose way of counting void, future classes and background is used.
        campaign: Show this campaign: its name or key, or the path of its file.
        parquet: Only write scores.parquet, the long table of all scores.
        sync_mlflow: Only bring MLflow into line with the records.
        tracking_uri: MLflow's address; by default $MLFLOW_TRACKING_URI or a database file in the
            store.
        pictures: Predict a few images with each step's model to show them.
        as_json: Print one JSON document and nothing else.
    """
    if sum((bool(chains), campaign is not None, sync_mlflow)) > 1:
        raise InputError(
            "name chains, or one --campaign, or --sync-mlflow: each is shown by itself"
        )
    if not sync_mlflow:
        out = checked_folder(out)
    store = options.open_existing()
    counting = CONVENTIONS[convention]
    if sync_mlflow:
        shown = _rebuild_mlflow(store, counting, tracking_uri)
    elif campaign is not None:
        result = _load_campaign(campaign, store, options, counting)
        show = _write_campaign_parquet if parquet else _show_campaign
        shown = show(result, out, as_json)
    elif parquet:
        shown = _write_parquet(_load_alone(store, chains), counting, out)
    elif chains:
        shown = _show_chains(store, chains, counting, out, pictures, as_json)
    else:
        raise InputError(
            "name at least one chain, or a --campaign: `python -m jobs.report CHAIN --store URI`"
        )
    if as_json:
        print(json.dumps(shown, ensure_ascii=False, indent=1))
    elif "tables" not in shown:
        _print_summary(shown)


def _show_chains(
    store: "Store",
    names: Sequence[str],
    convention: Convention,
    out: Path,
    pictures: bool,
    quiet: bool,
) -> Shown:
    """Write the page of chains side by side; unless `quiet`, print their tables."""
    from jobs.console import open_console
    from jobs.tables import print_chains
    from orchestrator.records.repository import Repository
    from orchestrator.records.results import load_chains
    from orchestrator.report.chain_page import build_report, write_report
    from orchestrator.report.chain_tables import class_table, summary_table
    from orchestrator.report.render import to_json

    repository = Repository(store)
    records = [repository.chain_by_name(name) for name in dict.fromkeys(names)]
    results = load_chains(repository, records)
    shown = _pictures(store, results, pictures)
    again = tuple(_reproductions(repository, results))
    report = build_report(results, convention, shown, _dataset_page(store, results), again)
    page = write_report(report, out)
    if not quiet:
        console = open_console()
        print_chains(results, convention, console)
        console.print(f"report: {page}")
    tables = (class_table(results, convention), summary_table(results, convention))
    return {"tables": [to_json(table) for table in tables], "report": str(page)}


def _pictures(store: "Store", results: "Sequence[ChainResult]", wanted: bool) -> Sequence:
    """Return a few images with each step's predictions, which need PyTorch."""
    if not wanted:
        return ()
    from orchestrator.report.predictions import published_pictures

    return published_pictures(store, results)


def _reproductions(repository: "Repository", results: "Sequence[ChainResult]") -> Iterator[str]:
    """Yield what other attempts at the chains' steps found, a sentence each."""
    from orchestrator.records.reproduction import reproductions

    titles: dict[str, str] = {}
    for chain in results:
        for step in chain.steps:
            titles.setdefault(step.record.key, f"Step {step.record.index} of {chain.name}")
    for key, title in titles.items():
        for found in reproductions(repository, key):
            yield f"{title}: {found}"


def _dataset_page(store: "Store", results: "Sequence[ChainResult]") -> bytes | None:
    """Return the page of the chains' dataset, if `jobs.ingest look` has made one."""
    from orchestrator.records import layout
    from orchestrator.store.base import NotFound

    try:
        return store.read(layout.dataset_page(results[0].steps[-1].evaluation.data.manifest))
    except NotFound:
        return None


def _load_campaign(
    wanted: str, store: "Store", options: ChainOptions, convention: Convention
) -> "CampaignResult":
    """Return a campaign's results.

    A campaign that was run is read from its record. One that was not, or that is named by its path,
    is read from its file.
    """
    from jobs.open_campaign import open_campaign
    from orchestrator.planning.campaign_plan import plan_tree
    from orchestrator.planning.campaign_record import find_campaign
    from orchestrator.records.repository import Repository
    from orchestrator.report.campaign_results import load_campaign_results, recorded_results

    repository = Repository(store)
    record = None if wanted.endswith(".py") else find_campaign(store, wanted)
    if record is not None:
        return recorded_results(record, repository, convention)
    with open_campaign(wanted, options, store) as opened:
        tree = plan_tree(opened.campaign, opened.planner)
    return load_campaign_results(opened.campaign, tree, repository, convention)


def _show_campaign(result: "CampaignResult", out: Path, quiet: bool) -> Shown:
    """Write the page of a campaign; unless `quiet`, print its tables."""
    from jobs.console import open_console
    from jobs.tables import print_table
    from orchestrator.report.campaign_page import build_campaign_report, write_campaign_report
    from orchestrator.report.campaign_tables import paired
    from orchestrator.report.render import to_json

    built = build_campaign_report(result)
    page = write_campaign_report(built, out)
    if not quiet:
        console = open_console()
        for table in (built.scores, built.forgetting, built.breakdown):
            if table:
                print_table(paired(table), console)
        console.print(built.scores.caption)
        console.print(f"report: {page}")
    return {"tables": [to_json(table) for table in built.tables.values()], "report": str(page)}


def _write_campaign_parquet(result: "CampaignResult", out: Path, quiet: bool) -> Shown:
    """Write the scores of a campaign's published chains."""
    return _write_parquet([seed.chain for seed in result.published], result.convention, out)


def _write_parquet(results: "Sequence[ChainResult]", convention: Convention, out: Path) -> Shown:
    from orchestrator.report.scores_parquet import write_scores

    path = write_scores(results, convention, out / "scores.parquet")
    return {"chains": len(results), "parquet": str(path)}


def _load_alone(store: "Store", names: Sequence[str]) -> "list[ChainResult]":
    """Return the chains named, or all; they need not have been scored alike."""
    from orchestrator.records.repository import Repository
    from orchestrator.records.results import load_each_chain

    repository = Repository(store)
    named = [repository.chain_by_name(name) for name in dict.fromkeys(names)]
    records = named or repository.chains()
    if not records:
        raise InputError(f"no chain is published in {store.uri}")
    return list(load_each_chain(repository, records, with_curves=False))


def _rebuild_mlflow(store: "Store", convention: Convention, uri: str | None) -> Shown:
    """Bring MLflow into line with the records."""
    from orchestrator.tracking.mlflow_errors import MlflowError
    from orchestrator.tracking.rebuild import rebuild
    from orchestrator.tracking.tracker import tracking_uri

    try:
        found = rebuild(store, tracking_uri(store, uri), convention)
    except MlflowError as error:
        raise InputError(str(error)) from error
    return {"runs": found.runs, "stale runs ended": found.closed, "left out": list(found.left_out)}


def _print_summary(shown: Shown) -> None:
    """Print what was written, a line for each thing."""
    for name, value in shown.items():
        if isinstance(value, list):
            value = "; ".join(value) or "nothing"
        print(f"{name}: {value}")


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(report, prog="python -m jobs.report", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
