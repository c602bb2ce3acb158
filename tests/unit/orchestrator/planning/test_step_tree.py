"""Test step trees: equal steps are one node, and segments are runs without branches."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import StepTree, build_tree, first_steps, split_segments
from stepchain.presets import digits_mib
from training.config import Task
from training.data.manifest import Manifest
from training.step_config import StepConfig

MANIFEST = Manifest(classes=("a", "b"), splits={})


@cache
def document() -> StepConfig:
    chain = digits_mib()
    return StepConfig(
        task=Task(data="d", groups=((1,),), selection="s", images=20, supervision="pixel"),
        method=chain.base.method,
        model=chain.model,
        optimization=chain.optimization,
        augmentation=chain.augmentation,
    )


def plan(name: str, keys: Sequence[str], crop: int | None = None) -> PlannedChain:
    """Return a chain of steps with these keys, each the parent of the next."""
    chain = with_field(with_field(digits_mib(), "name", name), "evaluation.crop", crop)
    parents = [None, *keys]
    steps = tuple(
        PlannedStep(index, document(), key, parents[index], ("a",), np.arange(20))
        for index, key in enumerate(keys)
    )
    return PlannedChain(chain, "digest", MANIFEST, steps)


def shape(tree: StepTree) -> dict[str, tuple[str, str | None]]:
    """Return the keys of each segment's nodes in a row, and its parent, by the segment's id."""
    shapes = {}
    for segment in split_segments(tree):
        keys = "".join(node.key for node in segment.nodes)
        shapes[segment.id] = (keys, segment.parent)
    return shapes


def test_a_shared_prefix_is_one_segment():
    tree = build_tree([plan("one", "abcd"), plan("two", "abef"), plan("three", "abe")])
    assert list(tree.nodes) == list("abcdef")
    assert shape(tree) == {"b": ("ab", None), "d": ("cd", "b"), "f": ("ef", "b")}
    assert (tree.nodes["b"].chains, tree.nodes["e"].chains) == ((0, 1, 2), (1, 2))
    assert (tree.nodes["b"].parent, tree.nodes["b"].children) == ("a", ("c", "e"))
    assert (len(tree.nodes), tree.naive_steps) == (6, 11)


def test_chains_that_share_nothing_have_roots_of_their_own():
    assert shape(build_tree([plan("one", "ab"), plan("two", "cd")])) == {
        "b": ("ab", None),
        "d": ("cd", None),
    }


def test_the_same_chain_under_two_names_is_merged():
    tree = build_tree([plan("one", "ab"), plan("two", "ab")])
    assert shape(tree) == {"b": ("ab", None)}
    assert tree.nodes["b"].chains == (0, 1)
    assert tree.naive_steps == 4


def test_a_node_is_scored_in_every_way_that_its_chains_ask_for():
    tree = build_tree([plan("one", "ab"), plan("two", "ac", crop=32), plan("three", "ad")])
    assert [scoring.config.crop for _, scoring in tree.nodes["a"].scorings] == [None, 32]
    assert [scoring.config.crop for _, scoring in tree.nodes["c"].scorings] == [32]


def test_the_first_steps_of_a_chain():
    whole = plan("one", "abc")
    first = first_steps(whole, 1)
    assert (first.steps, first.whole) == (whole.steps[:2], False)
    assert first_steps(whole, 2) == first_steps(whole, None) == whole
    assert replace(first, steps=whole.steps, whole=True) == whole


@given(st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=12))
def test_any_tree_holds_what_its_chains_ask_for(words: list[str]):
    """Chains are words, and a step's key is the word up to it. Chains share their beginnings."""
    plans = []
    for number, word in enumerate(words):
        keys = [word[: end + 1] for end in range(len(word))]
        plans.append(plan(f"{number}", keys))
    tree = build_tree(plans)
    assert set(tree.nodes) == {word[: end + 1] for word in words for end in range(len(word))}
    assert (
        sum(len(node.chains) for node in tree.nodes.values())
        == tree.naive_steps
        == sum(map(len, words))
    )
    seen: set[str] = set()
    segments = split_segments(tree)
    ids = {segment.id for segment in segments}
    for segment in segments:
        assert segment.parent is None or segment.parent in ids
        for index, node in enumerate(segment.nodes):
            assert node.parent is None or node.parent in seen, "a step stands before its parent"
            assert (len(node.children) == 1) == (index < len(segment.nodes) - 1), (
                "cut where it does not branch, or not where it does"
            )
            assert node.key not in seen
            seen.add(node.key)
        assert segment.id == segment.nodes[-1].key
        assert segment.nodes[0].parent == segment.parent
    assert seen == set(tree.nodes)
