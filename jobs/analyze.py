"""Ask a published chain why it forgot: `python -m jobs.analyze CHAIN --store URI`.

Stitches the later model to the earlier one layer by layer, compares their features, measures the classifier's bias and what
correcting it gives, and trains decoders anew; then says it in words, on the screen and on a page. Each answer is recorded
beside the steps it is about, so asking again takes seconds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jobs.errors import user_errors
from orchestrator.analysis import Analysis, analyse, flow_before_after, layer_table, sentences
from orchestrator.analysis_page import write_page
from orchestrator.place import Place
from orchestrator.probes import ensure_answers, standard_probes
from orchestrator.resources import Request
from orchestrator.results import ChainResult, find_chain, load_chains
from orchestrator.retraining import ensure_retrained
from orchestrator.store import DEFAULT_STORE, open_store
from orchestrator.table import to_terminal
from training.config import InputError
from training.models.segmenter import Segmenter
from training.probes.stitching import parts


@user_errors()
def analyze(
    chains: tyro.conf.Positional[tuple[str, ...]],
    store: str = DEFAULT_STORE,
    before: int = 0,
    after: int | None = None,
    images: int = 128,
    retrain: bool = True,
    out: Path = Path("reports/analysis"),
    request: Annotated[Request, tyro.conf.arg(name="")] = Request(),  # noqa: B008  frozen
) -> None:
    """Say why published chains forgot what they knew after an earlier step.

    Args:
        chains: Names of chains (the latest of each name), or beginnings of their keys.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        before: The step whose classes are asked about.
        after: The step that may have forgotten them; by default the last.
        images: How many training images of the earlier classes joints are fitted to and features are compared on.
        retrain: Also train classifier and decoder anew, to see what is still there: as long as two base steps.
        out: Folder for analysis.html, analysis.md and layers.csv.
    """
    if not chains:
        raise InputError("name at least one chain: `python -m jobs.analyze CHAIN --store URI`")
    console = Console(highlight=False, markup=False)
    place = Place(open_store(store), request, console)
    results = load_chains(place.store, [find_chain(place.store, chain) for chain in dict.fromkeys(chains)])
    analyses = [_analyse(result, before, after, images, retrain, place) for result in results]
    for analysis in analyses:
        _show(analysis, console)
    console.print(f"page: {write_page(analyses, out)}", soft_wrap=True)


def _analyse(result: ChainResult, before: int, after: int | None, images: int, retrain: bool, place: Place) -> Analysis:
    last = len(result.steps) - 1
    after = last if after is None else after
    if not 0 <= before < after <= last:
        raise InputError(f"{result.name!r} has steps 0 to {last}: give --before and --after two of them, the earlier first")
    earlier, later = result.steps[before], result.steps[after]
    config = later.record.step
    cuts = list(parts(Segmenter(config.model, config.task.channels)))
    answers = ensure_answers(earlier, later, standard_probes(cuts, images), place)
    retrained = ensure_retrained(result, later, place) if retrain else {}
    return analyse(result, earlier, later, answers, retrained)


def _show(analysis: Analysis, console: Console) -> None:
    console.print(analysis.title)
    for told in sentences(analysis):
        console.print(f"- {told}")
    for table in (layer_table(analysis), flow_before_after(analysis)):
        console.print(*to_terminal(table, console.width), sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.cli(analyze, prog="python -m jobs.analyze", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
