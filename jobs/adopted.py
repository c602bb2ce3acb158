"""Find an adopted step by the name under which it was adopted, or by its key."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.records.schema import StepRecord
    from orchestrator.store.base import Store


def find_adopted(store: "Store", wanted: str) -> "StepRecord":
    """Return the record of a step.

    Args:
        store: The store that holds it.
        wanted: The name of its chain, its key, the beginning of its key, or CHAIN:0.

    Raises:
        InputError: There is no such step.
    """
    from orchestrator.records.repository import Repository

    repository = Repository(store)
    names = {chain.chain["name"] for chain in repository.chains()}
    return repository.step_by_name(f"{wanted}:0" if wanted in names else wanted)
