"""Score a published step: `python -m jobs.evaluate STEP --data NAME --split val --store URI`.

STEP is a step's key, the beginning of one, or CHAIN:INDEX with a chain's name, such as
`digits_wilson:1`. The score is stored as counts of pixels. So the same question is answered from
the store, and so is another convention.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.errors import user_errors
from jobs.options import AtStore
from orchestrator.cluster.resources import Request
from training.config import EvaluationConfig
from training.metrics import CONVENTIONS, ConventionName

if TYPE_CHECKING:
    from orchestrator.records.repository import Repository
    from orchestrator.records.results import ChainResult
    from orchestrator.records.schema import DataSource, EvaluationRecord, Scoring, StepRecord
    from orchestrator.store.base import Store


Side = int | Literal["original"] | None
Crop = int | Literal["none"] | None


def evaluate(
    step: tyro.conf.Positional[str],
    at: AtStore,
    request: Annotated[Request, tyro.conf.arg(name="")],
    data: str | None = None,
    split: str = "val",
    short_side: Side = None,
    crop: Crop = None,
    convention: ConventionName = "wilson",
    allow_overlap: bool = False,
) -> None:
    """Score a published step on a dataset.

    Args:
        step: Key of a step, the beginning of one, or CHAIN:INDEX.
        data: Name of the dataset; by default the one that the step was trained on.
        split: Split of the dataset.
        short_side: Resize the shorter side of images to this; by default as the step was scored
            when it was trained.
        crop: Then crop the centre to this square; by default as the step was scored when it was
            trained.
        convention: The paper whose way of counting future classes, images and background is used.
        allow_overlap: Score although images of the split were trained on.
    """
    from jobs.console import open_console
    from jobs.tables import print_classes
    from orchestrator.datasets.overlap import check_unseen
    from orchestrator.execution.context import RunContext
    from orchestrator.execution.evaluate import ensure_evaluation
    from orchestrator.records.repository import Repository
    from orchestrator.records.store_version import prepare_store

    context = RunContext(at.open_existing(), request, open_console())
    prepare_store(context.store)
    repository = Repository(context.store)
    record = repository.step_by_name(step)
    first = repository.first_evaluation(record)
    view = _view(first.config if first else EvaluationConfig(), short_side, crop)
    source, scoring = _question(record, context.store, data or record.data.name, split, view)
    # Nobody names the training split by mistake.
    if not allow_overlap and split != record.data.split:
        check_unseen(context.store, record.data.manifest, source.name, scoring.manifest, split)
    evaluation = ensure_evaluation(record, source, scoring, context)
    result = _as_chain(step, record, evaluation, repository)
    print_classes([result], CONVENTIONS[convention], context.console)


def _view(usual: EvaluationConfig, short_side: Side, crop: Crop) -> EvaluationConfig:
    """Return the view of images that is asked for, the usual one where nothing is."""
    sizes = {"short_side": usual.short_side, "crop": usual.crop}
    if short_side is not None:
        sizes["short_side"] = None if short_side == "original" else short_side
    if crop is not None:
        sizes["crop"] = None if crop == "none" else crop
    return EvaluationConfig.model_validate(sizes)


def _question(
    record: "StepRecord", store: "Store", data: str, split: str, view: EvaluationConfig
) -> "tuple[DataSource, Scoring]":
    """Return what the step is to be scored on. Raise InputError where it cannot be."""
    from orchestrator.datasets.catalog import UnknownDataset, resolve
    from orchestrator.execution.evaluate import check_classes
    from orchestrator.records.schema import DataSource, Scoring

    digest, manifest = resolve(store, data)
    if split not in manifest.splits:
        splits = ", ".join(manifest.splits)
        raise UnknownDataset(f"dataset {data!r} has no split {split!r}; it has {splits}")
    check_classes(record, data, manifest.classes)
    source = DataSource(name=data, manifest=digest, split=split)
    return source, Scoring(data, manifest, split, view)


def _as_chain(
    name: str, record: "StepRecord", evaluation: "EvaluationRecord", repository: "Repository"
) -> "ChainResult":
    """Return the step as a chain of nothing else, so that it is shown as chains are."""
    from orchestrator.records.results import load_chains
    from orchestrator.records.schema import ChainRecord

    names = dict(zip(record.step.task.classes, record.class_names, strict=True))
    groups = []
    for group in record.step.task.groups:
        groups.append([names[class_id] for class_id in group])
    alone = ChainRecord(
        key=record.key,
        chain={"name": name, "scenario": {"groups": groups}},
        steps=(record.key,),
        evaluations=(evaluation.key,),
        created=record.provenance.created,
    )
    (result,) = load_chains(repository, [alone])
    return result


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(evaluate, prog="python -m jobs.evaluate", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
