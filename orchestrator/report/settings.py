"""Compare the settings of chains: every field of their documents, with its value in each chain."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.planning.chain import leaves


class Setting(NamedTuple):
    """One field of the chains' documents with its value in each chain, as text."""

    name: str  # dotted, such as method.alpha
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Return whether the chains differ in this field."""
        return len(set(self.values)) > 1


def compare_settings(documents: Sequence[Mapping[str, Any]]) -> tuple[Setting, ...]:
    """Return all fields of the chains' documents, those that differ first."""
    flat = [dict(leaves(document)) for document in documents]
    names: dict[str, None] = {}
    for fields in flat:
        names |= dict.fromkeys(fields)
    names.pop("name", None)
    found = [Setting(name, _values(flat, name)) for name in names]
    return tuple(sorted(found, key=lambda setting: not setting.differs))


def _values(documents: Sequence[Mapping[str, Any]], name: str) -> tuple[str, ...]:
    values = []
    for fields in documents:
        values.append(_to_text(fields[name]) if name in fields else "–")
    return tuple(values)


def _to_text(value: Any) -> str:
    """Return a value as text: `cat dog | cow` for class groups."""
    if _is_list(value):
        separator = " | " if any(map(_is_list, value)) else " "
        return separator.join(map(_to_text, value))
    return "none" if value is None else str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
