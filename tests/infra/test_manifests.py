"""Every manifest below infra/ follows the schema of the program that reads it.

Unknown fields are refused. Nothing is contacted.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests.support.paths import SHARED

Manifest = dict[str, Any]
Render = Callable[[str], list[Manifest]]
FOLDERS = ("base", "overlays/laptop", "overlays/gpu")
# No package holds Kueue's schema.
WITHOUT_SCHEMA = {"kueue.x-k8s.io/v1beta1"}


@pytest.fixture(scope="module")
def kuberay() -> Callable[[str], Manifest]:
    """Return a function that reads the schema of one of KubeRay's kinds, version v1.

    Unknown fields are refused.
    """
    folder = SHARED / "reference" / "schemas"

    @cache
    def schema(kind: str) -> Manifest:
        path = folder / f"ray.io_{kind.lower()}s.yaml"
        if not path.exists():
            pytest.skip(f"KubeRay's {kind} is not in {folder}; STEPCHAIN_SHARED sets the folder")
        definition = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
        return strict(version["schema"]["openAPIV3Schema"])

    return schema


def strict(schema: Any) -> Any:
    """Return a CRD's schema as JSON schema in which objects have only the named fields."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not keeps_unknown:
        made.setdefault("additionalProperties", False)
    return made


def check_kubernetes(manifest: Manifest) -> None:
    """Check a manifest against the latest schemas of Kubernetes."""
    import kubernetes_validate

    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def ray_kinds(manifests: list[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["apiVersion"] == "ray.io/v1"]


def check_ray(manifest: Manifest, schema: Manifest) -> None:
    """Check a manifest against a schema of KubeRay, which takes any metadata."""
    schema["properties"]["metadata"] = {"type": "object"}
    # The validator alone does not check the schema itself, because that takes long.
    jsonschema.Draft202012Validator(schema).validate(manifest)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_takes_what_is_rendered(rendered: Render, folder: str):
    kinds = set()
    for manifest in rendered(folder):
        if manifest["apiVersion"] != "ray.io/v1":
            check_kubernetes(manifest)
            kinds.add(manifest["kind"])
    assert kinds >= {"ConfigMap", "Deployment", "NetworkPolicy", "Service"}
    assert kinds >= {"ServiceAccount", "StatefulSet"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_kuberay_takes_the_cluster(
    rendered: Render, kuberay: Callable[[str], Manifest], folder: str
):
    (cluster,) = ray_kinds(rendered(folder))
    check_ray(cluster, kuberay("RayCluster"))
    check_groups(cluster["spec"])


def test_kuberay_takes_the_job(infra: Path, kuberay: Callable[[str], Manifest]):
    job = yaml.safe_load((infra / "kuberay" / "rayjob.yaml").read_text())
    check_ray(job, kuberay("RayJob"))
    spec = job["spec"]
    check_groups(spec["rayClusterSpec"])
    assert spec["backoffLimit"] > 0
    assert json.loads(spec["entrypointResources"]) == {"orchestrator": 1}
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]


def check_groups(cluster: Manifest) -> None:
    """Check the pods of the head and of the workers."""
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        check_pod(group["template"])


def check_pod(template: Manifest) -> None:
    """Check a pod's template, which KubeRay describes less strictly than Kubernetes does."""
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
    deployments = [each for each in rendered("base") if each["kind"] == "Deployment"]
    (mlflow,) = (each for each in deployments if each["metadata"]["name"] == "mlflow")
    mlflow["spec"]["replica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        check_kubernetes(mlflow)


def test_ray_takes_the_cluster_launchers_file(infra: Path):
    path = Path(ray.__file__).with_name("autoscaler") / "ray-schema.json"
    schema = json.loads(path.read_text())
    cluster = yaml.safe_load((infra / "ray" / "aws.yaml").read_text())
    jsonschema.validate(cluster, schema)
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["resources"]["orchestrator"] > 0
    workers = [each for name, each in types.items() if name != cluster["head_node_type"]]
    for worker in workers:
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert sum(each["max_workers"] for each in workers) <= cluster["max_workers"]


def test_docker_compose_takes_the_file(infra: Path):
    # The models are made from the specification's schema, and extra fields are forbidden.
    from compose_pydantic.models import ComposeSpecification

    document = yaml.safe_load((infra / "compose.yaml").read_text())
    # The specification leaves these fields to the author of a file.
    compose = {name: value for name, value in document.items() if not name.startswith("x-")}
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
    """Return the volumes of the services, without folders of this machine."""
    sources = set()
    for service in services.values():
        sources |= {volume.partition(":")[0] for volume in service.get("volumes", ())}
    return {source for source in sources if not source.startswith(".")}


def test_what_has_no_schema_is_named(infra: Path):
    documents = yaml.safe_load_all((infra / "kuberay" / "kueue.yaml").read_text())
    assert {document["apiVersion"] for document in documents} == WITHOUT_SCHEMA


def test_the_dashboard_asks_for_metrics_that_are_exported(infra: Path):
    dashboard = json.loads((infra / "monitoring" / "dashboard.json").read_text())
    exporter = (infra / "monitoring" / "exporter.py").read_text()
    positions = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(positions)) == len(positions)
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"\b(?:stepchain|ray)_\w+", target["expr"])
            assert names, panel["title"]
            for name in names:
                exported = f'"{name.removesuffix("_total")}"' in exporter
                assert exported or name.startswith("ray_"), name
