"""Chains that differ by seed alone are one variant: which chains belong together, what to call them, and how far they spread.

A cell of a campaign is a variant, and its seeds are repetitions of one experiment. Their mean is what is compared; the
standard deviation says how much a single run may be off, the confidence interval how well the mean is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.planning.chain import Chain, leaves

ORDER = (
    "method.name",
    "method",
    "scenario",
    "optimization",
    "model",
    "augmentation",
)  # of a cell's axes in its name


class Variant(NamedTuple):
    """Chains that are equal but for their seeds and names."""

    name: str  # what it alone is, among the cells: "alpha=0.5 setting=overlap"
    chains: tuple[int, ...]  # where they stand among those asked for, one of each seed
    axes: Mapping[
        str, Any
    ]  # its values of the dotted fields that tell the cells apart; a field that it lacks is left out


def group_variants(chains: Sequence[Chain]) -> tuple[Variant, ...]:
    """The variants among the chains, in the order they were asked for, named as they are or by what tells them apart."""
    members: dict[Chain, dict[int, int]] = {}  # by seed, the first chain of that seed
    for index, chain in enumerate(chains):
        variant = chain.model_copy(update={"name": "", "seed": 0})
        members.setdefault(variant, {}).setdefault(chain.seed, index)
    documents = [_document(variant) for variant in members]
    shown = _axes(documents)
    last = [axis.rpartition(".")[2] for axis in shown]
    labels = [
        short if last.count(short) == 1 else axis for axis, short in zip(shown, last, strict=True)
    ]
    axes = [_telling(document, documents, shown) for document in documents]
    own = [_own_words(chains[next(iter(seeds.values()))].name) for seeds in members.values()]
    if not all(own) or len(set(own)) < len(own):
        words = dict(zip(shown, labels, strict=True))
        own = [
            _name(telling, words) or variant.method.name
            for telling, variant in zip(axes, members, strict=True)
        ]
    return tuple(
        Variant(name, tuple(seeds.values()), telling)
        for name, telling, seeds in zip(own, axes, members.values(), strict=True)
    )


def _telling(
    document: dict[str, Any], documents: Sequence[dict[str, Any]], shown: Sequence[str]
) -> dict[str, Any]:
    """The variant's own axes. A field of its method is one only if another variant of that method has another value."""
    alike = [other for other in documents if other["method.name"] == document["method.name"]]

    def tells(axis: str) -> bool:
        own = axis.startswith("method.") and axis != "method.name"
        return axis in document and not (
            own and all(other.get(axis) == document[axis] for other in alike)
        )

    return {axis: document[axis] for axis in shown if tells(axis)}


def _own_words(name: str) -> str:
    """What a person called a chain, after the campaign and apart from the axes of a sweep: `frozen encoder`."""
    return " ".join(word for word in name.split()[1:] if "=" not in word)


def _axes(documents: Sequence[dict[str, Any]]) -> list[str]:
    """The fields on which the variants differ, without those that follow from the ones before."""
    axes = sorted(dict.fromkeys(name for document in documents for name in document), key=_rank)
    shown: list[str] = []
    places: list[tuple[Any, ...]] = [()] * len(
        documents
    )  # of each variant on the axes shown so far
    for axis in axes:
        finer = [
            (*place, document.get(axis)) for place, document in zip(places, documents, strict=True)
        ]
        if len(set(finer)) > len(set(places)):
            shown, places = [*shown, axis], finer
    return shown


def _document(variant: Chain) -> dict[str, Any]:
    """Its fields by dotted name; first the sizes of its groups, which often say enough of them."""
    split = "-".join(str(len(group)) for group in variant.scenario.groups)
    return {"scenario.split": split, **dict(leaves(variant.model_dump(exclude={"name", "seed"})))}


def _name(axes: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return " ".join(axis_words(axis, value, words[axis]) for axis, value in axes.items())


def axis_words(axis: str, value: Any, label: str | None = None) -> str:
    """An axis and its value in a name; a method is called by its name alone."""
    return (
        value if axis == "method.name" else f"{label or axis.rpartition('.')[2]}={axis_text(value)}"
    )


def axis_text(value: Any) -> str:
    """A value in a name: groups as a,b|c,d."""
    if isinstance(value, tuple):
        return "|".join(
            ",".join(map(str, group)) if isinstance(group, tuple) else str(group) for group in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rank(axis: str) -> int:
    """Where an axis stands in names: the method first."""
    return next((place for place, start in enumerate(ORDER) if axis.startswith(start)), len(ORDER))
