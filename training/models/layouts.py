"""Convert the weights of a whole network that other code trained to the names of ours.

Three layouts are known, by their names:

    stepchain    encoder.*, head.*, classifiers.N.*
    torchvision  backbone.*, classifier.0.* (ASPP) to classifier.4.*: its DeepLabV3 of a ResNet
    papers       body.*, head.*, cls.N.*: the public code of WILSON, MiB and PLOP

The classifiers of several steps become one, because the model is adopted as a step 0. What is only
used in training is left out.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from training.models.inplace_abn import from_inplace_abn, plain_scale

Layout = Literal["stepchain", "torchvision", "papers"]
Norm = Literal["in_place", "plain"]
STATE = dict[str, Tensor]
# Localizers and second heads, which only training uses.
UNUSED = ("aux_classifier.", "pseudolabeler.", "localizer.", "backbone.fc.", "body.fc.")
NORM = ("weight", "bias", "running_mean", "running_var")

# The papers' names of the head's parts, and ours.
PAPERS_HEAD = {
    "map_bn": "branches_norm",
    "global_pooling_conv": "pooled_reduce",
    "global_pooling_bn": "pooled_norm",
    "pool_red_conv": "pooled_expand",
    "red_conv": "reduce",
    "red_bn": "norm",
}
# torchvision's names, and ours. Its four branches have a norm each, and ours one over all.
TORCHVISION_HEAD = {
    "convs.4.1": "pooled_reduce",
    "convs.4.2": "pooled_norm",
    "project.1": "norm",
}
BRANCHES = 4


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Return the layout that the names are of, or None for another."""
    starts = {name.partition(".")[0] for name in state}
    if {"encoder", "classifiers"} <= starts:
        return "stepchain"
    if {"backbone", "classifier"} <= starts:
        return "torchvision"
    return "papers" if {"body", "head", "cls"} <= starts else None


def guess_norm(state: Mapping[str, Tensor]) -> Norm:
    """Return which norms weights of the papers' layout have.

    In-place ones, unless batches are counted, which only PyTorch's own norm does.
    """
    counted = any(name.endswith("num_batches_tracked") for name in state)
    return "plain" if counted else "in_place"


def to_own_names(state: Mapping[str, Tensor], layout: Layout, norm: Norm) -> STATE:
    """Return the tensors by our names, with a single classifier. Unknown names stay as they are.

    Args:
        state: The tensors of a file.
        layout: The layout of their names.
        norm: The norms of the papers' layout.
    """
    used = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    match layout:
        case "torchvision":
            used = _from_torchvision(used)
        case "papers":
            used = _from_papers(used, norm)
        case "stepchain":
            pass
    return _join_classifiers(used)


def describe_encoder(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the fields of a `ModelConfig` that tensors by our names decide."""
    found: dict[str, object] = {}
    marks = {
        "encoder.layer3.22.conv1.weight": "resnet101",
        "encoder.layer3.5.conv1.weight": "resnet50",
        "encoder.features.0.0.weight": "mobilenet_v2",
        "encoder.stem.0.weight": "tiny",
    }
    if encoder := next((marks[mark] for mark in marks if mark in state), None):
        found["encoder"] = encoder
    if (reduce := state.get("head.reduce.weight")) is not None and reduce.ndim == 4:
        found["head_channels"] = len(reduce)
        found["head"] = "torchvision" if "head.refine.0.weight" in state else "papers"
    if "unknown.scores.weight" in state:
        found["classifier"] = "ssul"
    return found


def _from_torchvision(state: STATE) -> STATE:
    """Return the tensors of torchvision's DeepLabV3 by our names."""
    found: STATE = {}
    branches: dict[str, dict[int, Tensor]] = {entry: {} for entry in NORM}
    for name, value in state.items():
        part, _, entry = name.rpartition(".")
        head = part.removeprefix("classifier.0.")
        number, _, layer = head.removeprefix("convs.").partition(".")
        is_branch = head.startswith("convs.") and number.isdigit() and int(number) < BRANCHES
        if name.startswith("backbone."):
            found[f"encoder.{name.removeprefix('backbone.')}"] = value
        elif is_branch and layer == "0":
            found[f"head.branches.{number}.{entry}"] = value
        elif is_branch and entry in NORM:
            branches[entry][int(number)] = value
        elif is_branch or entry == "num_batches_tracked":
            continue
        elif head in TORCHVISION_HEAD:
            found[f"head.{TORCHVISION_HEAD[head]}.{entry}"] = value
        elif head == "project.0":
            width = len(value)
            found["head.reduce.weight"] = value[:, : BRANCHES * width]
            found["head.pooled_expand.weight"] = value[:, BRANCHES * width :]
        elif part in ("classifier.1", "classifier.2"):
            found[f"head.refine.{int(part[-1]) - 1}.{entry}"] = value
        elif part == "classifier.4":
            found[f"classifiers.0.{entry}"] = value
        else:
            found[name] = value
    for entry, values in branches.items():
        if len(values) == BRANCHES:
            ordered = [values[number] for number in range(BRANCHES)]
            found[f"head.branches_norm.{entry}"] = torch.cat(ordered)
    return found


def _from_papers(state: STATE, norm: Norm) -> STATE:
    """Return the tensors of the papers' public code by our names."""
    found: STATE = {}
    in_place = norm == "in_place"
    body = {n.removeprefix("body."): v for n, v in state.items() if n.startswith("body.")}
    for name, value in from_inplace_abn(body, in_place).items():
        found[f"encoder.{name}"] = value
    for name, value in state.items():
        start, _, rest = name.partition(".")
        part, _, entry = rest.rpartition(".")
        if start == "cls":
            found[f"classifiers.{rest}"] = value
        elif start == "head" and part in PAPERS_HEAD:
            is_scale = in_place and part.endswith("_bn") and entry == "weight"
            scaled = plain_scale(value) if is_scale else value
            found[f"head.{PAPERS_HEAD[part]}.{entry}"] = scaled
        elif start == "head":
            found[f"head.{rest.replace('map_convs.', 'branches.')}"] = value
        elif start != "body":
            found[name] = value
    return found


def _join_classifiers(state: STATE) -> STATE:
    """Return the tensors with the classifiers of all steps joined in their order to the first.

    SSUL's are small networks, which do not join: they stay as they are.
    """
    if any(name.startswith("unknown.") for name in state):
        return state
    joined = {name: value for name, value in state.items() if not name.startswith("classifiers.")}
    for entry in ("weight", "bias"):
        parts = {}
        for name, value in state.items():
            start, _, number = name.removesuffix(f".{entry}").partition(".")
            if start == "classifiers" and number.isdigit() and name.endswith(entry):
                parts[int(number)] = value
        if parts:
            joined[f"classifiers.0.{entry}"] = torch.cat([parts[key] for key in sorted(parts)])
    return joined
