"""Run a step's loop on the device `meta`, which has shapes but no values.

A meta tensor next to a CPU tensor raises, as a GPU's does, and so does everything that needs a
value: `.item()`, a condition, a boolean mask. On a GPU such a line makes the host wait for the
device. Copies between host and device do not raise by themselves, so `NoHostCopies` refuses them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.support.methods import START, build_batch, build_method
from training.iteration import build_optimizer, iterate, place
from training.loss_guard import LossGuard
from training.methods import base
from training.precision import autocast, gradient_scaler
from training.runtime import Runtime
from training.step_config import StepConfig

HOST = torch.device("cpu")
META = torch.device("meta")


class NoHostCopies(TorchFunctionMode):
    """Refuse to make a meta tensor of the host's values, or a CPU tensor of a meta tensor."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Call the function; raise RuntimeError if it copied between host and device."""
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor):
            return result
        name = getattr(func, "__name__", "")
        given = [value for value in args if isinstance(value, Tensor)]
        from_values = name in ("tensor", "as_tensor", "new_tensor")
        crossed = any(tensor.device != result.device for tensor in given if tensor.ndim)
        if (from_values and result.is_meta) or crossed:
            raise RuntimeError(
                f"{name} copies between host and device, and a GPU would be waited for"
            )
        return result


def run_on_meta(
    document: StepConfig,
    points: Sequence[base.Progress] = (START,),
    change: Callable[[base.Method], base.Method] = lambda method: method,
    made_on: torch.device = HOST,
) -> list[dict[str, Tensor]]:
    """Run an iteration of the step's loop at each point; return the losses.

    Args:
        document: The step, of the small model of `tests.support.methods`.
        points: Where in training the iterations are.
        change: Changes the method first.
        made_on: Where the method is built, before it is moved. On the host, a tensor that the move
            forgets is found.
    """
    batch = moved(build_batch(document))
    with made_on:
        method = place(change(build_method(document)), META)
    optimizer = build_optimizer(method, META)
    guard = LossGuard(Runtime(device=META), 100)
    # Meta tensors have no autocast.
    rounding = autocast("float32", HOST)
    scaler = gradient_scaler("float32", HOST)
    with NoHostCopies():
        return [
            iterate(method, method, optimizer, guard, batch, progress, rounding, scaler)
            for progress in points
        ]


def moved(batch: base.Batch) -> base.Batch:
    """Return the batch on the device."""
    parts = batch._asdict().items()
    tensors = {name: part.to(META) for name, part in parts if isinstance(part, Tensor)}
    layers = {name: layer.to(META) for name, layer in batch.layers.items()}
    return batch._replace(**tensors, layers=layers)
