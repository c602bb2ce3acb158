"""Check pretrained encoder weights and put them into the store, named by their digest.

The store holds safetensors. Other formats are converted on their way there, so that nothing that
is read from the store is unpickled.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlsplit

from safetensors.torch import save_file

from orchestrator.datasets.library_folder import (
    download,
    fetch_weights,
    fitted_model,
    is_surely_folder,
    open_library_folder,
)
from orchestrator.records import layout
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import file_sha256
from orchestrator.store.open import open_store
from training.config import InputError, ModelConfig
from training.models.backbones import build_encoder
from training.models.weight_files import is_safetensors
from training.models.weights import load_encoder_weights


class PretrainedWeights:
    """Pretrained encoder weights at paths or URIs, fetched once and not stored until `publish`.

    Enter it as a context: at its end the fetched files are deleted. A source is a file, or for an
    encoder of Transformers a folder in that library's layout
    (`orchestrator.datasets.library_folder`). A file is at a path or a file://, s3:// or https://
    URI, and holds safetensors or what torch.load reads.
    """

    def __init__(self, *sources: str) -> None:
        self._sources = sources
        self._scratch = TemporaryDirectory(prefix="stepchain-")
        self._fetched: dict[tuple[str, bool], Path] = {}  # by source, and whether it is a folder
        self._models: dict[ModelConfig, ModelConfig] = {}
        self._digests: dict[Path, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    @property
    def digests(self) -> frozenset[str]:
        """Return the digests of the weights that models got so far."""
        return frozenset(self._digests.values())

    def complete(self, model: ModelConfig) -> ModelConfig:
        """Return the model with the sha256 of its weights. Write nothing.

        The weights are those of the first source that fits. They are loaded into the encoder that
        the model describes, which checks them. A file that is not safetensors is kept as what was
        loaded. A model on Transformers that names no encoder gets the one of the source.

        Raises:
            InputError: No weights fit the encoder, or they cannot be read.
            StoreError: The store that holds them does not answer.
        """
        if model not in self._models:
            self._models[model] = self._first_that_fits(model)
        return self._models[model]

    def publish(self, store: Store) -> None:
        """Upload every file whose digest a model got, unless the store has it."""
        for path, sha256 in self._digests.items():
            key = layout.encoder_weights(sha256)
            if not store.exists(key):
                store.upload(path, key)

    def _first_that_fits(self, model: ModelConfig) -> ModelConfig:
        reasons = []
        for source in self._sources:
            try:
                fitted, path = self._prepare(source, model)
            except InputError as error:
                reasons.append(error)
                continue
            if path not in self._digests:
                self._digests[path] = file_sha256(path)
            return fitted.model_copy(update={"weights": self._digests[path]})
        if len(reasons) == 1:
            raise reasons[0]
        raise InputError(
            f"none of the encoder weights fits the encoder {model.encoder!r}: "
            + "; ".join(map(str, reasons))
        )

    def _prepare(self, source: str, model: ModelConfig) -> tuple[ModelConfig, Path]:
        """Check weights against the encoder; return the model and the file that the store keeps."""
        folder = Path(self._scratch.name, str(self._sources.index(source)))
        folder.mkdir(exist_ok=True)
        library = model.encoder == "transformers"
        if library:
            model = fitted_model(model, open_library_folder(source, folder))
        elif is_surely_folder(source):
            raise InputError(
                f"{source} is a folder, which is for the encoder transformers: give the encoder "
                f"{model.encoder} a file of weights"
            )
        if (source, library) not in self._fetched:
            fetch = fetch_weights if library else fetch_file
            self._fetched[source, library] = fetch(source, folder)
        fetched = self._fetched[source, library]
        encoder = build_encoder(model)
        load_encoder_weights(encoder, fetched)
        if is_safetensors(fetched):
            return model, fetched
        path = folder / f"converted-{len(self._models)}.safetensors"
        state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
        save_file(state, path)
        return model, path


def fetch_file(source: str, scratch: Path) -> Path:
    """Return the local file of weights at a path, or download the one at a URI to `scratch`.

    Raises:
        InputError: There is no such file, or its server does not answer.
        StoreError: The store that holds it does not answer.
    """
    parts = urlsplit(source)
    target = scratch / (Path(parts.path).name or "weights")
    if parts.scheme == "s3":
        folder, _, name = source.rpartition("/")
        try:
            open_store(folder).download(name, target)
        except NotFound:
            raise InputError(f"there is no file of weights at {source}") from None
    elif parts.scheme in ("http", "https"):
        if not download(source, target):
            raise InputError(f"there is no file of weights at {source}")
    else:
        path = Path(parts.path if parts.scheme == "file" else source).expanduser()
        if not path.is_file():
            raise InputError(f"there is no file of weights at {source}")
        return path
    return target
