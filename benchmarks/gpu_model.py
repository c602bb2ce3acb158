"""Predict what a step costs on a GPU, without one: kernels, bytes, FLOPs, images per second.

    python -m benchmarks.gpu_model

The step's own method runs forward and backward on tensors without values
(`training.memory_estimate`), and each operation of PyTorch is priced by the bytes that it reads and
writes and by its FLOPs: it takes the longer of the two, and at least what the smallest kernels
take. The optimizer's update is priced by its bytes. Everything that is assumed stands in `GPU`,
`SHARE_OF_BANDWIDTH` and `SHARE_OF_PEAK`. The model knows no waits, no caches, no allocator and no
exchange between GPUs, so it is a bound to compare measurements with (`benchmarks.gpu`), not a
prediction to quote.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.gpu_steps import KINDS, PAPER, Sizes, build_step
from training.config import Precision
from training.memory_estimate import build_on_meta, estimate_memory, meta_batch, precision
from training.methods.base import Progress
from training.step_config import StepConfig


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet, and what a kernel costs at least."""

    name: str = "H100 SXM"
    bandwidth: float = 3.35e12  # bytes per second
    # FLOP per second of dense products.
    peak: dict[Precision, float] = field(
        default_factory=lambda: {
            "bfloat16": 989e12,
            "float16": 989e12,
            "tf32": 495e12,
            "float32": 67e12,
            "float64": 67e12,
        }
    )
    smallest_kernel: float = 2.5e-6  # seconds on the device
    launch: float = 5.5e-6  # seconds of the host for each kernel, with Python and autograd


GPU = Gpu()
# Share of the bandwidth that kernels reach, by the beginning of their name.
SHARE_OF_BANDWIDTH = {
    "upsample_bilinear2d_backward": 0.35,  # atomic additions
    "upsample": 0.6,
    "native_batch_norm": 0.65,
    "_softmax": 0.6,
    "_log_softmax": 0.6,
    "logsumexp": 0.6,
    "sum": 0.6,
    "mean": 0.6,
    "": 0.8,
}
# Share of the peak that convolutions and products reach.
SHARE_OF_PEAK = {"convolution_backward": 0.45, "": 0.55}
# Passes over the input that kernels of a norm in training make, and kernels that it launches.
NORM_PASSES = 2
NORM_KERNELS = 3
# The optimizer reads weights, gradients and momentum, and writes weights and momentum.
UPDATE_BYTES = 5 * 4
UPDATE_KERNELS = 4
# Reserve memory or give views: nothing runs on the device.
FREE = ("empty", "new_empty", "detach", "alias", "lift_fresh")
LATE = Progress(iteration=900, total=1000, per_epoch=20)
FIRST = Progress(iteration=0, total=1000, per_epoch=20)


@dataclass(frozen=True)
class Price:
    """What an operation, or a sum of them, costs."""

    kernels: int = 0
    bytes: float = 0  # moved between the GPU and its memory
    flops: float = 0
    seconds: float = 0  # on the device

    def __add__(self, other: "Price") -> "Price":
        """Return the sum."""
        return Price(
            self.kernels + other.kernels,
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.seconds + other.seconds,
        )


def price(name: str, moved: float, flops: float, kernels: int, kind: Precision) -> Price:
    """Return the price of an operation of ATen.

    Args:
        name: Its name, without overload.
        moved: Bytes that it reads and writes.
        flops: Of products.
        kernels: That it launches.
        kind: The precision of its products.
    """
    memory = moved / (GPU.bandwidth * _share(SHARE_OF_BANDWIDTH, name))
    products = flops / (GPU.peak[kind] * _share(SHARE_OF_PEAK, name))
    return Price(kernels, moved, flops, max(memory, products, kernels * GPU.smallest_kernel))


