"""A stopping rule judges each chain once, whichever runs ask and in whichever order."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.stopping import Stopping, in_order_of_publication, stopping_rule
from orchestrator.records.repository import Repository
from orchestrator.records.verdicts import find_verdicts
from orchestrator.store.base import Store, StoreError
from orchestrator.store.open import open_store

SCORES = (0.13, 0.9, 0.3, 0.2, 0.1, 0.5, 0.6, 0.4, 0.8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def node(number: int, children: tuple[str, ...] = ("next",)) -> Any:
    """Return step 1 of a chain of its own."""
    chain = SimpleNamespace(name=f"chain {number}", scenario=None, evaluation=None)
    return SimpleNamespace(
        key=f"{number:016x}",
        children=children,
        chains=(number,),
        plan=SimpleNamespace(chain=chain, manifest_digest=""),
        planned=SimpleNamespace(index=1, step=SimpleNamespace(task=SimpleNamespace(groups=()))),
    )


def stopping(store: Store, limits: Limits, name: str = "alpha: 0/1") -> Stopping:
    rule = stopping_rule(limits)
    assert rule
    return Stopping(rule, name, Repository(store), lambda node: SCORES[int(node.key, 16)])


def continued(judge: Stopping, order: Iterable[int]) -> set[int]:
    return {number for number in order if not judge.reason(node(number))}


@pytest.mark.parametrize("limits", [Limits(asha=3), Limits(stop_behind=0.2)])
def test_another_run_and_another_order_give_the_same_verdicts(store: Store, limits: Limits):
    best_first = sorted(range(9), key=lambda number: -SCORES[number])
    first = continued(stopping(store, limits), best_first)
    assert 1 in first
    assert 0 not in first
    for order in (range(9), reversed(range(9))):
        assert continued(stopping(store, limits), order) == first


def test_two_runs_at_once_take_the_verdict_that_was_written_first(store: Store):
    ours, theirs = (stopping(store, Limits(asha=2)) for _ in range(2))
    assert not ours.reason(node(0))  # the first has nobody to be compared with
    assert not theirs.reason(node(1))
    # Of theirs alone, chain 0 would be stopped.
    assert not theirs.reason(node(0))
    assert theirs.reason(node(4))
    assert ours.reason(node(4))


def test_a_rule_learns_from_the_scores_that_were_judged_before(store: Store):
    continued(stopping(store, Limits(asha=2)), (1, 8, 6))
    later = stopping(store, Limits(asha=2))
    continued(later, (1, 8, 6))
    assert "not among the best 1 in 2" in later.reason(node(0))


def test_verdicts_belong_to_a_campaign_and_a_rule(store: Store):
    continued(stopping(store, Limits(asha=2)), range(9))
    repository = Repository(store)
    stopped = find_verdicts(repository, "alpha: 0/1")
    assert {verdict.rule for verdict in stopped.values()} == {"asha 2"}
    assert all(verdict.reason for verdict in stopped.values())
    assert len(find_verdicts(repository, "alpha: 0/1", "asha 2")) == 9
    assert not find_verdicts(repository, "alpha: 0/1", "asha 3")
    assert not find_verdicts(repository, "another")
    assert not stopping(store, Limits(asha=2), "another").reason(node(4))


def test_the_last_step_of_a_chain_is_not_judged(store: Store):
    judge = stopping(store, Limits(stop_behind=0))
    judge.reason(node(1))
    assert not judge.reason(node(4, children=()))
    assert len(find_verdicts(Repository(store), "alpha: 0/1", "stop-behind 0")) == 1


def test_without_its_score_a_chain_is_not_judged(store: Store):
    def fail(node: object) -> float:
        raise StoreError("the server does not answer")

    unscored: Callable[[object], float | None] = lambda node: None  # noqa: E731
    rule = stopping_rule(Limits(asha=2))
    assert rule
    assert not Stopping(rule, "c", Repository(store), unscored).reason(node(0))
    with pytest.raises(StoreError):
        Stopping(rule, "c", Repository(store), fail).reason(node(0))
    assert not find_verdicts(Repository(store), "c", "asha 2")


def test_published_steps_are_judged_in_the_order_of_their_publication():
    nodes = [node(number) for number in range(4)]
    created = {0: "2026-11-03", 1: "2026-11-01", 3: "2026-11-02"}
    stored: Any = {}
    for each in nodes:
        when = created.get(each.chains[0])
        provenance = SimpleNamespace(created=when)
        stored[each.key] = SimpleNamespace(
            record=SimpleNamespace(provenance=provenance) if when else None
        )
    ordered = in_order_of_publication(nodes, stored)
    assert [each.chains[0] for each in ordered] == [1, 3, 0]
