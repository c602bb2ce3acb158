"""Group chains that differ by seed alone into variants, and name the variants.

A variant's seeds are repetitions of one experiment. Variants are compared by the means over their
seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.planning.chain import Chain, leaves

# The order of a variant's axes in its name.
ORDER = (
    "method.name",
    "method",
    "scenario",
    "optimization",
    # Other fields of an encoder of Transformers follow from its kind, or say less.
    "model.backbone.architecture.model_type",
    "model",
    "augmentation",
)


class Variant(NamedTuple):
    """Chains that are equal but for their seeds and names."""

    name: str  # unique among the variants: "alpha=0.5 setting=overlap"
    chains: tuple[int, ...]  # their indexes among the given chains, one of each seed
    axes: Mapping[str, Any]
    """Values of the dotted fields that distinguish the variants. Fields it lacks are left out."""


def group_variants(chains: Sequence[Chain]) -> tuple[Variant, ...]:
    """Return the variants among the chains, in the order of the chains.

    A variant is named by the words of its chains' names, if they are unique, else by its axes.
    """
    # The index of the first chain of each seed, by variant.
    members: dict[Chain, dict[int, int]] = {}
    for index, chain in enumerate(chains):
        variant = chain.model_copy(update={"name": "", "seed": 0})
        members.setdefault(variant, {}).setdefault(chain.seed, index)
    documents = [_document(variant) for variant in members]
    shown = _find_axes(documents)
    axes = [_own_axes(document, documents, shown) for document in documents]
    indexes = [tuple(seeds.values()) for seeds in members.values()]
    names = [_own_words(chains[first].name) for first, *_ in indexes]
    if not all(names) or len(set(names)) < len(names):
        names = _names_by_axes(list(members), axes, _labels(shown))
    return tuple(Variant(*each) for each in zip(names, indexes, axes, strict=True))


def _names_by_axes(
    variants: Sequence[Chain], axes: Sequence[Mapping[str, Any]], labels: Mapping[str, str]
) -> list[str]:
    """Return names made of each variant's axes, or of its method if it has none."""
    names = []
    for variant, own in zip(variants, axes, strict=True):
        names.append(_name(own, labels) or variant.method.name)
    return names


def _own_axes(
    document: dict[str, Any], documents: Sequence[dict[str, Any]], shown: Sequence[str]
) -> dict[str, Any]:
    """Return a variant's own values of the axes.

    A field of its method, or a memory, counts only if another variant of the same method has
    another value.
    """
    method = document["method.name"]
    alike = [other for other in documents if other["method.name"] == method]

    def distinguishes(axis: str) -> bool:
        if axis not in document:
            return False
        if axis == "method.name" or not axis.startswith(("method.", "scenario.memory")):
            return True
        return any(other.get(axis) != document[axis] for other in alike)

    return {axis: document[axis] for axis in shown if distinguishes(axis)}


def _own_words(name: str) -> str:
    """Return the words of a chain's name after the campaign's, without the axes of a sweep."""
    return " ".join(word for word in name.split()[1:] if "=" not in word)


def _find_axes(documents: Sequence[dict[str, Any]]) -> list[str]:
    """Return the fields in which the variants differ.

    Leave out fields that distinguish no more variants than the fields before them.
    """
    fields: dict[str, None] = {}
    for document in documents:
        fields |= dict.fromkeys(document)
    shown: list[str] = []
    # The values of each variant on the axes found so far.
    values: list[tuple[Any, ...]] = [() for _ in documents]
    for axis in sorted(fields, key=_rank):
        finer = [(*own, each.get(axis)) for own, each in zip(values, documents, strict=True)]
        if len(set(finer)) > len(set(values)):
            shown.append(axis)
            values = finer
    return shown


def _labels(axes: Sequence[str]) -> dict[str, str]:
    """Return the last part of each axis, or all of it where last parts are equal."""
    last = {axis: axis.rpartition(".")[2] for axis in axes}
    used = list(last.values())
    return {axis: axis if used.count(short) > 1 else short for axis, short in last.items()}


def _document(variant: Chain) -> dict[str, Any]:
    """Return a variant's fields by dotted name.

    The sizes of its groups come first, because they often distinguish the groups.
    """
    split = "-".join(str(len(group)) for group in variant.scenario.groups)
    found = leaves(variant.model_dump(exclude={"name", "seed"}))
    fields = {name: _hashable(value) for name, value in found}
    for method in ("base.method", "method"):
        # It follows from the method's other fields.
        fields.pop(f"{method}.recipe")
    return {"scenario.split": split, **fields}


def _hashable(value: Any) -> Any:
    """Return a value with tuples for lists, which architectures of Transformers hold."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _name(axes: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return " ".join(axis_words(axis, value, labels[axis]) for axis, value in axes.items())


def axis_words(axis: str, value: Any, label: str | None = None) -> str:
    """Return an axis and its value for a name: `alpha=0.5`. A method is named without its axis."""
    if axis == "method.name":
        return value
    return f"{label or axis.rpartition('.')[2]}={axis_text(value)}"


def axis_text(value: Any) -> str:
    """Return a value for a name. Groups read a,b|c,d."""
    if isinstance(value, tuple):
        return "|".join(_group_text(group) for group in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _group_text(group: Any) -> str:
    return ",".join(map(str, group)) if isinstance(group, tuple) else str(group)


def _rank(axis: str) -> int:
    """Return the position of an axis in names: the method comes first."""
    found = (rank for rank, start in enumerate(ORDER) if axis.startswith(start))
    return next(found, len(ORDER))
