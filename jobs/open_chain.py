"""Open a chain that is given by options: with its groups, lists, encoder weights, adopted step."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.adopted import find_adopted
from jobs.options import JobOptions
from training.config import InputError

if TYPE_CHECKING:
    from orchestrator.datasets.image_lists import Lists
    from orchestrator.datasets.pretrained import PretrainedWeights
    from orchestrator.planning.chain import Chain
    from orchestrator.planning.planner import Planner
    from orchestrator.store.base import Store


@dataclass(frozen=True)
class NewChainOptions(JobOptions):
    """Options of a job that trains one chain, which put groups and lists into it."""

    groups: tuple[str, ...] | None = None
    """Class names of each step, separated by commas, steps by spaces: cat,horse,sofa cow,dog."""
    split: str | None = None
    """Groups by number, over the dataset's classes in order: 15-5 is 15 classes, then 5 at a time;
    or coco-voc."""
    selections: Path | None = None
    """Folder with lists of each step's training images, train-0.npy or .txt and so on, instead of a
    setting's rule."""


class OpenChain(NamedTuple):
    """A chain that is complete, and what it takes to plan and to train it."""

    chain: "Chain"
    planner: "Planner"
    weights: "PretrainedWeights | None"  # fetched and checked, but not stored yet
    lists: "Mapping[str, Lists]"  # by digest; not stored yet

    def publish(self, store: "Store") -> None:
        """Store the encoder's weights and the lists, which a training reads."""
        from orchestrator.datasets.image_lists import publish_lists

        if self.weights:
            self.weights.publish(store)
        for lists in self.lists.values():
            publish_lists(store, lists)


@contextmanager
def open_chain(chain: "Chain", options: NewChainOptions, store: "Store") -> Iterator[OpenChain]:
    """Put what the options name into a chain. Lists and weights are checked, and not stored.

    Raises:
        InputError: The options contradict each other, or what they name does not fit.
        StoreError: The store does not answer.
    """
    from orchestrator.planning.campaign import with_adopted
    from orchestrator.planning.fields import with_field
    from orchestrator.planning.planner import Planner

    if options.encoder_weights and options.adopted:
        raise InputError("give either --encoder-weights or --adopted, whose encoder is trained")
    chain = _with_groups(chain, options, store)
    lists = _lists(chain, options, store)
    for digest in lists:
        chain = with_field(chain, "scenario.selections", digest)
    if options.adopted:
        chain = with_adopted(chain, find_adopted(store, options.adopted))
    weights = None
    with ExitStack() as fetched:
        if options.encoder_weights:
            # Checking weights imports torch.
            from orchestrator.datasets.pretrained import PretrainedWeights

            weights = fetched.enter_context(PretrainedWeights(*options.encoder_weights))
            chain = with_field(chain, "model", weights.complete(chain.model))
        planner = Planner(
            store,
            weights.digests if weights else (),
            new_lists=lists,
            allow_overlap=options.allow_overlap,
        )
        yield OpenChain(chain, planner, weights, lists)


def _with_groups(chain: "Chain", options: NewChainOptions, store: "Store") -> "Chain":
    """Return the chain with the groups that --groups or --split names."""
    from orchestrator.datasets.catalog import resolve
    from orchestrator.planning.fields import with_field
    from training.named_groups import named_groups
    from training.scenario import split_groups

    if options.groups and options.split:
        raise InputError("give either --groups or --split")
    if not (options.groups or options.split):
        return chain
    _, manifest = resolve(store, chain.scenario.dataset)
    if options.groups:
        groups = named_groups(options.groups, manifest.classes)
    else:
        groups = split_groups(options.split or "", manifest.classes)
    return with_field(chain, "scenario.groups", groups)


def _lists(chain: "Chain", options: NewChainOptions, store: "Store") -> "dict[str, Lists]":
    """Return the lists of --selections by their digest."""
    from orchestrator.datasets.image_lists import lists_digest, read_selections

    if options.selections is None:
        return {}
    lists = read_selections(store, options.selections, chain.scenario.dataset)
    return {lists_digest(lists): lists}
