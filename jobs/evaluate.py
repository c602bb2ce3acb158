"""Score a published step on a dataset: `python -m jobs.evaluate STEP --data NAME --split val --store URI`.

STEP is a step's key, the beginning of one, or CHAIN:INDEX with a chain's name, such as `digits_wilson:1`. The score is kept
in the store, and asked for again it is read from there. It is a count of pixels, so another convention costs nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jobs.errors import user_errors
from jobs.report import CONVENTIONS
from jobs.train import show_result
from orchestrator.cluster.resources import Request
from orchestrator.datasets.catalog import UnknownDataset, resolve
from orchestrator.execution.context import RunContext
from orchestrator.execution.evaluate import check_classes, ensure_evaluation
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.records.schema import (
    ChainRecord,
    DataSource,
    Scoring,
)
from orchestrator.store.base import check_writable
from orchestrator.store.open import DEFAULT_STORE, open_store
from training.config import EvaluationConfig


def evaluate(
    step: tyro.conf.Positional[str],
    data: str | None = None,
    split: str = "val",
    store: str = DEFAULT_STORE,
    short_side: int | Literal["original"] | None = None,
    crop: int | Literal["none"] | None = None,
    convention: Literal["wilson", "mib", "plop"] = "wilson",
    request: Annotated[Request, tyro.conf.arg(name="")] = Request(),  # noqa: B008 - tyro reads the default
) -> None:
    """Score a published step on a dataset.

    Args:
        step: Key of a step, the beginning of one, or CHAIN:INDEX.
        data: Name of the dataset; by default the one it was trained on.
        split: Split of the dataset.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        short_side: Resize the shorter side of images to this; by default as the step was scored when it was trained.
        crop: Then crop the centre to this square; by default as the step was scored when it was trained.
        convention: Whose way of counting future classes, images and background.
    """
    place = RunContext(open_store(store), request, Console(highlight=False, markup=False))
    check_writable(place.store)
    repository = Repository(place.store)
    record = repository.step_by_name(step)
    name = data or record.data.name
    digest, manifest = resolve(place.store, name)
    if split not in manifest.splits:
        raise UnknownDataset(
            f"dataset {name!r} has no split {split!r}; it has {', '.join(manifest.splits)}"
        )
    check_classes(record, name, manifest.classes)
    usual = repository.first_view(record)
    config = EvaluationConfig(
        short_side=usual.short_side
        if short_side is None
        else None
        if short_side == "original"
        else short_side,
        crop=usual.crop if crop is None else None if crop == "none" else crop,
    )
    source = DataSource(name=name, manifest=digest, split=split)
    evaluation = ensure_evaluation(
        record, source, Scoring(source.name, manifest, split, config), place
    )
    # A chain of nothing but this step, to be shown as every chain is.
    names = dict(zip(record.step.task.classes, record.class_names, strict=True))
    groups = [[names[class_id] for class_id in group] for group in record.step.task.groups]
    alone = ChainRecord(
        key=record.key,
        chain={"name": step, "scenario": {"groups": groups}},
        steps=(record.key,),
        evaluations=(evaluation.key,),
        created=record.provenance.created,
    )
    (result,) = load_chains(repository, [alone])
    show_result(result, CONVENTIONS[convention](), place.console)


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.cli(evaluate, prog="python -m jobs.evaluate", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
