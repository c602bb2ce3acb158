"""What an autoscaler's configuration, or a RayCluster, lets a cluster add."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cluster.machines import _configuration_file, growth_of, kuberay_growth
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
    mine = ["python", "monitor.py", "--gcs-address=10.0.0.1:6379", "--autoscaling-config=~/c.yaml"]
    other = ["python", "monitor.py", "--gcs-address=10.0.0.1:7000", "--autoscaling-config=/x.yaml"]
    fixed = ["python", "monitor.py", "--gcs-address=10.0.0.1:7001"]
    commands = [[], other, mine, fixed]
    assert _configuration_file(commands, "10.0.0.1:6379") == Path.home() / "c.yaml"
    assert _configuration_file(commands, "10.0.0.1:7001") is None
