"""Estimate how much memory an iteration of a step needs, without doing it.

The step's own method runs forward and backward on the device `meta`, whose tensors have shapes and
no values. Every storage counts from the operation that makes it until nothing refers to it any
more: what the backward pass needs, maps at image resolution, gradients. A large network takes a
second. What allocators and libraries need besides is a margin (`MARGIN`, `LIBRARIES`).
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from training.checkpoint import freeze
from training.config import InputError
from training.importance import PREFIX, Fisher, PathIntegral, RiemannianWalk
from training.iteration import method_class, place
from training.methods.base import Batch, Method, Progress
from training.models.segmenter import Segmenter, normalise
from training.precision import DTYPES, HALVES
from training.step_config import StepConfig

META = torch.device("meta")
# Bytes that an allocator reserves for each byte in use, because free blocks have other sizes.
MARGIN = 1.1
# Bytes of CUDA's context and libraries with their workspaces, or of a process on a CPU.
LIBRARIES = 600e6
# The functions whose factors autocast rounds: convolutions, and what encoders of Transformers call.
ROUNDED = (F.conv2d, F.linear, F.scaled_dot_product_attention, torch.matmul)
# Late in training, when every part of a method is at work.
LATE = Progress(iteration=900, total=1000, per_epoch=20)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one worker needs."""

    fixed: int  # weights, statistics and momentum of the method, and the previous model
    saved: int  # what the backward pass needs of the forward pass
    peak: int  # the most that is alive at once, the fixed part included

    @property
    def needed(self) -> float:
        """Return the peak with the margin."""
        return MARGIN * self.peak + LIBRARIES

    @property
    def least(self) -> float:
        """Return what is needed even if the allocator wastes nothing."""
        return self.peak + LIBRARIES


def estimate_memory(step: StepConfig, workers: int = 1) -> MemoryEstimate:
    """Return what one of the workers of a step needs.

    Args:
        step: The document of the step.
        workers: They share each batch.
    """
    method = build_on_meta(step)
    models = [method, *filter(None, method.unregistered)]
    fixed_tensors: list[Tensor] = []
    for model in models:
        fixed_tensors += [*model.parameters(), *model.buffers()]
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    fixed = sum(map(_bytes, fixed_tensors)) + sum(map(_bytes, trained))
    if workers > 1:
        # The buckets in which workers exchange gradients stay.
        fixed += sum(map(_bytes, trained))
    live = LiveMemory(fixed_tensors)
    saved = _Saved(fixed_tensors)
    with live, precision(step):
        batch = meta_batch(step, step.optimization.batch // workers)
        with saved_tensors_hooks(saved.pack, saved.unpack):
            losses = method(batch, LATE)
            total = torch.stack(list(losses.values())).sum()
        saved_bytes = saved.bytes()
        total.backward()
        with torch.no_grad():
            method.before_update(LATE)
    return MemoryEstimate(fixed, saved_bytes, fixed + live.peak)


def check_fits(step: StepConfig, estimate: MemoryEstimate, available: float, where: str) -> None:
    """Raise InputError if a worker of the step cannot fit.

    Args:
        step: The document of the step.
        estimate: What its workers need.
        available: Bytes of memory.
        where: Whose memory it is, for the message.
    """
    if estimate.least <= available:
        return
    advice = "more workers (--workers), a smaller optimization.batch or augmentation.crop"
    if step.optimization.precision not in HALVES:
        advice = f"optimization.precision bfloat16, {advice}"
    index = len(step.task.groups) - 1
    raise InputError(
        f"step {index} ({step.method.name}) needs about {estimate.needed / 1e9:.1f} GB of memory "
        f"on each worker, and {where} has {available / 1e9:.1f} GB: use {advice}"
    )


def check_device(step: StepConfig, workers: int, device: torch.device, share: float = 1.0) -> None:
    """Raise InputError if a worker of the step cannot fit on this GPU; a CPU is not asked.

    Args:
        step: The document of the step.
        workers: How many share each batch.
        device: The worker's device.
        share: The share of a GPU's memory that the worker may use.
    """
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        estimate = estimate_memory(step, workers)
        where = f"this {properties.name}" if share == 1 else f"{share:g} of this {properties.name}"
        check_fits(step, estimate, share * properties.total_memory, where)


def build_on_meta(step: StepConfig) -> Method:
    """Return the step's method, ready to train on the device `meta`, with its previous model."""
    previous = inherited = None
    with META:
        if len(step.task.groups) > 1:
            previous = freeze(Segmenter(step.model, step.task.channels[:-1]))
            size = sum(parameter.numel() for parameter in previous.parameters())
            names = {*Fisher.measures, *PathIntegral.measures, *RiemannianWalk.measures}
            inherited = {PREFIX + name: torch.empty(size) for name in names}
            new = step.task.channels[-1]
            inherited["reserved.weight"] = torch.empty(new, step.model.head_channels, 1, 1)
            inherited["reserved.bias"] = torch.empty(new)
        method = method_class(step.method)(step, previous, inherited=inherited)
    return place(method, META)


def meta_batch(step: StepConfig, images: int) -> Batch:
    """Return a batch of so many images without values, as the loop makes it."""
    crop = step.augmentation.crop
    dtype = DTYPES[step.optimization.precision]
    pixels = torch.empty(images, 3, crop, crop, dtype=torch.uint8, device=META)
    targets = None
    if step.task.supervision == "pixel":
        targets = torch.empty(images, crop, crop, dtype=torch.int64, device=META)
    labels = torch.empty(images, len(step.task.classes), dtype=dtype, device=META)
    shape = (images, crop, crop)
    layers = {
        layer: torch.empty(shape, dtype=torch.int32, device=META) for layer in step.method.layers
    }
    kept = None
    if step.task.memory is not None:
        kept = torch.empty(images, dtype=torch.bool, device=META)
    return Batch(pixels, normalise(pixels, dtype), targets, labels, layers, kept)


def precision(step: StepConfig) -> TorchFunctionMode:
    """Return a context in which convolutions have the precision that autocast gives them."""
    return _HalfConvolutions(step.optimization.precision in HALVES)


class _HalfConvolutions(TorchFunctionMode):
    """Convolve and multiply in bfloat16, as autocast does on real devices, but not on `meta`."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Any = None
    ) -> Any:
        if self.enabled and func in ROUNDED:
            args = tuple(_half(value) for value in args)
        return func(*args, **(kwargs or {}))


def _half(value: Any) -> Any:
    """Return a tensor in bfloat16, anything else as it is."""
    return value.to(torch.bfloat16) if isinstance(value, Tensor) else value


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, and the most at any moment.

    Args:
        known: Tensors that exist already and do not count.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity not in self._counted:
            self._counted.add(identity)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, identity, storage.nbytes())

    def _free(self, identity: int, size: int) -> None:
        self._counted.discard(identity)
        self.now -= size


class _Saved:
    """Collects the storages that the backward pass needs, but for the known ones."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._sizes: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd saves."""
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity not in self._known and identity not in self._sizes:
            self._sizes[identity] = storage.nbytes()
            # What is given up is not needed, and another storage may get its address.
            weakref.finalize(storage, self._sizes.pop, identity, None)
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        """Return what was saved."""
        return tensor

    def bytes(self) -> int:
        """Return the bytes of all saved storages."""
        return sum(self._sizes.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
