"""Name what a store holds that is no record, where a record should be."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.store.base import Store
from orchestrator.store.cache import CorruptedObject

Kind = TypeVar("Kind", bound=BaseModel)


class DamagedRecord(CorruptedObject):
    """An object is not the record that it should be. The message names it and how to repair it."""


def read_record(store: Store, name: str, kind: type[Kind]) -> Kind:
    """Return the record in the object `name`.

    Raises:
        NotFound: There is no such object.
        DamagedRecord: It holds something else, or only half of a record.
    """
    data = store.read(name)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        state = "damaged" if data.strip() else "empty"
        raise DamagedRecord(
            f"the object {name!r} in the store {store.uri} is {state}: restore it from a copy, or "
            "delete it, and the same command makes again what it records"
        ) from error
