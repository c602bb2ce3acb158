"""Test which part of a large tree a plan prints."""

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.campaign import plan
from orchestrator.planning.step_tree import Segment
from orchestrator.planning.store_state import StepState


def segment(key: str, parent: str | None) -> Segment:
    node: Any = SimpleNamespace(key=key)
    return Segment(key, (node,), parent)


def test_of_a_large_tree_what_is_not_done_is_printed_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "SHOWN_SEGMENTS", 4)
    tree = [segment("root", None), *(segment(f"a{number}", "root") for number in range(9))]
    tree += [segment("other", None), segment("b", "other")]
    states = {each.id: StepState.PUBLISHED for each in tree}
    states |= {"a7": StepState.TO_TRAIN, "b": StepState.FAILED}
    stored: Any = {key: SimpleNamespace(state=state) for key, state in states.items()}
    assert [each.id for each in plan._shown(tree, stored)] == ["root", "a7", "other", "b"]
    states["b"] = StepState.PUBLISHED
    stored = {key: SimpleNamespace(state=state) for key, state in states.items()}
    assert [each.id for each in plan._shown(tree, stored)] == ["root", "a0", "a1", "a7"]
