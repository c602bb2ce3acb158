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

An axis may also be one of Ray Tune's search spaces, from which samples are drawn:

    sweep(chain, {"method.alpha": tune.uniform(0, 1), "seed": range(3)}, samples=20)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from orchestrator.cluster.search_spaces import grid_values, is_space
from orchestrator.planning.chain import Chain, with_current_recipes
from orchestrator.planning.fields import Axis, every_combination
from orchestrator.planning.sampling import draw_samples
from orchestrator.planning.search import Search, with_samples
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from training.config import InputError, ModelConfig

if TYPE_CHECKING:
    from orchestrator.cluster.tune_searchers import MakeSearcher
    from orchestrator.planning.paper_numbers import Expected


@dataclass(frozen=True)
class Campaign:
    """A question and the chains that answer it. Their names differ, else it raises InputError."""

    name: str
    question: str  # for people: the docstring of the campaign's file
    chains: tuple[Chain, ...]
    paper: tuple["Expected", ...] = ()  # which published numbers belong to which variants
    search: Search | None = None
    """What names the chains of a searched campaign, which has none until `searched` reads them."""
    named_by: str = ""  # the same in words, also of a campaign that is read from its record
    give: tuple[str, ...] = ()  # what each kind of work is given, as --give takes it; in no key

    def __post_init__(self) -> None:
        names = [chain.name for chain in self.chains]
        if not names and self.search is None:
            raise InputError(f"campaign {self.name!r} has no chains")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"two chains of campaign {self.name!r} are called {twice!r}: "
                "give each a name of its own"
            )

    def changed(self, change: Callable[[Chain], Chain]) -> "Campaign":
        """Return the campaign with every chain changed, those to come too."""
        search = self.search and replace(self.search, start=change(self.search.start))
        return replace(self, chains=tuple(map(change, self.chains)), search=search)


@overload
def sweep(
    start: Chain,
    axes: Mapping[str, Axis],
    *,
    samples: int | None = None,
    sampling_seed: int = 0,
    search: None = None,
) -> tuple[Chain, ...]: ...


@overload
def sweep(
    start: Chain,
    axes: Mapping[str, Axis],
    *,
    samples: int,
    sampling_seed: int = 0,
    search: "str | MakeSearcher",
) -> Search: ...


def sweep(
    start: Chain,
    axes: Mapping[str, Axis],
    *,
    samples: int | None = None,
    sampling_seed: int = 0,
    search: "str | MakeSearcher | None" = None,
) -> tuple[Chain, ...] | Search:
    """Return `start` with every combination of the axes' values. Each chain is checked.

    Chains are called after `start` and their values: `<start> alpha=0.5 seed=1`.

    Args:
        start: The chain that the others differ from.
        axes: Values by dotted field, or values by the names that chains are called after, or one
            of Ray Tune's search spaces, such as `tune.uniform(0, 1)`. The last axis varies
            fastest. Fields are replaced in order, so `method` may stand before `method.alpha`.
        samples: How many samples are drawn from the search spaces together. Each is combined with
            all values of the other axes. Drawn floats have four significant digits.
        sampling_seed: The samples follow from it alone, on every machine. More samples keep the
            earlier ones.
        search: `optuna`, or a function of points and a seed that returns a searcher of Ray Tune's.
            It names the samples one after another, by the mean mIoU over the seeds of those that
            are trained. Then the only other axis may be `seed`, and `chains()` returns a search.

    Raises:
        InputError: A field does not exist, or it cannot have the value, or an argument is of
            another type.
    """
    axes = _checked_axes(start, axes)
    if search is not None:
        return Search(start, axes, samples or 0, search, sampling_seed)
    spaces = {axis: space for axis, space in axes.items() if is_space(space)}
    drawn = [{}]
    if spaces or samples is not None:
        _check_samples(spaces, samples)
        drawn = draw_samples(spaces, samples or 0, sampling_seed)
    chains: list[Chain] = []
    for sample in drawn:
        values = {axis: (sample[axis],) if axis in sample else axes[axis] for axis in axes}
        chains += every_combination(start, values)
    return tuple(chains)


def _checked_axes(start: Chain, axes: Mapping[str, Axis]) -> dict[str, Axis]:
    """Return the axes, or raise InputError if they or the start are of another type."""
    if not isinstance(start, Chain):
        raise InputError(f"a sweep starts from a chain, such as digits_wilson(), not {start!r:.80}")
    if not isinstance(axes, Mapping):
        raise InputError(
            f"the axes of a sweep are values by field, {{'seed': (1, 2)}}, not {axes!r:.80}"
        )
    return {axis: grid_values(values) for axis, values in axes.items()}


def _check_samples(spaces: Mapping[str, Any], samples: int | None) -> None:
    """Raise InputError unless it is said what is drawn, and how often."""
    if not spaces:
        raise InputError("samples are drawn from search spaces, such as tune.uniform(0, 1)")
    if samples is None or samples < 1:
        raise InputError(f"say how many samples are drawn of {', '.join(spaces)}: samples=20")
    if "seed" in spaces:
        raise InputError("seeds repeat an experiment: give them as values, such as range(3)")


def campaign_with_current_recipes(campaign: Campaign) -> Campaign:
    """Return the campaign with the recipes that today's code trains.

    Raise InputError if a chain names the recipe of another version of the code.
    """
    return campaign.changed(with_current_recipes)


def with_encoder_weights(
    campaign: Campaign, complete: Callable[[ModelConfig], ModelConfig]
) -> Campaign:
    """Return the campaign with pretrained weights for every encoder.

    Args:
        campaign: The campaign as its file has it.
        complete: Returns a model with the digest of its weights. It is called once per model.
    """
    models: dict[ModelConfig, ModelConfig] = {}

    def change(chain: Chain) -> Chain:
        if chain.model not in models:
            models[chain.model] = complete(chain.model)
        return chain.model_copy(update={"model": models[chain.model]})

    return campaign.changed(change)


def searched(campaign: Campaign, store: Store) -> Campaign:
    """Return a searched campaign with the chains of its samples so far; another as it is."""
    if campaign.search is None:
        return campaign
    # The list belongs to the recipes that today's code trains.
    search = replace(campaign.search, start=with_current_recipes(campaign.search.start))
    search = with_samples(search, store)
    # A searcher may name a sample twice.
    chains = dict.fromkeys(chain for values in search.samples for chain in search.chains(values))
    return replace(campaign, chains=tuple(chains), search=search, named_by=search.words)


def with_adopted(chain: Chain, step: StepRecord) -> Chain:
    """Return the chain with an adopted step as its step 0, and with that step's model.

    Raise InputError for a step that was trained.
    """
    if step.adoption is None:
        raise InputError(
            f"step {step.key} was trained, not adopted: chains find trained steps by themselves"
        )
    base = chain.base.model_copy(update={"method": step.step.method})
    return chain.model_copy(update={"base": base, "model": step.step.model})
