"""Pretrained encoder weights: checked, put into the store by their digest, and from then on known by it alone.

The store holds safetensors: other formats are converted on their way there, so that nothing read from it is unpickled.
"""

import shutil
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from safetensors.torch import save_file

from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.cache import file_sha256
from orchestrator.store.open import open_store
from training.config import InputError, ModelConfig
from training.models.backbones import build_encoder
from training.models.weights import is_safetensors, load_encoder_weights


def publish_weights(store: Store, source: str, model: ModelConfig) -> str:
    """Put the weights at `source` (a path, file://, s3:// or https://) into the store; returns the sha256 of what is stored.

    They are loaded into the encoder that `model` describes first; it is what is stored of a file that is not safetensors.
    Raises InputError when they do not fit it or there is nothing to read, StoreError likewise.
    """
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        path = _fetch(source, Path(scratch))
        encoder = build_encoder(model)
        load_encoder_weights(encoder, path)
        if not is_safetensors(path):
            path = Path(scratch) / "converted.safetensors"
            save_file(
                {name: value.contiguous() for name, value in encoder.state_dict().items()}, path
            )
        sha256 = file_sha256(path)
        if not store.exists(layout.encoder_weights(sha256)):
            store.upload(path, layout.encoder_weights(sha256))
    return sha256


def _fetch(source: str, scratch: Path) -> Path:
    """The file at a path or URI, locally."""
    parts = urlsplit(source)
    target = scratch / (Path(parts.path).name or "weights")
    if parts.scheme == "s3":
        folder, _, name = source.rpartition("/")
        open_store(folder).download(name, target)
    elif parts.scheme in ("http", "https"):
        try:
            with urllib.request.urlopen(source, timeout=60) as answer, target.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except urllib.error.URLError as error:
            raise InputError(
                f"cannot read the encoder's weights at {source}: {error.reason}"
            ) from error
    else:
        path = Path(parts.path if parts.scheme == "file" else source).expanduser()
        if not path.is_file():
            raise InputError(f"there is no file of encoder weights at {source}")
        return path
    return target
