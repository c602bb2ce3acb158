"""Ask a published chain why it forgot: `python -m jobs.analyze CHAIN --store URI`.

Stitches the later model to the earlier one layer by layer, compares their features, measures the classifier's bias and what
correcting it gives, and trains decoders anew; then says it in words, on the screen and on a page. Each answer is recorded
beside the steps it is about, so asking again takes seconds.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jobs.errors import user_errors
from orchestrator.analysis.diagnosis import Analysis, analyse, sentences
from orchestrator.analysis.page import write_page
from orchestrator.analysis.probes import ensure_answers, standard_probes
from orchestrator.analysis.record import publish_analysis
from orchestrator.analysis.retraining import ensure_retrained
from orchestrator.analysis.tables import flow_table, layer_table, overview, remedy_table
from orchestrator.cluster.resources import Request
from orchestrator.execution.context import RunContext
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.report.render import to_terminal
from orchestrator.report.table import Table
from orchestrator.store.open import DEFAULT_STORE, open_store
from orchestrator.tracking.analysis_runs import analysis_runs
from orchestrator.tracking.tracker import Tracker, store_tracker
from training.config import InputError
from training.models.segmenter import Segmenter
from training.probes.stitching import parts

Kind = Literal["stitching", "similarity", "bias", "retraining"]
KINDS: tuple[Kind, ...] = ("stitching", "similarity", "bias", "retraining")


@user_errors()
def analyze(
    chains: tyro.conf.Positional[tuple[str, ...]],
    store: str = DEFAULT_STORE,
    before: int = 0,
    after: int | None = None,
    probe: tyro.conf.UseAppendAction[tuple[Kind, ...]] = (),
    images: int = 128,
    retrain: bool = True,
    out: Path = Path("reports/analysis"),
    tracking: bool = True,
    tracking_uri: str | None = None,
    request: Annotated[Request, tyro.conf.arg(name="")] = Request(),  # noqa: B008  frozen
) -> None:
    """Say why published chains forgot what they knew after an earlier step.

    Args:
        chains: Names of chains (the latest of each name), or beginnings of their keys.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        before: The step whose classes are asked about.
        after: The step that may have forgotten them; by default the last.
        probe: Ask only these, such as `--probe similarity --probe bias`; by default all.
        images: How many training images of the earlier classes joints are fitted to and features are compared on.
        retrain: Also train classifier and decoder anew, to see what is still there: as long as two base steps.
        out: Folder for analysis.html, analysis.md and layers.csv.
        tracking: Show the analyses in MLflow, below their chains.
        tracking_uri: Where MLflow is; by default $MLFLOW_TRACKING_URI or a database file in the store.
    """
    if not chains:
        raise InputError("name at least one chain: `python -m jobs.analyze CHAIN --store URI`")
    console = Console(highlight=False, markup=False)
    place = RunContext(open_store(store), request, console)
    repository = Repository(place.store)
    names = dict.fromkeys(chains)
    results = load_chains(repository, [repository.chain_by_name(name) for name in names])
    pairs = [_pair(result, before, after) for result in results]
    asked: tuple[Kind, ...] = tuple(
        kind for kind in probe or KINDS if retrain or kind != "retraining"
    )
    tracker = store_tracker(place.store, tracking_uri) if tracking else None
    with tracker or nullcontext():
        analyses = [
            _analyse(result, pair, asked, images, place, tracker)
            for result, pair in zip(results, pairs, strict=True)
        ]
    for analysis in analyses:
        _show(analysis, console)
    if len(analyses) > 1:
        _print(overview(analyses), console)
    console.print(f"page: {write_page(analyses, out)}", soft_wrap=True)


def _pair(result: ChainResult, before: int, after: int | None) -> tuple[int, int]:
    """The two steps that are asked for. Raises InputError when the chain does not have them."""
    last = len(result.steps) - 1
    after = last if after is None else after
    if not 0 <= before < after <= last:
        raise InputError(
            f"{result.name!r} has steps 0 to {last}: give --before and --after two of them, the earlier first"
        )
    return before, after


def _analyse(
    result: ChainResult,
    pair: tuple[int, int],
    asked: tuple[Kind, ...],
    images: int,
    place: RunContext,
    tracker: Tracker | None,
) -> Analysis:
    """Ask these probes, record what was brought together, and tell MLflow."""
    earlier, later = (result.steps[index] for index in pair)
    config = later.record.step
    cuts = list(parts(Segmenter(config.model, config.task.channels)))
    probes = [probe for probe in standard_probes(cuts, images) if probe.probe in asked]
    answers = ensure_answers(earlier, later, probes, place)
    retrained = ensure_retrained(result, later, place) if "retraining" in asked else {}
    record = publish_analysis(place.store, result, pair, answers, retrained)
    analysis = analyse(result, earlier, later, answers, retrained)
    if tracker:
        tracker.tell(analysis_runs(record, analysis))
    return analysis


def _show(analysis: Analysis, console: Console) -> None:
    console.print(analysis.title)
    for told in sentences(analysis):
        console.print(f"- {told}")
    _print((layer_table(analysis), flow_table(analysis), remedy_table(analysis)), console)


def _print(tables: Sequence[Table], console: Console) -> None:
    for table in tables:
        console.print(*to_terminal(table, console.width), sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.cli(analyze, prog="python -m jobs.analyze", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
