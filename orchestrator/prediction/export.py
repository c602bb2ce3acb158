"""Write the model of a published step as a file that loads without Stepchain.

Whatever the format, the file takes a photo's pixels, RGB uint8 [B, 3, H, W], and returns a score
for each class at each pixel, [B, classes, H, W]. ImageNet's mean and deviation are applied within.
What the file says about itself is `About`, as JSON.

The file is written beside its place and loaded again. Only if it then computes what the published
model does is it given its name.
"""

import json
import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from orchestrator.prediction.readme import readme
from orchestrator.records.schema import StepFailed
from training.checkpoint import load_model
from training.config import Document, InputError, ModelConfig
from training.models import library_network, standalone
from training.models.segmenter import Segmenter, normalise, upsample
from training.models.standalone import Network

Format = Literal["safetensors", "torch", "onnx"]
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}
ABOUT = "stepchain"
ABOUT_FILE = f"{ABOUT}.json"  # within torch's format
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
NETWORK = "network.py"
LIBRARY_NETWORK = "library_network.py"  # which it imports for an encoder of Transformers
LARGEST_SIDE = 1 << 16  # pixels
# Scores are compared at these sizes, as images, height and width.
TRIALS = ((1, 96, 131), (2, 64, 64))
TOLERANCE = 1e-4  # of the largest score
Scorer = Callable[[Tensor], Tensor]


class About(Document):
    """What an exported file says about itself."""

    format: int = 1
    step: str  # its key in the store
    attempt: str
    classes: tuple[str, ...]  # by channel, background first where the model has it
    class_ids: tuple[int, ...]  # by channel, as in the dataset's masks
    short_side: int | None  # to which a photo's shorter side is resized; None: as it is
    model: ModelConfig
    channels: tuple[int, ...]  # that each step of training added


class Export:
    """The files of one export."""

    def __init__(self, out: Path, kind: Format) -> None:
        """Choose the files.

        Args:
            out: The file, or a folder for it.
            kind: The format.

        Raises:
            InputError: A file is there already, or packages are missing.
        """
        self.kind: Format = kind
        is_file = out.suffix == SUFFIXES[kind]
        if not is_file and out.suffix in SUFFIXES.values():
            (other,) = (name for name, suffix in SUFFIXES.items() if suffix == out.suffix)
            raise InputError(f"{out} is a name for --format {other}, and the format is {kind}")
        self.path = out if is_file else out / f"model{SUFFIXES[kind]}"
        self.readme = self.path.with_name(f"{self.path.name}.md")
        for path in (self.path, self.readme):
            if path.exists():
                raise InputError(f"{path} is there already: delete it, or give another --out")
        code = self.path.with_name(NETWORK)
        if kind == "safetensors" and code.is_dir():
            raise InputError(
                f"{code} is a folder, and the network's code is written to a file of this name: "
                "give another --out"
            )
        if kind == "onnx" and (missing := [name for name in ONNX_PACKAGES if not find_spec(name)]):
            raise InputError(
                f"ONNX needs {', '.join(missing)}, which this environment lacks: "
                "run pip install 'stepchain[onnx]'"
            )

    def write(self, folder: Path, about: About) -> None:
        """Write the file and what goes with it.

        Args:
            folder: The published files of the step.
            about: What the file says about itself.

        Raises:
            OSError: The file cannot be written.
            StepFailed: It does not compute what the published model does.
            InputError: The format is not for the model's encoder.
        """
        library = about.model.backbone is not None
        if library and self.kind != "safetensors":
            raise InputError(
                "an encoder of Transformers is exported as safetensors, because its trace is for "
                "one size of images: give --format safetensors"
            )
        model, _ = load_model(folder)
        network = Network(about.model.model_dump(mode="json"), list(about.channels))
        network.to(next(model.parameters()).dtype)
        network.load_state_dict(model.state_dict())
        network.eval().requires_grad_(False)
        part = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        try:
            if self.kind == "safetensors":
                self._write_code(NETWORK, standalone)
                if library:
                    self._write_code(LIBRARY_NETWORK, library_network)
            WRITERS[self.kind](network, about, part)
            _compare(model, LOADERS[self.kind](part))
            part.rename(self.path)
            self.readme.write_text(readme(self.kind, self.path.name, about.classes, library))
        finally:
            part.unlink(missing_ok=True)

    def _write_code(self, name: str, module: ModuleType) -> None:
        """Write a file of the network's code, unless this very code is there."""
        path = self.path.with_name(name)
        code = Path(str(module.__file__)).read_bytes()
        if path.exists() and (path.is_dir() or path.read_bytes() != code):
            raise InputError(f"{path} is another file: give --out a folder of its own")
        path.write_bytes(code)


def _write_safetensors(network: Network, about: About, path: Path) -> None:
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(weights, {ABOUT: about.model_dump_json(), "format": "pt"}))


def _load_safetensors(path: Path) -> Scorer:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[ABOUT])
    network = Network(about["model"], about["channels"])
    weights = load_file(path)
    network.to(next(w.dtype for w in weights.values() if w.is_floating_point())).load_state_dict(
        weights
    )
    return network.eval()


def _write_torch(network: Network, about: About, path: Path) -> None:
    program = torch.export.export(
        network, _example(), dynamic_shapes=_shapes(about.model.output_stride)
    )
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={ABOUT_FILE: about.model_dump_json()})


def _load_torch(path: Path) -> Scorer:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(network: Network, about: About, path: Path) -> None:
    import onnx  # pyright: ignore[reportMissingImports]

    # It warns of operators of torchvision, which no network here has.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        network,
        _example(),
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_shapes=_shapes(about.model.output_stride),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = ABOUT, about.model_dump_json()
    onnx.save_model(model, path)


def _load_onnx(path: Path) -> Scorer:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(path)
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


WRITERS = {"safetensors": _write_safetensors, "torch": _write_torch, "onnx": _write_onnx}
LOADERS = {"safetensors": _load_safetensors, "torch": _load_torch, "onnx": _load_onnx}
assert tuple(WRITERS) == tuple(LOADERS) == get_args(Format)


def _example() -> tuple[Tensor]:
    return (torch.zeros(2, 3, 96, 128, dtype=torch.uint8),)


def _shapes(stride: int) -> tuple[dict[int, torch.export.Dim]]:
    """Return which sizes of the pixels may change: images, height and width.

    A side has at least two cells of the encoder's map, because the trace of a single one differs.
    """
    sides = {"min": 2 * stride, "max": LARGEST_SIDE}
    dim = torch.export.Dim
    return ({0: dim("images"), 2: dim("height", **sides), 3: dim("width", **sides)},)


@torch.inference_mode()
def _compare(model: Segmenter, scorer: Scorer) -> None:
    """Raise StepFailed unless both score made-up pictures alike."""
    generator = torch.Generator().manual_seed(0)
    dtype = next(model.parameters()).dtype
    for images, height, width in TRIALS:
        size = (images, 3, height, width)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        expected = upsample(model(normalise(pixels, dtype)).logits, (height, width))
        difference = float((scorer(pixels).double() - expected.double()).abs().max())
        largest = float(expected.abs().max())
        if not difference <= TOLERANCE * largest:
            raise StepFailed(
                f"the exported file does not compute what the step does: of scores up to "
                f"{largest:.3g} some differ by {difference:.3g}, so it was not kept"
            )
