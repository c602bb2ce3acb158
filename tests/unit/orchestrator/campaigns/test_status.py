"""Test that the store shows which worker runs a step, how far it is, and why steps failed."""

import json
from io import StringIO

import pytest
from rich.console import Console

from orchestrator.campaigns.status import StepStatus, campaign_status, counts, status_table
from orchestrator.planning.campaign import sweep
from orchestrator.planning.step_tree import StepTree, build_tree
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.lease import Lease
from stepchain.presets import digits_wilson

HALFWAY = {"stage": "train", "iteration": 30, "total": 60, "images_per_second": 16.0, "loss": 0.5}


@pytest.fixture
def tree(store, planned, publish_step) -> StepTree:
    """Return five chains that share a published step 0."""
    built = build_tree(
        [
            planned(chain)
            for chain in sweep(digits_wilson(), {"method.alpha": (0, 0.3, 0.5, 0.7, 1)})
        ]
    )
    publish_step(store, built.chains[0], built.chains[0].steps[0])
    return built


def attempt(store: Store, key: str, name: str, **files: str) -> None:
    for file, text in files.items():
        store.write(f"{layout.attempt_folder(key, name)}/{file.replace('__', '.')}", text.encode())


def look(tree: StepTree, store: Store) -> list[StepStatus]:
    """Return the statuses of the chains' last steps, in order."""
    found = {status.key: status for status in campaign_status(tree, store)}
    return [found[plan.steps[-1].key] for plan in tree.chains]


def test_each_state_is_told(store, tree, publish_step):
    running, failed, interrupted = (plan.steps[1].key for plan in tree.chains[1:4])
    publish_step(store, tree.chains[0], tree.chains[0].steps[1])
    assert Lease(store, layout.step_lease(running), "ada@node7").acquire()
    attempt(store, running, "20260101T000000-aa", error__txt="an older one")
    attempt(store, running, "20260102T000000-bb", progress__json=json.dumps(HALFWAY))
    attempt(
        store,
        failed,
        "20260101T000000-aa",
        error__txt="Traceback ...\nValueError: the loss is not finite\n\n",
    )
    attempt(store, interrupted, "20260101T000000-aa", progress__json=json.dumps(HALFWAY))
    statuses = look(tree, store)
    assert [status.state for status in statuses] == [
        "published",
        "running",
        "failed",
        "interrupted",
        "to train",
    ]
    assert statuses[1].detail == "ada@node7: train, 30/60, 30 s to go, loss 0.5000, 16 images/s"
    assert statuses[2].detail.startswith("ValueError: the loss is not finite (")
    assert statuses[2].detail.endswith(
        f"{layout.attempt_folder(failed, '20260101T000000-aa')}/error.txt)"
    )
    assert "30/60" in statuses[3].detail
    assert statuses[4].detail == ""


def test_an_attempt_after_the_failed_one_counts(store, tree):
    key = tree.chains[0].steps[1].key
    attempt(store, key, "20260101T000000-aa", error__txt="ValueError: no")
    attempt(store, key, "20260102T000000-bb", progress__json=json.dumps({"stage": "fetch"}))
    assert look(tree, store)[0][3:5] == ("interrupted", "at fetch")


def test_a_step_that_has_just_begun_has_no_progress(store, tree):
    assert Lease(store, layout.step_lease(tree.chains[0].steps[1].key), "ada@node7").acquire()
    assert look(tree, store)[0][3:5] == ("running", "ada@node7")


def test_the_lease_of_the_dead_runs_nothing(store, tree):
    assert Lease(
        store, layout.step_lease(tree.chains[0].steps[1].key), "ada@node7", period=-1
    ).acquire()
    assert look(tree, store)[0].state == "to train"


def test_steps_wait_for_their_parents(store, planned):
    tree = build_tree([planned(digits_wilson())])
    base, weak = campaign_status(tree, store)
    assert (base.state, weak.state) == ("to train", "waiting")


def test_what_happens_is_shown_and_the_rest_counted(store, tree):
    running = tree.chains[2].steps[1].key
    assert Lease(store, layout.step_lease(running), "ada@node7").acquire()
    statuses = campaign_status(tree, store)
    assert counts(statuses) == {"published": 1, "running": 1, "to train": 4}
    assert [status.chains for status in statuses] == [5, 1, 1, 1, 1, 1]
    printed = StringIO()
    Console(width=120, file=printed, color_system=None).print(status_table(statuses))
    text = printed.getvalue()
    assert "1 published, 1 running, 4 to train" in text
    assert running in text
    assert "ada@node7" in text
    assert tree.chains[0].steps[1].key not in text


def test_steps_that_failed_alike_are_counted(store, tree):
    failed = [plan.steps[1].key for plan in tree.chains]
    for key in failed:
        error = "OSError: other" if key == failed[-1] else "ValueError: the loss is not finite"
        attempt(store, key, "20260101T000000-aa", error__txt=f"Traceback ...\n{error}\n")
    printed = StringIO()
    table = status_table(campaign_status(tree, store))
    Console(width=200, file=printed, color_system=None).print(table)
    text = printed.getvalue()
    assert [key in text for key in failed] == [True, True, True, False, True]
    assert "1 more failed" in " ".join(text.split())
