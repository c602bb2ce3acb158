"""Say why a step is not published: the published step that comes nearest, and what differs.

A step is found by a key that is made of its whole document. When a plan wants to train a step that
a person believes to be there, some field of the document is another: a default that changed, other
data, another seed. The nearest published step is the one that differs in the fewest fields.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from orchestrator.planning.chain import leaves
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StoredStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from training.step_config import StepConfig

SHOWN_DIFFERENCES = 6
SHOWN_CHARACTERS = 40
DATA = "task.data"
# What follows from other data, and says nothing of its own then.
OF_DATA = ("selection", "images", "memory", "memory_images", "pixel_shares")
PARENT = "parent"
Fields = dict[str, str]  # the values of a document, as JSON, by dotted field


class Difference(NamedTuple):
    """One field in which a step differs from a published one. A value is None without the field."""

    field: str  # dotted, as in the step's document
    wanted: str | None  # as JSON
    published: str | None
    is_default: bool  # whether what is wanted is the field's default today

    def __str__(self) -> str:
        """Return the difference in words."""
        if self.field == DATA:
            return "another digest of the data"
        if self.field == "task.selection":
            return "other images of the same data"
        if self.field == PARENT:
            return f"another parent (there {_shown(self.published)})"
        if self.published is None:
            return f"{self.field} {_shown(self.wanted)} (not there)"
        if self.wanted is None:
            return f"no {self.field} (there {_shown(self.published)})"
        default = ", the default" if self.is_default else ""
        return f"{self.field} {_shown(self.wanted)}{default} (there {_shown(self.published)})"


class Nearest(NamedTuple):
    """The published step that is most like a step which is to be trained."""

    record: StepRecord
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        """Return in a sentence which step it is and what differs."""
        made = self.record.provenance
        origin = f"{made.created[:10]} by {made.user}@{made.host}"
        if not self.differences:
            return f"it was published on {origin}, and its files are gone"
        shown = [str(each) for each in self.differences[:SHOWN_DIFFERENCES]]
        more = len(self.differences) - len(shown)
        if more:
            shown.append(f"and {more} more")
        return f"nearest is {self.record.key} of {origin}: {', '.join(shown)}"


class PublishedSteps:
    """Published steps to compare with. Adopted ones are left out: no plan trains one."""

    def __init__(self, records: Iterable[StepRecord]) -> None:
        self._known: list[tuple[StepRecord, Fields, frozenset[tuple[str, str]]]] = []
        for record in records:
            if record.adoption is None:
                fields = _fields(record.step, record.parent)
                self._known.append((record, fields, frozenset(fields.items())))

    def nearest(self, planned: PlannedStep) -> Nearest | None:
        """Return the step that differs in the fewest fields, of equals the newest; None of none."""
        if not self._known:
            return None
        wanted = _fields(planned.step, planned.parent)
        values = wanted.items()

        def rank(known: tuple[StepRecord, Fields, frozenset[tuple[str, str]]]) -> tuple[int, bool]:
            record, _, pairs = known
            return len(values - pairs), record.index != planned.index

        newest_first = sorted(
            self._known, key=lambda known: known[0].provenance.created, reverse=True
        )
        record, published, _ = min(newest_first, key=rank)
        return Nearest(record, _differences(planned.step, wanted, published))


def nearest_steps(
    tree: StepTree, stored: Mapping[str, StoredStep], repository: Repository
) -> dict[str, Nearest | None]:
    """Return the nearest published step of each step without a record, by key.

    Reads the record of every published step, once.
    """
    names = map(layout.step_record, sorted(repository.scored_steps()))
    published = PublishedSteps(repository.listed(names, StepRecord))
    return {
        key: published.nearest(node.planned)
        for key, node in tree.nodes.items()
        if stored[key].record is None
    }


def describe_nearest(nearest: Nearest | None) -> str:
    """Return in a sentence why a step is not published."""
    return str(nearest) if nearest else "the store has no trained step to compare with"


def nearest_document(nearest: Nearest | None) -> dict[str, Any] | None:
    """Return the nearest step as a JSON document."""
    if nearest is None:
        return None
    return {
        "key": nearest.record.key,
        "differences": [each._asdict() for each in nearest.differences],
    }


def _differences(step: StepConfig, wanted: Fields, published: Fields) -> tuple[Difference, ...]:
    """Return the fields that differ, in the order of the document."""
    names = [name for name in wanted | published if wanted.get(name) != published.get(name)]
    hidden = _explained(names)
    return tuple(
        Difference(name, wanted.get(name), published.get(name), _is_default(step, name))
        for name in names
        if name not in hidden
    )


def _explained(names: Iterable[str]) -> set[str]:
    """Return the fields whose difference follows from that of another one."""
    names = set(names)
    hidden: set[str] = set()
    if DATA in names:
        hidden |= {f"task.{name}" for name in OF_DATA}
    if "method.name" in names:
        hidden |= {name for name in names if name.startswith("method.")} - {"method.name"}
    return hidden


def _fields(step: StepConfig, parent: str | None) -> Fields:
    fields = {name: json.dumps(value) for name, value in leaves(step.model_dump(mode="json"))}
    return fields | {PARENT: json.dumps(parent)}


def _is_default(step: StepConfig, name: str) -> bool:
    """Return whether a field of the document has the value that it has when nobody sets it."""
    *above, last = name.split(".")
    document: Any = step
    for part in above:
        document = getattr(document, part, None)
    field = type(document).model_fields.get(last) if isinstance(document, BaseModel) else None
    if field is None or field.is_required() or last == "name":
        return False  # a method's name has a default that chooses nothing
    return getattr(document, last) == field.get_default(call_default_factory=True)


def _shown(value: str | None) -> str:
    """Return a value as JSON, without the middle of a long one."""
    text = str(value).strip('"')
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]}…{text[-half:]}"
