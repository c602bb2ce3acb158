"""Every manifest below infra/ against the schema of whoever reads it, unknown fields refused; nothing is contacted."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

Manifest = dict[str, Any]
Render = Callable[[str], list[Manifest]]
FOLDERS = ("base", "overlays/laptop", "overlays/gpu")
WITHOUT_SCHEMA = {"kueue.x-k8s.io/v1beta1"}  # no package has Kueue's


@pytest.fixture(scope="module")
def kuberay() -> Callable[[str], Manifest]:
    """Function that gives the schema of one of KubeRay's kinds, version v1, with unknown fields refused."""
    root = Path(__file__).parents[2]
    folder = (
        Path(os.environ.get("STEPCHAIN_SHARED", root.parent / "shared")) / "reference" / "schemas"
    )

    @cache
    def schema(kind: str) -> Manifest:
        path = folder / f"ray.io_{kind.lower()}s.yaml"
        if not path.exists():
            pytest.skip(
                f"KubeRay's definition of {kind} is not in {folder}: STEPCHAIN_SHARED names the folder that has it"
            )
        definition = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
        return strict(version["schema"]["openAPIV3Schema"])

    return schema


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON schema: objects have the fields that are named and no others."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        made.setdefault("additionalProperties", False)
    return made


def check_kubernetes(manifest: Manifest) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def ray_kinds(manifests: list[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["apiVersion"] == "ray.io/v1"]


def check_ray(manifest: Manifest, schema: Manifest) -> None:
    """KubeRay takes any metadata."""
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft202012Validator(schema).validate(
        manifest
    )  # without a check of the schema itself, which takes long


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_takes_what_is_rendered(rendered: Render, folder: str):
    kinds = set()
    for manifest in rendered(folder):
        if manifest["apiVersion"] != "ray.io/v1":
            check_kubernetes(manifest)
            kinds.add(manifest["kind"])
    assert kinds >= {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_kuberay_takes_the_cluster(
    rendered: Render, kuberay: Callable[[str], Manifest], folder: str
):
    (cluster,) = ray_kinds(rendered(folder))
    check_ray(cluster, kuberay("RayCluster"))
    for group in [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]:
        check_pod(group["template"])


def test_kuberay_takes_the_job(infra: Path, kuberay: Callable[[str], Manifest]):
    job = yaml.safe_load((infra / "kuberay" / "rayjob.yaml").read_text())
    check_ray(job, kuberay("RayJob"))
    spec = job["spec"]
    for group in [
        spec["rayClusterSpec"]["headGroupSpec"],
        *spec["rayClusterSpec"]["workerGroupSpecs"],
    ]:
        check_pod(group["template"])
    assert spec["backoffLimit"] > 0
    assert json.loads(spec["entrypointResources"]) == {"orchestrator": 1}
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]


def check_pod(template: Manifest) -> None:
    """A pod's template, which KubeRay's definition describes less strictly than Kubernetes does."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "any"} | template.get("metadata", {}),
        "spec": template["spec"],
    }
    check_kubernetes(pod)
    spec = template["spec"]
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"


def test_an_unknown_field_is_refused(rendered: Render, kuberay: Callable[[str], Manifest]):
    (cluster,) = ray_kinds(rendered("base"))
    cluster["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        check_ray(cluster, kuberay("RayCluster"))
    (mlflow,) = (
        each
        for each in rendered("base")
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "mlflow"
    )
    mlflow["spec"]["replica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        check_kubernetes(mlflow)


def test_ray_takes_the_cluster_launchers_file(infra: Path):
    schema = json.loads(
        Path(ray.__file__).with_name("autoscaler").joinpath("ray-schema.json").read_text()
    )
    cluster = yaml.safe_load((infra / "ray" / "aws.yaml").read_text())
    jsonschema.validate(cluster, schema)
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["resources"]["orchestrator"] > 0
    workers = [each for name, each in types.items() if name != cluster["head_node_type"]]
    assert all(
        each["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for each in workers
    )
    assert sum(each["max_workers"] for each in workers) <= cluster["max_workers"]


def test_docker_compose_takes_the_file(infra: Path):
    from compose_pydantic.models import (
        ComposeSpecification,  # made from the specification's schema, extra fields forbidden
    )

    compose = yaml.safe_load((infra / "compose.yaml").read_text())
    compose = {
        name: part for name, part in compose.items() if not name.startswith("x-")
    }  # anybody's, says the specification
    ComposeSpecification.model_validate(compose)
    services = compose["services"]
    assert set(compose["volumes"]) == named_volumes(services)
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service.get("secrets", ())) <= set(compose["secrets"]), name
    compose["services"]["head"]["shm-size"] = "2gb"
    with pytest.raises(ValueError, match="shm-size"):
        ComposeSpecification.model_validate(compose)


def named_volumes(services: dict[str, Manifest]) -> set[str]:
    sources = (
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
    )
    return {source for source in sources if not source.startswith(".")}


def test_what_has_no_schema_is_named(infra: Path):
    without = {
        each["apiVersion"]
        for each in yaml.safe_load_all((infra / "kuberay" / "kueue.yaml").read_text())
    }
    assert without == WITHOUT_SCHEMA


def test_the_dashboard_asks_for_metrics_that_somebody_exports(infra: Path):
    dashboard = json.loads((infra / "monitoring" / "dashboard.json").read_text())
    exporter = (infra / "monitoring" / "exporter.py").read_text()
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            words = "".join(
                letter if letter.isalnum() or letter == "_" else " " for letter in target["expr"]
            ).split()
            names = [word for word in words if word.startswith(("stepchain_", "ray_"))]
            assert names, panel["title"]
            for name in names:
                assert name.startswith("ray_") or f'"{name.removesuffix("_total")}"' in exporter, (
                    name
                )
