"""Publish a model that was trained elsewhere as a step 0, and score it in this process.

The step's key is made of the digest of its weights, its classes and its model, so it is the same
from whichever layout the model was read. Its record says where it came from. Its scores are
measured as those of every step.
"""

from pathlib import Path

from orchestrator.execution.worker import score_published
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import new_attempt, upload_folder
from orchestrator.records.provenance import provenance
from orchestrator.records.publish import publish_chain, publish_evaluation, publish_step
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import Adoption, DataSource, StepRecord
from orchestrator.store.base import Store
from training.runtime import Runtime


def publish_adopted(
    store: Store, folder: Path, planned: PlannedStep, data: DataSource, adoption: Adoption
) -> StepRecord:
    """Publish the files of an adopted network as a step, unless it is published.

    Args:
        store: The store to write to.
        folder: The files of the network (`training.adoption.write_network`).
        planned: The step.
        data: The dataset whose class ids the network has.
        adoption: Where the network came from.

    Returns:
        The record that was written first.
    """
    found = Repository(store).find_step(planned.key)
    if found is not None:
        return found
    attempt = new_attempt()
    files = upload_folder(store, folder, layout.files_folder(planned.key, attempt))
    record = StepRecord(
        key=planned.key,
        step=planned.step,
        index=0,
        parent=None,
        parent_attempt=None,
        attempt=attempt,
        files=files,
        class_names=planned.class_names,
        data=data,
        iterations=0,
        seconds={},
        images_per_second=None,
        resources={},
        provenance=provenance("cpu"),
        adoption=adoption,
    )
    return publish_step(store, record)


def score_adopted(
    store: Store, record: StepRecord, plan: PlannedChain, runtime: Runtime
) -> ChainResult:
    """Score an adopted step in this process unless it is scored, and publish it as a chain.

    Args:
        store: The store.
        record: Of the step.
        plan: The chain of nothing but this step, by whose name people find it.
        runtime: This process and its device.

    Returns:
        The chain, read back from the store.
    """
    repository = Repository(store)
    evaluation = repository.find_evaluation(record, plan.scoring)
    if evaluation is None:
        confusion, device = score_published(store, record, plan.scoring, runtime)
        source = plan.source(SPLIT)
        evaluation = publish_evaluation(
            store, record.key, record.attempt, source, plan.scoring, confusion, device
        )
    chain = publish_chain(store, plan.chain, [record], [evaluation])
    (result,) = load_chains(repository, [chain])
    return result
