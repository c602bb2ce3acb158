"""Check pretrained encoder weights and put them into the store, named by their digest.

The store holds safetensors. Other formats are converted on their way there, so that nothing that
is read from the store is unpickled.
"""

import shutil
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlsplit

from safetensors.torch import save_file

from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.cache import file_sha256
from orchestrator.store.open import open_store
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError, ModelConfig
from training.models.backbones import build_encoder
from training.models.weights import is_safetensors, load_encoder_weights


class PretrainedWeights:
    """Pretrained encoder weights at a path or URI, fetched once and not stored until `publish`.

    Enter it as a context: at its end the fetched files are deleted. The source is a path or a
    file://, s3:// or https:// URI of safetensors, or of any file that torch.load reads.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._scratch = TemporaryDirectory(prefix="stepchain-")
        self._fetched: Path | None = None
        self._files: dict[ModelConfig, Path] = {}  # what the store keeps, by model
        self._digests: dict[Path, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    @property
    def digests(self) -> frozenset[str]:
        """Return the digests that were asked for so far."""
        return frozenset(self._digests.values())

    def digest(self, model: ModelConfig) -> str:
        """Return the sha256 of the file that the store keeps for this model. Write nothing.

        The weights are loaded into the encoder that the model describes, which checks them. A file
        that is not safetensors is kept as what was loaded.

        Raises:
            InputError: The weights do not fit the encoder, or cannot be read.
            StoreError: The store that holds them does not answer.
        """
        if model not in self._files:
            self._files[model] = self._prepare(model)
        path = self._files[model]
        if path not in self._digests:
            self._digests[path] = file_sha256(path)
        return self._digests[path]

    def publish(self, store: Store) -> None:
        """Upload every file whose digest was asked for, unless the store has it."""
        for path, sha256 in self._digests.items():
            key = layout.encoder_weights(sha256)
            if not store.exists(key):
                store.upload(path, key)

    def _prepare(self, model: ModelConfig) -> Path:
        """Check the weights against the encoder; return the file that the store keeps."""
        folder = Path(self._scratch.name)
        if self._fetched is None:
            self._fetched = _fetch(self._source, folder)
        encoder = build_encoder(model)
        load_encoder_weights(encoder, self._fetched)
        if is_safetensors(self._fetched):
            return self._fetched
        path = folder / f"converted-{len(self._files)}.safetensors"
        state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
        save_file(state, path)
        return path


def publish_weights(store: Store, source: str, model: ModelConfig) -> str:
    """Check and store the weights at `source`, and return their sha256. See `PretrainedWeights`."""
    with PretrainedWeights(source) as weights:
        sha256 = weights.digest(model)
        weights.publish(store)
    return sha256


def _fetch(source: str, scratch: Path) -> Path:
    """Return the local file at a path, or download the one at a URI to the scratch folder."""
    parts = urlsplit(source)
    target = scratch / (Path(parts.path).name or "weights")
    if parts.scheme == "s3":
        folder, _, name = source.rpartition("/")
        open_store(folder).download(name, target)
    elif parts.scheme in ("http", "https"):
        try:
            timeout = DEFAULT_RETRIES.weights_download_seconds
            with (
                urllib.request.urlopen(source, timeout=timeout) as answer,
                target.open("wb") as file,
            ):
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
