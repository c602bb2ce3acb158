"""Fetch an encoder in the layout of the library Transformers: a folder of config.json and weights.

The folder lies at a path, at a file://, s3:// or https:// URI, or on the hub of Hugging Face, as
hf://owner/name or hf://owner/name@revision. A token for gated encoders is the hub's own affair: it
reads $HF_TOKEN.
"""

import json
import os
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from orchestrator.store.base import NotFound
from orchestrator.store.open import open_store
from orchestrator.store.retries import DEFAULT_RETRIES
from training.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, Triple
from training.config import InputError, ModelConfig
from training.models.library import complete_architecture, stage_names
from training.models.library_encoder import layout_of

CONFIG = "config.json"
IMAGES = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
HUB = "hf"
PUBLIC_HUB = "https://huggingface.co"
HUB_SECONDS = DEFAULT_RETRIES.hub_seconds


class LibraryFolder(NamedTuple):
    """What a folder in the library's layout says of its encoder."""

    source: str
    config: dict[str, Any]
    images: dict[str, Any]  # how images are prepared; empty if the folder does not say


def is_surely_folder(source: str) -> bool:
    """Return whether a source of weights is no file, as far as its name says.

    What lies at an address or in a bucket shows only when it is read.
    """
    parts = urlsplit(source)
    if parts.scheme in ("", "file"):
        return Path(parts.path if parts.scheme else source).expanduser().is_dir()
    return parts.scheme == HUB or parts.path[-1:] in ("", "/")


def open_library_folder(source: str, scratch: Path) -> LibraryFolder:
    """Fetch what a folder says of its encoder, but not the weights.

    Raises:
        InputError: There is no such folder, or the hub cannot be reached.
        StoreError: The store that holds it does not answer.
    """
    config = fetch(source, CONFIG, scratch)
    if config is None:
        raise InputError(
            f"{source} has no {CONFIG}: give a folder in the layout of Transformers, as its "
            "save_pretrained writes it"
        )
    images = fetch(source, IMAGES, scratch)
    return LibraryFolder(source, _read(config), _read(images) if images else {})


def fetch_weights(source: str, scratch: Path) -> Path:
    """Fetch the weights of a folder. Raise InputError if it has none in one file."""
    path = fetch(source, WEIGHTS, scratch)
    if path is None:
        raise InputError(
            f"{source} has no {WEIGHTS}: load the encoder by Transformers and write it again by "
            "save_pretrained(FOLDER, max_shard_size='100GB')"
        )
    return path


def backbone_of(folder: LibraryFolder, maps: tuple[str, ...] | None = None) -> Backbone:
    """Return the document of a folder's encoder; by default the head reads its last map.

    Raises:
        InputError: The library has no such encoder, or its images are prepared in another way than
            by a mean and a deviation.
    """
    architecture = complete_architecture(folder.config)
    images = folder.images
    mean = _by_channel(images.get("image_mean"), IMAGENET_MEAN)
    std = _by_channel(images.get("image_std"), IMAGENET_STD)
    if images.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = images.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    is_usual = isinstance(factor, (int, float)) and abs(factor * 255 - 1) <= 1e-6
    if images.get("do_rescale") is False or not is_usual:
        raise InputError(
            f"the images of {folder.source} are not brought to 0..1 before they are normalised "
            f"({IMAGES}): such an encoder cannot be used"
        )
    return Backbone.model_validate(
        {
            "architecture": architecture,
            "maps": maps or stage_names(architecture)[-1:],
            "mean": mean,
            "std": std,
        }
    )


def _by_channel(value: Any, usual: Triple) -> Any:
    """Return a value of each colour, where a folder may say nothing or one for all three."""
    if value is None:
        return usual
    return (value,) * 3 if isinstance(value, (int, float)) else value


def fitted_model(model: ModelConfig, folder: LibraryFolder) -> ModelConfig:
    """Return the model with the folder's encoder; one that names its encoder must name this one.

    Raises:
        InputError: The model names another encoder than the folder holds.
    """
    if model.backbone is None:
        backbone = backbone_of(folder)
        stride = layout_of(backbone).stride
        return ModelConfig.model_validate(
            dict(model) | {"backbone": backbone, "output_stride": stride}
        )
    found = backbone_of(folder, model.backbone.maps)
    for name in sorted({*found.architecture, *model.backbone.architecture}):
        wanted, held = (each.architecture.get(name) for each in (model.backbone, found))
        if wanted != held:
            raise InputError(
                f"{CONFIG} of {folder.source} has {name} {held!r}, and the model's encoder has "
                f"{wanted!r}: give the folder of that encoder, or change model.backbone"
            )
    if (found.mean, found.std) != (model.backbone.mean, model.backbone.std):
        raise InputError(
            f"the images of {folder.source} have mean {found.mean} and deviation {found.std}, and "
            f"the model's encoder {model.backbone.mean} and {model.backbone.std}: change mean and "
            "std of model.backbone"
        )
    return model


def fetch(source: str, name: str, scratch: Path) -> Path | None:
    """Return a local copy of one file of a folder, or None if the folder does not have it."""
    parts = urlsplit(source)
    target = scratch / name
    if parts.scheme == "s3":
        try:
            open_store(source).download(name, target)
        except NotFound:
            return None
        return target
    if parts.scheme == HUB:
        return _from_hub(source, name, scratch)
    if parts.scheme in ("http", "https"):
        return target if download(f"{source.rstrip('/')}/{name}", target) else None
    path = Path(parts.path if parts.scheme == "file" else source).expanduser() / name
    return path if path.is_file() else None


def download(address: str, target: Path) -> bool:
    """Download a file; return False if the server does not have it.

    Raises:
        InputError: The address is none, or the server does not answer.
    """
    timeout = DEFAULT_RETRIES.weights_download_seconds
    try:
        with (
            urllib.request.urlopen(address, timeout=timeout) as answer,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise InputError(f"cannot read {address}: {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, HTTPException) as error:
        raise InputError(f"cannot read {address}: {getattr(error, 'reason', error)}") from error
    return True


def _from_hub(source: str, name: str, scratch: Path) -> Path | None:
    """Download a file of the hub; return None if the hub does not have it."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise InputError(
            "the hub needs its own library: run pip install 'stepchain[encoders]'"
        ) from error
    repository, _, revision = source.removeprefix(f"{HUB}://").strip("/").partition("@")
    _check_hub(source)
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository, name, revision=revision or None, local_dir=scratch
            )
        )
    except errors.EntryNotFoundError:
        return None
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the hub does not give {source}: {reason}") from error


def _check_hub(source: str) -> None:
    """Raise InputError if the hub cannot be reached. Its own library would try for much longer."""
    address = os.environ.get("HF_ENDPOINT", PUBLIC_HUB)
    if not address.startswith(("https://", "http://")):
        raise InputError(
            f"HF_ENDPOINT is {address!r}, which is no hub's address: unset it, or give one such as "
            f"{PUBLIC_HUB}"
        )
    try:
        urllib.request.urlopen(
            urllib.request.Request(address, method="HEAD"),
            timeout=HUB_SECONDS,
        ).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, HTTPException) as error:
        raise InputError(
            f"the hub at {address} cannot be reached for {source} "
            f"({getattr(error, 'reason', error)}): give a folder with {CONFIG} and {WEIGHTS}"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is no JSON object")
    return value
