"""Define what every document is: an immutable value whose fields are checked."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class InputError(ValueError):
    """The user's input cannot be used.

    The message says what is wrong, where, and what to do. Jobs show the message alone.
    """


class Document(BaseModel):
    """An immutable, strictly checked value.

    Unknown fields are refused, and equal documents have equal JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values. Raise InputError for a field that does not exist."""
        fields = list(type(self).model_fields)
        if unknown := [name for name in update or () if name not in fields]:
            raise _no_field(type(self).__name__, unknown[0], fields)
        return super().model_copy(update=update, deep=deep)


def _no_field(document: str, name: str, fields: Sequence[str]) -> InputError:
    """Return the error about a field that a document does not have."""
    near = get_close_matches(name, fields, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
    return InputError(f"{document} has no field {name!r}: {advice}")
