"""Ask published chains why they forgot: `python -m jobs.analyze CHAIN --store URI`.

The analysis stitches the later model to the earlier one layer by layer and compares their features.
It measures the classifier's bias and the effect of correcting it, and retrains decoders. It is
printed and written to a page. Each answer is recorded beside its steps, so a second run takes
seconds.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.errors import user_errors
from jobs.options import AtStore
from jobs.places import checked_folder
from orchestrator.cluster.resources import Request
from training.config import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.analysis.diagnosis import Analysis
    from orchestrator.execution.context import RunContext
    from orchestrator.records.results import ChainResult

Kind = Literal["stitching", "similarity", "bias", "retraining"]
KINDS: tuple[Kind, ...] = ("stitching", "similarity", "bias", "retraining")


def analyze(
    chains: tyro.conf.Positional[tuple[str, ...]],
    at: AtStore,
    request: Annotated[Request, tyro.conf.arg(name="")],
    before: int = 0,
    after: int | None = None,
    probe: tyro.conf.UseAppendAction[tuple[Kind, ...]] = (),
    images: int = 128,
    retrain: bool = True,
    out: Path = Path("reports/analysis"),
    tracking: bool = True,
    tracking_uri: str | None = None,
) -> None:
    """Explain why published chains forgot what they knew after an earlier step.

    Args:
        chains: Names of chains (the latest of each name), or beginnings of their keys.
        before: The step whose classes the question is about.
        after: The step that may have forgotten them; by default the last.
        probe: Run only these probes, such as `--probe similarity --probe bias`; by default all.
        images: How many training images of the earlier classes joints are fitted to and features
            are compared on.
        retrain: Also retrain classifier and decoder on all classes, to measure what the features
            still hold. It takes as long as two base steps.
        out: Folder for analysis.html, analysis.md and layers.csv.
        tracking: Show the analyses in MLflow, below their chains.
        tracking_uri: MLflow's address; by default $MLFLOW_TRACKING_URI or a database file in the
            store.
    """
    if not chains:
        raise InputError("name at least one chain: `python -m jobs.analyze CHAIN --store URI`")
    from jobs.console import open_console
    from jobs.tables import print_table
    from orchestrator.analysis.page import write_page
    from orchestrator.analysis.tables import overview
    from orchestrator.execution.context import RunContext
    from orchestrator.records.repository import Repository
    from orchestrator.records.results import load_chains
    from orchestrator.records.store_version import prepare_store
    from orchestrator.tracking.analysis_runs import analysis_runs
    from orchestrator.tracking.tracker import open_tracker

    out = checked_folder(out)
    context = RunContext(at.open_existing(), request, open_console())
    store = context.store
    prepare_store(store)
    repository = Repository(store)
    names = dict.fromkeys(chains)
    results = load_chains(repository, [repository.chain_by_name(name) for name in names])
    pairs = [_check_pair(result, before, after) for result in results]
    kinds = _chosen_kinds(probe, retrain)
    tracker = open_tracker(store, tracking_uri) if tracking else None
    analyses = []
    with tracker or nullcontext():
        for result, pair in zip(results, pairs, strict=True):
            record, analysis = _analyze_chain(result, pair, kinds, images, context)
            analyses.append(analysis)
            if tracker:
                tracker.report(analysis_runs(record, analysis))
    for analysis in analyses:
        print_analysis(analysis, context.console)
    if len(analyses) > 1:
        for table in overview(analyses):
            print_table(table, context.console)
    context.console.print(f"page: {write_page(analyses, out)}")


def _chosen_kinds(asked: Sequence[Kind], retrain: bool) -> list[Kind]:
    """Return the kinds of probes to run: those asked for, or all."""
    kinds = list(asked or KINDS)
    if not retrain and "retraining" in kinds:
        kinds.remove("retraining")
    return kinds


def _check_pair(result: "ChainResult", before: int, after: int | None) -> tuple[int, int]:
    """Return the two steps to compare. Raise InputError when the chain does not have them."""
    if result.background == "none":
        raise InputError(
            "an analysis asks what background and new classes took from old ones, and the models "
            f"of {result.name!r} have no background channel: analyze a chain with "
            "scenario.background class"
        )
    last = len(result.steps) - 1
    after = last if after is None else after
    if not 0 <= before < after <= last:
        raise InputError(
            f"{result.name!r} has steps 0 to {last}: "
            "give --before and --after two of them, the earlier first"
        )
    return before, after


def _analyze_chain(
    result: "ChainResult",
    pair: tuple[int, int],
    kinds: Sequence[Kind],
    images: int,
    context: "RunContext",
) -> tuple:
    """Run the probes on two steps of a chain; return the record of the analysis and its numbers."""
    from orchestrator.analysis.diagnosis import analyse
    from orchestrator.analysis.probes import ensure_answers, standard_probes
    from orchestrator.analysis.record import publish_analysis
    from orchestrator.analysis.retraining import ensure_retrained
    from training.models.segmenter import Segmenter
    from training.probes.stitching import parts

    earlier, later = (result.steps[index] for index in pair)
    config = later.record.step
    cuts = list(parts(Segmenter(config.model, config.task.channels)))
    probes = [probe for probe in standard_probes(cuts, images) if probe.probe in kinds]
    answers = ensure_answers(earlier, later, probes, context)
    retrained = ensure_retrained(result, later, context) if "retraining" in kinds else {}
    record = publish_analysis(context.store, result, pair, answers, retrained)
    return record, analyse(result, earlier, later, answers, retrained)


def print_analysis(analysis: "Analysis", console: "Console") -> None:
    """Print the conclusions and the tables behind them."""
    from jobs.tables import print_table
    from orchestrator.analysis.sentences import describe_analysis
    from orchestrator.analysis.tables import breakdown_table, layer_table, remedy_table

    console.print(analysis.title)
    for sentence in describe_analysis(analysis):
        console.print(f"- {sentence}")
    for table in (layer_table(analysis), breakdown_table(analysis), remedy_table(analysis)):
        if table:
            print_table(table, console)


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(analyze, prog="python -m jobs.analyze", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
