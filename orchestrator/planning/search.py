"""Define searched campaigns, whose samples a Ray Tune searcher names one after another.

The list of samples is in the store, `searches/<search>/<number>.json`. Each sample is written
before anything of it is trained, and only if the store has none of its number. So a run that
continues has the same list, and runs at the same time share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.search_spaces import (
    check_space,
    describe_space,
    extremes,
    is_space,
    searcher_name,
)
from orchestrator.planning.chain import Chain
from orchestrator.planning.fields import Axis, every_combination, with_field
from orchestrator.planning.sampling import draw_samples, draw_seed
from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.provenance import person
from orchestrator.records.publish import publish_record
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.canonical import digest
from training.config import Document, InputError

if TYPE_CHECKING:
    from orchestrator.cluster.tune_searchers import MakeSearcher, PastSample

Values = Mapping[str, Any]  # of a sample, by field
SCALARS = (bool, int, float, str, type(None))  # what `tune.choice` may choose from in a search


class SampleRecord(Document):
    """A sample as the searcher named it, before anything of it was trained."""

    format: int = 1
    search: str  # its key
    number: int  # from 0
    values: dict[str, Any]  # by field
    chains: tuple[dict[str, Any], ...]  # Chain documents, one of each seed
    scored: tuple[int, ...]
    """The earlier samples whose scores the searcher knew."""
    named_by: str  # the searcher
    asked_by: str  # the person
    created: str  # UTC, ISO 8601


@dataclass(frozen=True)
class Search:
    """A question to a searcher: which values of these fields give the best mean mIoU?"""

    start: Chain
    axes: Mapping[str, Axis]  # Tune's search spaces by field, and `seed`
    count: int  # of samples
    searcher: "str | MakeSearcher"
    seed: int
    samples: tuple[Values, ...] = ()  # so far

    def __post_init__(self) -> None:
        others = [axis for axis in self.axes if axis not in self.spaces and axis != "seed"]
        if others or not self.spaces:
            raise InputError(
                f"a search is over Tune's search spaces and repeats each sample by seed; "
                f"{others[0] if others else 'this one'!r} has no space: give its values as "
                "tune.choice((...)), or sweep over it without search="
            )
        if self.count < 1:
            raise InputError("say how many samples the search may name: samples=20")
        if isinstance(self.searcher, str) and self.searcher != "optuna":
            raise InputError(
                f"there is no searcher {self.searcher!r}: use 'optuna', or a function that takes "
                "points and a seed, and returns one of ray.tune.search"
            )
        for field, space in self.spaces.items():
            _check_searchable(self.start, field, space)

    @cached_property
    def spaces(self) -> dict[str, Any]:
        """Return Tune's search spaces by field."""
        return {axis: space for axis, space in self.axes.items() if is_space(space)}

    @cached_property
    def key(self) -> str:
        """Return the key of the list of samples. More samples continue the same list."""
        return digest(
            {
                "start": self.start,
                "spaces": self.bounds,
                "seeds": [chain.seed for chain in self.chains(self.random_samples(1)[0])],
                "searcher": self.searcher_name,
                "seed": self.seed,
            }
        )[:KEY_LENGTH]

    @property
    def complete(self) -> bool:
        """Return whether all samples are named. The first one may not be written yet."""
        return 1 < self.count == len(self.samples)

    @property
    def searcher_name(self) -> str:
        """Return the searcher's name."""
        return searcher_name(self.searcher)

    @property
    def bounds(self) -> dict[str, str]:
        """Return the search spaces in words, by field."""
        return {field: describe_space(space) for field, space in self.spaces.items()}

    @property
    def words(self) -> str:
        """Return the searcher and the search spaces in words."""
        return f"{self.searcher_name} over {bounds_in_words(self.bounds)}"

    def chains(self, values: Values) -> tuple[Chain, ...]:
        """Return the chains of a sample, one of each seed."""
        axes = {axis: (values[axis],) if axis in values else self.axes[axis] for axis in self.axes}
        return tuple(every_combination(self.start, axes))

    def random_samples(self, count: int) -> list[dict[str, Any]]:
        """Return samples that are drawn, not searched, to plan what a sample costs."""
        return draw_samples(self.spaces, count, self.seed)

    def name_next(self, past: "Sequence[PastSample]") -> "Values | str | None":
        """Ask the searcher. The arguments and results are those of `next_values`."""
        from orchestrator.cluster.tune_searchers import next_values

        seed = draw_seed(self.seed, "search", len(past))
        return next_values(self.searcher, self.spaces, past, seed)


def bounds_in_words(bounds: Mapping[str, str]) -> str:
    """Return search spaces in a sentence's words: `method.alpha: 0 to 1; ...`."""
    return "; ".join(f"{field}: {words}" for field, words in bounds.items())


def publish_sample(
    store: Store, search: Search, number: int, values: Values, scored: Sequence[int]
) -> SampleRecord:
    """Write a sample unless there is one of its number; return the one that was written first."""
    record = SampleRecord(
        search=search.key,
        number=number,
        values=dict(values),
        chains=tuple(chain.model_dump(mode="json") for chain in search.chains(values)),
        scored=tuple(scored),
        named_by=search.searcher_name,
        asked_by=person(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return publish_record(store, layout.sample_record(search.key, number), record)


def recorded_samples(store: Store, search: str) -> list[SampleRecord]:
    """Return the list of samples of a search, as far as there is no gap."""
    found = Repository(store).listed(store.list(layout.samples_folder(search)), SampleRecord)
    return [record for number, record in enumerate(found) if record.number == number]


def with_samples(search: Search, store: Store) -> Search:
    """Return the search with its list of samples, but no more than it asks for.

    Where there is no list yet, it has the sample that the searcher names first, which is not
    written. A plan shows it.
    """
    found = [record.values for record in recorded_samples(store, search.key)[: search.count]]
    if not found:
        first = search.name_next(())
        if not isinstance(first, Mapping):
            raise InputError(f"the searcher {search.searcher_name!r} names no sample")
        found = [dict(first)]
    return replace(search, samples=tuple(found))


def _check_searchable(start: Chain, field: str, space: Any) -> None:
    """Raise InputError unless a chain can have the values between which a searcher chooses."""
    check_space(field, space)
    ends = extremes(space)
    if field == "seed" or not ends or not all(isinstance(value, SCALARS) for value in ends):
        raise InputError(
            f"a search over {field!r} needs bounds, or choices that are numbers or text; "
            f"{describe_space(space)} has none"
        )
    for value in ends:
        with_field(start, field, value)
