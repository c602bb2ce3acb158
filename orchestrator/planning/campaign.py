"""Define campaigns, and sweep over fields of a chain.

A field is named by its dotted path in the chain's document, so every field can be an axis:

    sweep(
        chain,
        {
            "method.alpha": (0, 0.5, 1),
            "scenario.setting": ("disjoint", "overlap"),
            "seed": range(3),
        },
    )
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from orchestrator.planning.chain import Chain
from orchestrator.planning.validation import problem_message
from training.config import Document, InputError, ModelConfig
from training.scenario import Scenario

if TYPE_CHECKING:
    from orchestrator.planning.paper_numbers import Expected

Anything = TypeVar("Anything", bound=Document)
# The values of an axis, or its values by the names that the chains are called after.
Axis = Iterable[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Campaign:
    """A question and the chains that answer it. Their names differ, else it raises InputError."""

    name: str
    question: str  # for people: the docstring of the campaign's file
    chains: tuple[Chain, ...]
    paper: tuple["Expected", ...] = ()  # which published numbers belong to which variants

    def __post_init__(self) -> None:
        names = [chain.name for chain in self.chains]
        if not names:
            raise InputError(f"campaign {self.name!r} has no chains")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"two chains of campaign {self.name!r} are called {twice!r}: "
                "give each a name of its own"
            )


def sweep(start: Chain, axes: Mapping[str, Axis]) -> tuple[Chain, ...]:
    """Return `start` with every combination of the axes' values. Each chain is checked.

    Chains are called after `start` and their values: `<start> alpha=0.5 seed=1`.

    Args:
        start: The chain that the others differ from.
        axes: Values by dotted field, or values by the names that chains are called after. The
            last axis varies fastest. Fields are replaced in order, so `method` may stand before
            `method.alpha`.

    Raises:
        InputError: A field does not exist, or it cannot have the value.
    """
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
    return tuple(chains)


def with_field(document: Anything, path: str, value: Any) -> Anything:
    """Return the document with one dotted field replaced.

    Raise InputError for a field that does not exist and for a value that it cannot have.
    """
    try:
        return _replace(document, path.split("."), value, path)
    except ValidationError as error:
        reason = problem_message(error.errors()[0])
        raise InputError(f"{path} cannot be {value!r}: {reason}") from error


def with_encoder_weights(campaign: Campaign, digest: Callable[[ModelConfig], str]) -> Campaign:
    """Return the campaign with pretrained weights for every encoder.

    Args:
        campaign: The campaign as its file has it.
        digest: Returns the digest of the weights for a model. It is called once per model.
    """
    models = dict.fromkeys(chain.model for chain in campaign.chains)
    complete = {model: model.model_copy(update={"weights": digest(model)}) for model in models}
    chains = [
        chain.model_copy(update={"model": complete[chain.model]}) for chain in campaign.chains
    ]
    return replace(campaign, chains=tuple(chains))


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
