"""Render manifests as `kubectl apply --kustomize` does, with the part of Kustomize infra/ uses."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches", "images", "labels"}
Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def infra() -> Path:
    return INFRA


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Manifest]]:
    """Return a function that renders the folder of a kustomization below infra/kuberay."""
    return lambda folder: list(render(INFRA / "kuberay" / folder))


def render(folder: Path) -> Iterator[Manifest]:
    """Yield the manifests of a kustomization's folder."""
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(settings) - KNOWN
    assert not unknown, f"{folder}: render() does not know {unknown}; add them"
    resources: list[Manifest] = []
    for name in settings["resources"]:
        path = folder / name
        resources += render(path) if path.is_dir() else read(path)
    for patch in settings.get("patches", []):
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
        kind = patch["target"]["kind"]
        name = patch["target"]["name"]
        of_kind = [each for each in resources if each["kind"] == kind]
        targets = [each for each in of_kind if re.fullmatch(name, each["metadata"]["name"])]
        assert targets, f"{folder}: a patch has no target {kind} {name}"
        for target in targets:
            target |= jsonpatch.JsonPatch(yaml.safe_load(text)).apply(target)
    for image in settings.get("images", []):
        for container in containers(resources):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    for each in resources:
        if each["kind"] != "Namespace":
            each["metadata"]["namespace"] = settings["namespace"]
        yield each


def read(path: Path) -> list[Manifest]:
    """Return the documents of a file. Values that an anchor repeats are copied."""
    return [copy.deepcopy(each) for each in yaml.safe_load_all(path.read_text()) if each]


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every container, however deep in a manifest."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("containers", "initContainers"):
                yield from inner
            yield from containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from containers(inner)
