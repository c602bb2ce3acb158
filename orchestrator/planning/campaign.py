"""The chains asked for together and the question they answer, and `sweep`, which makes chains that differ in chosen fields.

A field is named by its dotted path in the chain's document, so anything that a chain can say can be an axis:

    sweep(chain, {"method.alpha": (0, 0.5, 1), "scenario.setting": ("disjoint", "overlap"), "seed": range(3)})
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from orchestrator.planning.chain import Chain
from training.config import Document, InputError
from training.scenario import Scenario

if TYPE_CHECKING:
    from orchestrator.planning.paper_numbers import Expected

Anything = TypeVar("Anything", bound=Document)
Axis = (
    Iterable[Any] | Mapping[str, Any]
)  # values, or values by the names that chains are called after


@dataclass(frozen=True)
class Campaign:
    """A question and the chains that answer it. Raises InputError when two chains have the same name."""

    name: str
    question: str  # for people: the docstring of the campaign's file
    chains: tuple[Chain, ...]
    paper: tuple["Expected", ...] = ()  # which published numbers belong to which cells

    def __post_init__(self) -> None:
        names = [chain.name for chain in self.chains]
        if not names:
            raise InputError(f"campaign {self.name!r} has no chains")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"two chains of campaign {self.name!r} are called {twice!r}: give each a name of its own"
            )


def sweep(start: Chain, axes: Mapping[str, Axis]) -> tuple[Chain, ...]:
    """`start` with every combination of the axes' values, the last axis varying fastest; each chain is checked anew.

    Axes are dotted fields of the chain, applied in order, so that `method` may stand before `method.alpha`. Chains are called
    after `start` and their values, `<start> alpha=0.5 seed=1`; a mapping gives its values names to be called by.
    Raises InputError for a field that there is not and for a value that it cannot have.
    """
    named = [_named_values(axis, values) for axis, values in axes.items()]
    short = _short_names(list(axes))
    chains = []
    for combination in product(*named):
        chain, words = start, [start.name]
        for axis, (label, value) in zip(axes, combination, strict=True):
            chain = with_field(chain, axis, value)
            words.append(f"{short[axis]}={label}")
        chains.append(with_field(chain, "name", " ".join(words)))
    return tuple(chains)


def with_field(document: Anything, path: str, value: Any) -> Anything:
    """The document with one dotted field replaced, checked anew. Raises InputError."""
    try:
        return _replaced(document, path.split("."), value, path)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{path} cannot be {value!r}: {reason}") from error


def _replaced(document: Anything, parts: Sequence[str], value: Any, path: str) -> Anything:
    field, rest = parts[0], parts[1:]
    if not isinstance(document, Document) or field not in type(document).model_fields:
        raise InputError(f"there is no field {path!r}: {_advice(document, field, path)}")
    inner = _replaced(getattr(document, field), rest, value, path) if rest else value
    return type(document).model_validate({**dict(document), field: inner})


def _advice(document: Any, field: str, path: str) -> str:
    """Where the path goes wrong, and the field that comes nearest."""
    if not isinstance(document, Document):
        return f"{document!r} has no fields"
    fields = list(type(document).model_fields)
    near = get_close_matches(field, fields, n=1, cutoff=0.5)
    if near:
        return f"did you mean {path.replace(field, near[0])!r}?"
    return f"where it says {field!r} there are {', '.join(fields)}"


def _named_values(axis: str, values: Axis) -> list[tuple[str, Any]]:
    """The values of an axis with the names that tell them apart."""
    named = (
        list(values.items())
        if isinstance(values, Mapping)
        else [(_shown(value), value) for value in values]
    )
    labels = [label for label, _ in named]
    if not named:
        raise InputError(f"axis {axis!r} has no values")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise InputError(
            f"two values of axis {axis!r} are shown as {twice!r}: give them names, {{'first': ..., 'second': ...}}"
        )
    return named


def _shown(value: Any) -> str:
    """A value for people: documents by their names, class groups by their sizes."""
    if isinstance(value, Scenario):
        return value.title
    if isinstance(value, Document):
        return str(getattr(value, "name", type(value).__name__))
    if isinstance(value, (tuple, list)) and all(isinstance(item, (tuple, list)) for item in value):
        return "-".join(str(len(item)) for item in value)
    return str(value)


def _short_names(axes: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted name, or all of it where last parts are the same."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return {
        axis: axis if last.count(name) > 1 else name for axis, name in zip(axes, last, strict=True)
    }
