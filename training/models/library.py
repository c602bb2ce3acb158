"""Ask the library Transformers (Hugging Face) for encoders, which it calls backbones.

Nothing else imports that library. It is an extra, `stepchain[encoders]`, and a version of it may
know other architectures than the one that a document was written with.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from training.backbone import decisive
from training.config import InputError

# Norms that only the library's backbones have, one for each map. They start as the identity, and
# files of other models by the same encoder lack them.
OWN_NORMS = "hidden_states_norms."
STAGES = "stage_names"  # of a configuration: the names of its maps


def complete_architecture(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture that a configuration names, with the library's defaults for the rest.

    Args:
        values: As in the library's config.json. What decides no number is left out, and so is what
            the library does not know.

    Raises:
        InputError: The library has no such architecture, or refuses a value.
    """
    kind = str(values.get("model_type"))
    known = _known_names(kind)
    wanted = {name: value for name, value in decisive(values).items() if name in known}
    return decisive(_configuration(wanted | {"model_type": kind}).to_dict())


def check_complete(architecture: Mapping[str, Any]) -> None:
    """Raise InputError unless a document names what decides the numbers, and all of it.

    A value that it lacks would be this version's default, and another's with another version.
    """
    kind = str(architecture["model_type"])
    unknown = sorted(set(architecture) - _known_names(kind))
    if unknown:
        raise InputError(
            f"{installed_version()} has no {unknown[0]!r} in the architecture {kind!r}: leave it "
            "out of model.backbone.architecture, or install a version that has it"
        )
    complete = complete_architecture(architecture)
    for name, value in complete.items():
        if name not in architecture:
            raise InputError(
                f"model.backbone.architecture lacks {name!r}, for which {installed_version()} "
                f"would take {value!r}: name it, because another version may take another value"
            )
        if architecture[name] != value:
            raise InputError(
                f"{installed_version()} makes {name!r} of {architecture[name]!r} into {value!r}: "
                "give model.backbone.architecture that value"
            )


def build_backbone(architecture: Mapping[str, Any], maps: Sequence[str]) -> nn.Module:
    """Return the library's backbone with random weights, which returns these maps.

    Raises:
        InputError: The library has no such architecture or map, or refuses a value.
    """
    configuration = _configuration(architecture)
    stages = stage_names(architecture)
    if unknown := [name for name in maps if name not in stages]:
        raise InputError(
            f"the architecture {configuration.model_type!r} has no map {unknown[0]!r}: "
            f"model.backbone.maps may name {', '.join(stages)}"
        )
    configuration.out_features = [name for name in stages if name in maps]
    backbone = _refusing(_library().AutoBackbone.from_config, configuration, dtype=torch.float32)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        raise InputError(
            f"the architecture {configuration.model_type!r} of Transformers has batch norms, whose "
            "statistics would be each worker's own: take an encoder without, or model.encoder "
            "resnet50 or resnet101"
        )
    return backbone


def stage_names(architecture: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the maps that an architecture has, from early to late."""
    return tuple(_configuration(architecture).stage_names)


def run_backbone(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the maps of a backbone by their names; images are [B, 3, H, W]."""
    library: Any = backbone
    return dict(zip(library.out_features, library(images).feature_maps, strict=True))


def load_backbone(backbone: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy weights into a backbone. The library knows the names that older versions gave them.

    Args:
        backbone: Of `build_backbone`. Its weights are overwritten.
        state: Tensors of a model.safetensors. What the encoder does not have is ignored.
        source: Where they are from, for messages.

    Raises:
        InputError: Weights are missing or have other shapes.
    """
    kind: Any = type(backbone)
    configuration: Any = backbone.config
    loaded, info = _refusing(
        kind.from_pretrained,
        None,
        config=configuration,
        state_dict=dict(state),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(OWN_NORMS))
    shapes = [
        f"{n} {tuple(was)} instead of {tuple(is_)}" for n, was, is_ in info["mismatched_keys"]
    ]
    problems = [("missing", missing), ("misshaped", sorted(shapes))]
    found = [
        f"{len(n)} {what} ({', '.join(n[:3])}{', ...' * (len(n) > 3)})" for what, n in problems if n
    ]
    if found:
        raise InputError(
            f"{source} does not hold the weights of this {configuration.model_type}: "
            f"{'; '.join(found)}; give the file that belongs to its config.json"
        )
    backbone.load_state_dict(loaded.state_dict())


def _library() -> Any:
    """Import the library, and let it print nothing."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "an encoder of Transformers needs that library: run pip install 'stepchain[encoders]'"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def installed_version() -> str:
    """Return the name and version of the library."""
    return f"Transformers {metadata.version('transformers')}"


def _known_names(kind: str) -> frozenset[str]:
    """Return the fields of an architecture that decide a number."""
    return frozenset(decisive(_configuration({"model_type": kind}).to_dict()))


def _configuration(architecture: Mapping[str, Any]) -> Any:
    """Return the library's configuration of an architecture."""
    kind = architecture["model_type"]
    auto = _library().models.auto
    having = sorted(auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES)
    configurations = auto.configuration_auto.CONFIG_MAPPING
    configuration = None
    if kind in having:
        # from_dict would keep names that it does not know.
        values = {name: value for name, value in architecture.items() if name != "model_type"}
        configuration = _refusing(configurations[kind], **values)
    if not hasattr(configuration, STAGES):
        # Some wrap another library's encoder, or a model of images and text.
        named = [name for name in having if hasattr(configurations[name](), STAGES)]
        lacks = f"names no maps of {kind!r}" if kind in having else f"has no backbone {kind!r}"
        raise InputError(f"{installed_version()} {lacks}: it has {', '.join(named)}")
    return configuration


def _refusing(function: Any, *args: Any, **options: Any) -> Any:
    """Call the library. It raises whatever its checks raise, and the message is for people."""
    try:
        return function(*args, **options)
    except InputError:
        raise
    except Exception as error:  # its checks have no class in common
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{installed_version()} refuses this encoder: {reason}") from error
