"""The doctor asks the machines of a real Ray cluster, and goes on where one gives no answer."""

import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from jobs.doctor.cluster import ask_nodes, judge
from jobs.doctor.services import check_store
from orchestrator.cluster.connection import connect
from orchestrator.cluster.ray_tasks import NodeAnswer, NodeFailure, run_on_every_node

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    connect()
    yield
    ray.shutdown()


def refuse() -> None:
    raise OSError("the disk is gone")


def test_a_machine_tells_its_facts(tmp_path: Path) -> None:
    answers = ask_nodes(partial(check_store, str(tmp_path / "store")))
    (answer,) = answers
    assert isinstance(answer, NodeAnswer)
    assert answer.result["host"] == socket.gethostname()
    assert [finding.fix for finding in judge(answers, least_disk=0, least_shared=0)] == [""]


def test_a_machine_that_fails_or_is_mute_is_no_traceback() -> None:
    name = ray.nodes()[0]["NodeManagerHostname"]
    assert run_on_every_node(refuse, timeout=60) == [NodeFailure(name, "OSError: the disk is gone")]
    mute = partial(time.sleep, 60)
    assert run_on_every_node(mute, timeout=1) == [NodeFailure(name, "does not answer within 1 s")]
