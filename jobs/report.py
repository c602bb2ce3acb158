"""Show what is published: `python -m jobs.report CHAIN [CHAIN ...]`, or `--campaign NAME`, `--parquet`, `--sync-mlflow`.

Chains are shown side by side, a campaign cell by cell: tables on the terminal, and a page (report.html), Markdown, LaTeX, CSV
and Parquet with the same numbers. `--parquet` writes every score of every step as one table for pandas, of all published
chains if none is named. `--sync-mlflow` makes MLflow show what the records say, also an empty one, and ends runs that nobody
is at. It reads what is published and trains nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from jobs.campaigns import SHIPPED
from jobs.errors import user_errors
from jobs.options import StoreOptions, with_weights
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.campaign_record import campaign_tree, find_campaign
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.report.campaign_page import build_campaign_report, write_campaign_report
from orchestrator.report.campaign_results import (
    CampaignResult,
    load_campaign_results,
    recorded_results,
)
from orchestrator.report.campaign_tables import paired
from orchestrator.report.chain_page import build_report, write_report
from orchestrator.report.chain_tables import class_table, summary_table
from orchestrator.report.predictions import published_pictures
from orchestrator.report.render import to_json, to_terminal
from orchestrator.report.scores_parquet import write_scores
from orchestrator.store.base import Store
from orchestrator.store.open import DEFAULT_STORE, open_store
from orchestrator.tracking.rebuild import rebuild
from orchestrator.tracking.tracker import tracking_uri as default_uri
from training.config import InputError
from training.metrics import Convention, mib, plop, wilson

CONVENTIONS: dict[str, Callable[[], Convention]] = {"wilson": wilson, "mib": mib, "plop": plop}
Flag = tyro.conf.FlagCreatePairsOff


@user_errors()
def report(
    chains: tyro.conf.Positional[tuple[str, ...]],
    store: str = DEFAULT_STORE,
    out: Path = Path("reports"),
    convention: Literal["wilson", "mib", "plop"] = "wilson",
    campaign: str | None = None,
    encoder_weights: str | None = None,
    parquet: Annotated[bool, Flag] = False,
    sync_mlflow: Annotated[bool, Flag] = False,
    tracking_uri: str | None = None,
    pictures: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), Flag] = False,
) -> None:
    """Show what is published.

    Args:
        chains: Names of chains (the latest of each name), or beginnings of their keys.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        out: Folder to write to.
        convention: Whose way of counting void, future classes and background.
        campaign: Show this campaign: its name or key, or the path of its file.
        encoder_weights: Of a campaign that was not run yet: the weights that its encoders start from.
        parquet: Only write scores.parquet, the long table of all scores.
        sync_mlflow: Only bring MLflow into line with the records.
        tracking_uri: Where MLflow is; by default $MLFLOW_TRACKING_URI or a database file in the store.
        pictures: Predict a few images with each step's model to show them.
        as_json: Print one JSON document and nothing else.
    """
    place, counting = open_store(store), CONVENTIONS[convention]()
    repository = Repository(place)
    if sum((bool(chains), campaign is not None, sync_mlflow)) > 1:
        raise InputError(
            "name chains, or one --campaign, or --sync-mlflow: each is shown by itself"
        )
    named = [repository.chain_by_name(name) for name in dict.fromkeys(chains)]
    if sync_mlflow:
        shown = _sync(place, counting, tracking_uri)
    elif campaign is not None:
        shown = _campaign(
            _load(campaign, place, StoreOptions(store, encoder_weights), counting),
            out,
            parquet,
            as_json,
        )
    elif parquet:
        records = named or repository.chains()
        if not records:
            raise InputError(f"no chain is published in {place.uri}")
        results = [load_chains(repository, [record])[0] for record in records]
        shown = _parquet(results, counting, out)
    elif chains:
        results = load_chains(repository, named)
        shown = _chains(
            results, counting, published_pictures(place, results) if pictures else (), out, as_json
        )
    else:
        raise InputError(
            "name at least one chain, or a --campaign: `python -m jobs.report CHAIN --store URI`"
        )
    if as_json:
        print(json.dumps(shown, ensure_ascii=False, indent=1))
    elif "tables" not in shown:
        told = {
            name: "; ".join(value) or "nothing" if isinstance(value, list) else value
            for name, value in shown.items()
        }
        print(*(f"{name}: {value}" for name, value in told.items()), sep="\n")


def _chains(
    results: Sequence[ChainResult], convention: Convention, pictures: Any, out: Path, quiet: bool
) -> dict[str, Any]:
    page = write_report(build_report(results, convention, pictures), out)
    if not quiet:
        console = _console()
        print_tables(results, convention, console)
        console.print(f"report: {page}", soft_wrap=True)
    tables = (class_table(results, convention), summary_table(results, convention))
    return {"tables": [to_json(table) for table in tables], "report": str(page)}


def _campaign(result: CampaignResult, out: Path, parquet: bool, quiet: bool) -> dict[str, Any]:
    if parquet:
        return _parquet([seed.chain for seed in result.published], result.convention, out)
    made = build_campaign_report(result)
    page = write_campaign_report(made, out)
    if not quiet:
        console = _console()
        for table in (made.scores, made.forgetting, made.flow):
            if table:
                console.print(*to_terminal(paired(table), console.width), sep="\n")
        console.print(made.scores.caption, f"report: {page}", sep="\n", soft_wrap=True)
    return {"tables": [to_json(table) for table in made.tables.values()], "report": str(page)}


def _parquet(results: Sequence[ChainResult], convention: Convention, out: Path) -> dict[str, Any]:
    return {
        "chains": len(results),
        "parquet": str(write_scores(results, convention, out / "scores.parquet")),
    }


def _sync(store: Store, convention: Convention, uri: str | None) -> dict[str, Any]:
    uri = default_uri(store, uri)
    found = rebuild(store, uri, convention)
    return {"runs": found.runs, "stale runs ended": found.closed, "left out": list(found.left_out)}


def _load(
    wanted: str, store: Store, options: StoreOptions, convention: Convention
) -> CampaignResult:
    """The campaign as it was recorded when it was run; one that was not, or is given by its path, as its file has it now."""
    record = None if wanted.endswith(".py") else find_campaign(store, wanted)
    if record is not None:
        return recorded_results(record, store, convention)
    campaign = load_campaign(wanted, SHIPPED)
    chains = with_weights(campaign.chains, options.encoder_weights, store)
    campaign = replace(campaign, chains=tuple(chains))
    return load_campaign_results(campaign, campaign_tree(campaign, store), store, convention)


def print_tables(chains: Sequence[ChainResult], convention: Convention, console: Console) -> None:
    """The chains' numbers on a terminal: every class after every step, the chains at a glance, and what was counted."""
    classes = class_table(chains, convention)
    for table in (classes, summary_table(chains, convention)):
        console.print(*to_terminal(table, console.width), sep="\n")
    console.print(classes.caption, end="\n\n")


def _console() -> Console:
    return Console(highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.cli(report, prog="python -m jobs.report", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
