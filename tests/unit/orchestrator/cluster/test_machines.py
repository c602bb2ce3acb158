"""What an autoscaler's configuration, or a RayCluster, lets a cluster add."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cluster import machines
from orchestrator.cluster.machines import (
    _configuration_file,
    _growth,
    growth_of,
    kuberay_growth,
    read_growth,
)
from orchestrator.cluster.packing import Growth, NodeType

INFRA = Path(__file__).parents[4] / "infra"


def test_the_configuration_of_our_aws_cluster() -> None:
    growth = growth_of(yaml.safe_load((INFRA / "ray" / "aws.yaml").read_text()))
    assert growth == Growth((NodeType("spot_a10g", {"CPU": 16.0, "GPU": 1.0}, 8),), 8)


def test_the_whole_cluster_may_be_smaller_than_its_kinds() -> None:
    config: dict[str, Any] = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "unbounded": {"resources": {"CPU": 4}},
            "off": {"resources": {"CPU": 8}, "max_workers": 0},
        },
    }
    assert growth_of(config) == Growth((NodeType("unbounded", {"CPU": 4.0}, 3),), 3)


def group(name: str, cpu: str, gpu: int, most: int) -> dict[str, Any]:
    limits = {"cpu": cpu, "memory": "8Gi"} | ({"nvidia.com/gpu": str(gpu)} if gpu else {})
    container = {"name": "ray", "resources": {"limits": limits, "requests": limits}}
    return {
        "groupName": name,
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": {"spec": {"containers": [container]}},
    }


@pytest.mark.parametrize("scales", [True, False])
def test_the_groups_of_a_raycluster(scales: bool) -> None:
    head = group("head", "2", 0, 0) | {"rayStartParams": {"num-cpus": "0"}}
    resource = {
        "metadata": {"name": "lab", "namespace": "default"},
        "spec": {
            "enableInTreeAutoscaling": scales,
            "headGroupSpec": head,
            "workerGroupSpecs": [group("spot-gpu", "13", 1, 8), group("cpu", "4", 0, 0)],
        },
    }
    growth = kuberay_growth(resource)
    if not scales:
        assert growth == Growth((), 0)
        return
    (kind,) = growth.types
    assert (kind.name, kind.most) == ("spot-gpu", 8)
    assert (kind.resources["CPU"], kind.resources["GPU"]) == (13, 1)


def test_the_autoscaler_of_this_cluster_is_found() -> None:
    def started(port: int, *more: str) -> tuple[list[str], str]:
        return ["python", "monitor.py", f"--gcs-address=10.0.0.1:{port}", *more], "/srv"

    commands = [
        ([], ""),
        started(7000, "--autoscaling-config=/x.yaml"),
        started(6379, "--autoscaling-config=~/c.yaml"),
        started(7001),
        started(7002, "--autoscaling-config=conf/c.yaml"),
    ]
    assert _configuration_file(commands, "10.0.0.1:6379") == Path("~/c.yaml")
    assert _configuration_file(commands, "10.0.0.1:7000") == Path("/x.yaml")
    assert _configuration_file(commands, "10.0.0.1:7001") is None
    assert _configuration_file(commands, "10.0.0.1:7002") == Path("/srv/conf/c.yaml")


def test_a_configuration_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    absent, damaged = tmp_path / "absent.yaml", tmp_path / "damaged.yaml"
    damaged.write_text("max_workers: [")
    for path in (absent, damaged, Path("~nobody-of-this-name/c.yaml")):
        growth, problem = read_growth(path)
        assert not growth.known
        assert problem is not None
        assert f"{path} cannot be read on the head" in problem
        assert "only the cluster's living machines count" in problem
    damaged.write_text("max_workers: 0")
    assert read_growth(damaged) == (Growth((), 0), None)


class Task:
    """A task of Ray that is never run."""

    def remote(self) -> None:
        """Start nothing."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Growth, str | None]]:
    """Return the answers that the head is going to give, the last one for ever."""
    given: list[tuple[Growth, str | None]] = []
    monkeypatch.setattr("ray.remote", lambda **options: lambda function: Task())
    monkeypatch.setattr("ray.get", lambda reference: given.pop(0) if len(given) > 1 else given[0])
    monkeypatch.setattr(machines, "_answers", {})
    monkeypatch.setattr(machines, "_told", set())
    return given


def pass_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic() + seconds
    monkeypatch.setattr(machines.time, "monotonic", lambda: now)


def test_the_driver_warns_once_of_what_the_head_cannot_read(
    answers: list[tuple[Growth, str | None]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a task of the head logs is not seen here."""
    answers.append((Growth((), 0, known=False), "cannot be read"))
    for _ in range(3):
        assert not _growth("made up").known
        pass_time(60, monkeypatch)
    assert [record.message for record in caplog.records] == ["cannot be read"]


def test_what_a_cluster_can_add_is_asked_for_again(
    answers: list[tuple[Growth, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = Growth((), 0, known=False), "not now"
    small, large = (Growth((NodeType("gpu", {"GPU": 1.0}, most),), most) for most in (2, 8))
    answers += [unknown, (small, None), unknown, (large, None)]
    assert not _growth("job").known
    pass_time(31, monkeypatch)
    assert _growth("job") == small
    pass_time(60, monkeypatch)
    assert _growth("job") == small
    pass_time(301, monkeypatch)
    assert _growth("job") == small  # it could not be read, and is as it was
    pass_time(301, monkeypatch)
    assert _growth("job") == large
