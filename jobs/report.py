"""Show published chains side by side: `python -m jobs.report CHAIN [CHAIN ...] --store URI`.

Prints the table of every class after every step, and writes a page (report.html), Markdown (table.md) and CSV (table.csv) with
the same numbers. It reads what is published and trains nothing.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jobs.errors import user_errors
from orchestrator.predictions import published_pictures
from orchestrator.report import build_report, write_report
from orchestrator.results import ChainResult, find_chain, load_chains
from orchestrator.store import DEFAULT_STORE, open_store
from orchestrator.table import to_json, to_terminal
from orchestrator.tables import class_table, summary_table
from training.config import InputError
from training.metrics import Convention, mib, plop, wilson

CONVENTIONS: dict[str, Callable[[], Convention]] = {"wilson": wilson, "mib": mib, "plop": plop}


@user_errors()
def report(
    chains: tyro.conf.Positional[tuple[str, ...]],
    store: str = DEFAULT_STORE,
    out: Path = Path("reports"),
    convention: Literal["wilson", "mib", "plop"] = "wilson",
    pictures: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Show published chains side by side.

    Args:
        chains: Names of chains (the latest of each name), or beginnings of their keys.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        out: Folder to write report.html, table.md and table.csv to.
        convention: Whose way of counting void, future classes and background.
        pictures: Predict a few images with each step's model to show them.
        as_json: Print the tables as JSON and nothing else.
    """
    if not chains:
        raise InputError("name at least one chain: `python -m jobs.report CHAIN --store URI`")
    place = open_store(store)
    results = load_chains(place, [find_chain(place, chain) for chain in dict.fromkeys(chains)])
    counting = CONVENTIONS[convention]()
    page = write_report(build_report(results, counting, published_pictures(place, results) if pictures else ()), out)
    if as_json:
        tables = [to_json(table) for table in (class_table(results, counting), summary_table(results, counting))]
        print(json.dumps({"tables": tables, "report": str(page)}, ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False, markup=False)
    print_tables(results, counting, console)
    console.print(f"report: {page}", soft_wrap=True)


def print_tables(chains: Sequence[ChainResult], convention: Convention, console: Console) -> None:
    """The chains' numbers on a terminal: every class after every step, the chains at a glance, and what was counted."""
    classes = class_table(chains, convention)
    for table in (classes, summary_table(chains, convention)):
        console.print(*to_terminal(table, console.width), sep="\n")
    console.print(classes.caption, end="\n\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.cli(report, prog="python -m jobs.report", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
