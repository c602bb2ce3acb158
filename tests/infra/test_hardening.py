"""Every manifest keeps the rules of hardening.

It holds no secret, runs nothing as root, opens nothing to the world, and names its versions.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]
Render = Callable[[str], list[Manifest]]
SECRETS = re.compile(r"password|secret|token|credential", re.IGNORECASE)


@pytest.fixture(scope="module")
def pods(rendered: Render, infra: Path) -> list[Manifest]:
    """Return the specification of every pod of the overlays and of the job."""
    job = yaml.safe_load((infra / "kuberay" / "rayjob.yaml").read_text())
    manifests = [*rendered("overlays/laptop"), *rendered("overlays/gpu"), job]
    found = list(pod_specs(manifests))
    assert len(found) > 10
    return found


def pod_specs(value: Any) -> Iterator[Manifest]:
    """Yield every specification of a pod, however deep in a manifest."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pod_specs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_specs(inner)


def test_no_pod_is_root_or_may_become_it(pods: list[Manifest]):
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_every_container_says_how_much_memory_it_takes(pods: list[Manifest]):
    for pod in pods:
        for container in pod["containers"]:
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]


def test_secrets_are_named_and_never_written(pods: list[Manifest]):
    for pod in pods:
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if SECRETS.search(variable["name"]) and not variable["name"].endswith("_FILE"):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]
            for argument in container.get("args", []):
                assert not re.search(r"://[^/]*:[^/]*@", argument)


def test_only_the_head_may_speak_to_kubernetes(pods: list[Manifest]):
    for pod in pods:
        if pod.get("automountServiceAccountToken") is not False:
            assert pod["serviceAccountName"] == "stepchain-head"


def test_versions_are_named(pods: list[Manifest], infra: Path):
    compose = yaml.safe_load((infra / "compose.yaml").read_text())
    images = {container["image"] for pod in pods for container in pod["containers"]}
    images |= {service["image"] for service in compose["services"].values()}
    for image in images:
        assert re.search(r":[^:]+$", image), image
        assert not image.endswith(":latest")


def test_compose_listens_on_loopback_alone(infra: Path):
    compose = yaml.safe_load((infra / "compose.yaml").read_text())
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) >= 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in ("head", "worker"):
        assert compose["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_no_service_is_open_to_the_world(rendered: Render):
    for folder in ("overlays/laptop", "overlays/gpu"):
        manifests = rendered(folder)
        services = [each for each in manifests if each["kind"] == "Service"]
        types = {service["spec"].get("type", "ClusterIP") for service in services}
        assert types == {"ClusterIP"}
        assert not [each for each in manifests if each["kind"] in ("Ingress", "Secret")]
        policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
        general = [policy for policy in policies if policy["podSelector"] == {}]
        closed = [policy for policy in general if "ingress" not in policy]
        assert len(closed) == 1
        (cluster,) = (each for each in manifests if each["kind"] == "RayCluster")
        assert cluster["spec"]["authOptions"]["mode"] == "token"


def test_every_port_that_is_served_has_a_policy(rendered: Render):
    manifests = rendered("overlays/laptop")
    policies = [each for each in manifests if each["kind"] == "NetworkPolicy"]
    labels = [policy["spec"]["podSelector"].get("matchLabels", {}) for policy in policies]
    selected = [each.get("app.kubernetes.io/name") for each in labels]
    for service in (each for each in manifests if each["kind"] == "Service"):
        assert service["spec"]["selector"]["app.kubernetes.io/name"] in selected


def test_the_image_is_locked_and_not_root(infra: Path):
    lines = (infra / "docker" / "Dockerfile").read_text().splitlines()
    assert "USER 1000" in lines
    assert not [line for line in lines if line.startswith(("ADD ", "ENV AWS", "ARG AWS"))]
    installs = [line for line in lines if "pip install" in line]
    assert all("--constraint requirements.lock" in line or "--no-deps" in line for line in installs)
