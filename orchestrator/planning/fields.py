"""Replace fields of a chain by their dotted names, one or many, and name what results."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.planning.chain import Chain
from orchestrator.planning.validation import problem_message
from training.config import Document, InputError
from training.scenario import Scenario

Anything = TypeVar("Anything", bound=Document)
# The values of an axis, its values by the names that the chains are called after, or one of Ray
# Tune's search spaces. Ray has no type for the last.
Axis = Iterable[Any] | Mapping[str, Any] | Any


def with_field(document: Anything, path: str, value: Any) -> Anything:
    """Return the document with one dotted field replaced.

    Raise InputError for a field that does not exist and for a value that it cannot have.
    """
    try:
        return _replace(document, path.split("."), value, path)
    except ValidationError as error:
        reason = problem_message(error.errors()[0])
        raise InputError(f"{path} cannot be {value!r}: {reason}") from error


def every_combination(start: Chain, axes: Mapping[str, Axis]) -> list[Chain]:
    """Return `start` with every combination of the axes' values, the last varying fastest."""
    named = [_named_values(axis, values) for axis, values in axes.items()]
    short = _short_names(list(axes))
    chains = []
    for combination in product(*named):
        chain = start
        words = [start.name]
        for axis, (label, value) in zip(axes, combination, strict=True):
            chain = with_field(chain, axis, value)
            words.append(f"{short[axis]}={label}")
        chains.append(with_field(chain, "name", " ".join(words)))
    return chains


def _replace(document: Anything, fields: Sequence[str], value: Any, path: str) -> Anything:
    field, *rest = fields
    if not isinstance(document, Document) or field not in type(document).model_fields:
        raise InputError(f"there is no field {path!r}: {_advice(document, field, path)}")
    inner = _replace(getattr(document, field), rest, value, path) if rest else value
    return type(document).model_validate({**dict(document), field: inner})


def _advice(document: Any, field: str, path: str) -> str:
    """Return where the path goes wrong, and the field that comes nearest."""
    if not isinstance(document, Document):
        return f"{document!r} has no fields"
    fields = list(type(document).model_fields)
    near = get_close_matches(field, fields, n=1, cutoff=0.5)
    if near:
        return f"did you mean {path.replace(field, near[0])!r}?"
    return f"where it says {field!r} there are {', '.join(fields)}"


def _named_values(axis: str, values: Axis) -> list[tuple[str, Any]]:
    """Return the values of an axis with the names that distinguish them."""
    if isinstance(values, str | Document) or not isinstance(values, Iterable):
        raise InputError(f"axis {axis!r} needs several values, such as ({values!r},), in a tuple")
    if isinstance(values, Mapping):
        named = list(values.items())
    else:
        named = [(_shown(value), value) for value in values]
    labels = [label for label, _ in named]
    if not named:
        raise InputError(f"axis {axis!r} has no values")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise InputError(
            f"two values of axis {axis!r} are shown as {twice!r}: "
            "give them names, {'first': ..., 'second': ...}"
        )
    return named


def _shown(value: Any) -> str:
    """Return a value for people: a document's name, the sizes of class groups."""
    if isinstance(value, Scenario):
        return value.title
    if isinstance(value, Document):
        return str(getattr(value, "name", type(value).__name__))
    sequences = (tuple, list)
    if isinstance(value, sequences) and all(isinstance(item, sequences) for item in value):
        return "-".join(str(len(item)) for item in value)
    return str(value)


def _short_names(axes: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted name, or all of it where last parts are equal."""
    last = {axis: axis.rpartition(".")[2] for axis in axes}
    used = list(last.values())
    return {axis: axis if used.count(name) > 1 else name for axis, name in last.items()}
