"""Print the tables of published chains on a terminal."""

from collections.abc import Sequence

from rich.console import Console

from orchestrator.records.results import ChainResult
from orchestrator.report.chain_tables import class_table, summary_table
from orchestrator.report.render import to_terminal
from orchestrator.report.table import Table
from training.metrics import Convention


def print_table(table: Table, console: Console) -> None:
    """Print a table in the width of the terminal."""
    console.print(*to_terminal(table, console.width), sep="\n")


def print_classes(chains: Sequence[ChainResult], convention: Convention, console: Console) -> None:
    """Print every class after every step, and what was counted."""
    table = class_table(chains, convention)
    print_table(table, console)
    console.print(table.caption)


def print_chains(chains: Sequence[ChainResult], convention: Convention, console: Console) -> None:
    """Print every class after every step, the chains at a glance, and what was counted."""
    classes = class_table(chains, convention)
    print_table(classes, console)
    print_table(summary_table(chains, convention), console)
    console.print(classes.caption, end="\n\n")
