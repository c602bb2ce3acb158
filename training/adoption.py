"""Read a network that other code trained, as the network of a published step.

A file of weights has names and shapes. What a network computes besides, such as its output stride,
is in no file and must be said.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ValidationError

from training.checkpoint import ModelDocument, freeze, save_model_files
from training.config import InputError, ModelConfig
from training.encoder_check import check_encoder
from training.models.layouts import (
    Layout,
    Norm,
    describe_encoder,
    guess_norm,
    layout_of,
    to_own_names,
)
from training.models.segmenter import Segmenter
from training.models.weight_files import differences, read_metadata, read_tensors

# Fields of a ModelConfig that no weights decide.
UNDECIDED = ("output_stride", "dilated_blocks", "eval_pooling", "activation")
ABOUT = "stepchain"  # the entry of a safetensors file that an export of ours wrote


class UnclearFile(InputError):
    """What a file says of itself cannot be read."""


class Described(BaseModel):
    """What is adopted of what an exported file says about itself."""

    classes: tuple[str, ...]  # by channel
    class_ids: tuple[int, ...]  # by channel
    model: dict[str, Any]


class Network(NamedTuple):
    """A network that was read from a file."""

    model: Segmenter
    config: ModelConfig
    layout: Layout


def read_network(
    path: Path, fields: Mapping[str, Any], classes: Sequence[str], norm: Norm | None = None
) -> Network:
    """Return the network in a file of weights, frozen and in evaluation mode.

    Args:
        path: The file, in one of the layouts that `training.models.layouts` knows.
        fields: What is known of the `ModelConfig`. The encoder, its head and their widths are
            taken from the weights if they are not among them.
        classes: The names of the classes in the order of the channels 1, 2, ...
        norm: The norms of the papers' layout; None guesses them.

    Raises:
        InputError: The file cannot be read, its names or shapes are others, its channels are not
            background and these classes, or a field is missing.
    """
    state = read_tensors(path)
    layout = layout_of(state)
    if layout is None:
        names = ", ".join(list(state)[:3]) or "nothing"
        raise InputError(
            f"{path} has no layout that can be adopted (it holds {names}, ...): give weights named "
            "by Stepchain, by torchvision's DeepLabV3, or by the public code of WILSON, MiB or PLOP"
        )
    norm = norm or guess_norm(state)
    own = to_own_names(state, layout, norm)
    config = _model_config(path, {**describe_encoder(own), **fields})
    if layout == "papers" and norm == "in_place" and config.activation != "leaky_relu":
        raise InputError(
            f"{path} was trained with leaky ReLU (in-place ABN): give --model.activation "
            "leaky_relu, or --norm plain if its norms are plain ones"
        )
    if config.classifier == "ssul":
        if "classifiers.1.scores.weight" in own:
            raise InputError(
                f"{path} has SSUL's classifiers of several steps, which cannot become those of one "
                "step 0: adopt its step 0"
            )
        channels = len(own.get("classifiers.0.scores.weight", ())) + 1
    else:
        channels = len(own.get("classifiers.0.weight", ()))
    _check_channels(path, channels, classes)
    model = Segmenter(config, (len(classes) + 1,))
    if problems := differences(model.state_dict(), own):
        raise InputError(
            f"{path} does not hold the weights of a DeepLabV3 on {config.encoder} (layout "
            f"{layout}, names as ours): {problems}; give the --preset or --model options it was "
            "trained with"
        )
    if not all(bool(torch.isfinite(value).all()) for value in own.values()):
        raise InputError(f"{path} holds weights that are not finite: its training diverged")
    # Not strict, because in-place norms do not count batches.
    model.load_state_dict(own, strict=False)
    return Network(freeze(model), config, layout)


def read_about(path: Path) -> Described | None:
    """Return what a file says about itself that `jobs.export` wrote; None of another file.

    Raises:
        InputError: The file is broken.
        UnclearFile: It says something of itself that cannot be read.
    """
    said = read_metadata(path).get(ABOUT)
    if said is None:
        return None
    try:
        about = Described.model_validate_json(said)
    except ValidationError as error:
        reason = error.errors()[0]
        where = ".".join(map(str, reason["loc"]))
        raise _unclear(path, f"{where}: {reason['msg']}" if where else reason["msg"]) from error
    if len(about.classes) != len(about.class_ids):
        raise _unclear(path, f"{len(about.classes)} classes, and {len(about.class_ids)} class_ids")
    return about


def _unclear(path: Path, reason: str) -> UnclearFile:
    return UnclearFile(
        f"what {path} says of itself, its metadata {ABOUT!r}, cannot be read ({reason}): export it "
        "again, or give --classes and --preset"
    )


def write_network(folder: Path, network: Network, class_ids: tuple[int, ...]) -> None:
    """Write the files of a published step of one group. Its curves are empty."""
    document = ModelDocument(model=network.config, groups=(class_ids,))
    save_model_files(folder, document, network.model.state_dict(), {}, [])


def _model_config(path: Path, fields: Mapping[str, Any]) -> ModelConfig:
    missing = [field for field in UNDECIDED if field not in fields]
    if missing:
        options = ", ".join(f"--model.{field.replace('_', '-')}" for field in missing)
        raise InputError(
            f"{path} does not say how its network computes, and no weights do: give {options}, or "
            "a --preset with the model it was trained with, such as voc_wilson or torchvision"
        )
    config = ModelConfig.model_validate({**fields, "weights": None})
    check_encoder(config)
    return config


def _check_channels(path: Path, channels: int, classes: Sequence[str]) -> None:
    if channels == len(classes) + 1:
        return
    advice = "name all of its classes, in the order of its channels, without background"
    if channels == len(classes) and classes[0].lower() in ("background", "__background__"):
        advice = "leave background out of --classes: it is channel 0 of every model"
    raise InputError(
        f"{path} has {channels} channels, background and {max(channels - 1, 0)} classes, and "
        f"--classes names {len(classes)}: {advice}"
    )
