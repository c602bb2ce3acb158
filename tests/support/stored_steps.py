"""Look at the steps of a store while a job of another process writes to it."""

from orchestrator.records import layout
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store


def step_record_names(store: Store) -> list[str]:
    """Return the keys of all step records."""
    return [name for name in store.list(layout.STEPS) if layout.is_step_record(name)]


def read_step_records(store: Store) -> list[StepRecord]:
    """Return the records of all published steps, by their number in the chain."""
    names = step_record_names(store)
    records = [StepRecord.model_validate_json(store.read(name)) for name in names]
    return sorted(records, key=lambda record: record.index)


def has_checkpoint(store: Store) -> bool:
    """Return whether some step has a whole checkpoint."""
    return any(layout.is_checkpoint_done(name) for name in store.list(layout.STEPS))