class Prices(TorchDispatchMode):
    """Adds up the prices of all operations that run inside.

    Args:
        kind: The precision of products.
    """

    def __init__(self, kind: Precision) -> None:
        super().__init__()
        self.kind: Precision = kind
        self.total = Price()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and add its price."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        read = [*_tensors([args, kwargs])]
        written = [*_tensors(result)]
        if name.startswith(FREE) or _is_view(func, read, written):
            return result
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **kwargs, out_val=result) if count else 0
        moved = sum(map(_bytes, read)) + sum(map(_bytes, written))
        kernels = 1
        if name == "convolution_backward":
            kernels = sum(args[-1])
            # Both gradients read that of the output.
            moved += _bytes(read[0]) * (kernels - 1)
        elif name.startswith("native_batch_norm"):
            kernels = NORM_KERNELS
            moved += (NORM_PASSES - 1) * _bytes(read[0])
        self.total += price(name, moved, flops, kernels, self.kind)
        return result


@dataclass(frozen=True)
class Prediction:
    """A row of the table."""

    step: str
    precision: Precision
    batch: int  # images on each GPU
    cost: Price
    saved: int  # bytes kept for the backward pass

    @property
    def host_seconds(self) -> float:
        """Return how long the host needs to launch all kernels."""
        return self.cost.kernels * GPU.launch

    @property
    def images_per_second(self) -> float:
        """Return the images per second of the slower of device and host."""
        return self.batch / max(self.cost.seconds, self.host_seconds)


def predict(title: str, step: StepConfig, progress: Progress = LATE) -> Prediction:
    """Return what an iteration of a step costs."""
    method = build_on_meta(step)
    prices = Prices(step.optimization.precision)
    with prices, precision(step):
        batch = meta_batch(step, step.optimization.batch)
        losses = method(batch, progress)
        torch.stack(list(losses.values())).sum().backward()
        with torch.no_grad():
            method.before_update(progress)
    weights = sum(parameter.numel() for parameter in method.parameters())
    moved = UPDATE_BYTES * weights
    update = price("update", moved, 0, UPDATE_KERNELS, step.optimization.precision)
    return Prediction(
        title,
        step.optimization.precision,
        step.optimization.batch,
        prices.total + update,
        estimate_memory(step).saved,
    )


def predictions(sizes: Sizes) -> Iterator[Prediction]:
    """Yield the rows of the table."""
    kinds: tuple[Precision, ...] = ("bfloat16", "tf32", "float32")
    for name in KINDS:
        for kind in kinds:
            yield predict(name, build_step(name, sizes, kind))
    wilson = build_step("wilson", sizes, "bfloat16")
    yield predict("wilson, warm-up", wilson, FIRST)
    yield predict(
        "wilson on 8 GPUs", build_step("wilson", sizes, "bfloat16", max(2, sizes.batch // 8))
    )


def table(rows: Iterable[Prediction]) -> str:
    """Return the predictions as a table in Markdown."""
    lines = [
        "| step | precision | batch | kernels | GB moved | TFLOP | device ms | host ms | images/s "
        "| GB saved |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cost = row.cost
        lines.append(
            f"| {row.step} | {row.precision} | {row.batch} | {cost.kernels:,} "
            f"| {cost.bytes / 1e9:.0f} | {cost.flops / 1e12:.1f} | {cost.seconds * 1e3:.0f} "
            f"| {row.host_seconds * 1e3:.0f} | {row.images_per_second:.0f} "
            f"| {row.saved / 1e9:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table of ResNet-101 at the papers' sizes on the GPU of `GPU`."""
    print(f"{GPU.name}, by the model:\n")
    print(table(predictions(PAPER)))


def _share(shares: dict[str, float], name: str) -> float:
    return next(share for start, share in shares.items() if name.startswith(start))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _is_view(func: Any, read: Sequence[Tensor], written: Sequence[Tensor]) -> bool:
    """Return whether the operation only gives other shapes to what it reads."""
    if func._schema.is_mutable:
        return False
    storages = {tensor.untyped_storage()._cdata for tensor in read}
    return all(tensor.untyped_storage()._cdata in storages for tensor in written)


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor, those of repeated dimensions once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


if __name__ == "__main__":
    tyro.cli(main)
