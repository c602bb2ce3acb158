"""Manifests as `kubectl apply --kustomize` would send them, of as much of Kustomize as infra/ uses."""

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
    """Function that renders the folder of a kustomization below infra/kuberay."""
    return lambda folder: list(render(INFRA / "kuberay" / folder))


def render(folder: Path) -> Iterator[Manifest]:
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(settings) <= KNOWN, (
        f"{folder}: the tests do not know what {set(settings) - KNOWN} does; teach them"
    )
    resources = [
        manifest
        for name in settings["resources"]
        for manifest in (render(folder / name) if (folder / name).is_dir() else read(folder / name))
    ]
    for patch in settings.get("patches", []):
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
        kind, name = patch["target"]["kind"], patch["target"]["name"]
        targets = [
            each
            for each in resources
            if each["kind"] == kind and re.fullmatch(name, each["metadata"]["name"])
        ]
        assert targets, f"{folder}: a patch has no target {kind} {name}"
        for target in targets:
            target |= jsonpatch.JsonPatch(yaml.safe_load(text)).apply(target)
    for image in settings.get("images", []):
        for container in (found for each in resources for found in containers(each)):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    for each in resources:
        if each["kind"] != "Namespace":
            each["metadata"]["namespace"] = settings["namespace"]
        yield each


def read(path: Path) -> list[Manifest]:
    """All documents of a file; what an anchor repeats, as values of its own."""
    return [copy.deepcopy(each) for each in yaml.safe_load_all(path.read_text()) if each]


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Every container, however deep in a manifest."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name in ("containers", "initContainers"):
                yield from part
            yield from containers(part)
    elif isinstance(value, list):
        for part in value:
            yield from containers(part)
