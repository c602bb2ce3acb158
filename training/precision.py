"""Say what each precision of a step's document computes, and set PyTorch accordingly.

docs/gpu.md has the table. PyTorch's own defaults are not used, because on a GPU they compute
convolutions of float32 tensors in TF32 and matrix products in IEEE float32.
"""

import torch
from torch.amp.grad_scaler import GradScaler

from training.config import InputError, Precision

# The dtype of the weights; in the half precisions it is autocast that rounds what convolutions
# read.
DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.float32,
    "float16": torch.float32,
    "float64": torch.float64,
}
# What autocast rounds to.
HALVES: dict[Precision, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which forward passes run; it only rounds in the half precisions."""
    half = HALVES.get(precision, torch.bfloat16)
    return torch.autocast(device.type, half, enabled=precision in HALVES)


def gradient_scaler(precision: Precision, device: torch.device) -> GradScaler:
    """Return what keeps the gradients of float16 from becoming 0; otherwise it does nothing.

    The loss is multiplied by a number that is halved when a gradient overflows, and then there is
    no update; it doubles after 2000 iterations without one.
    """
    return GradScaler(device.type, enabled=precision == "float16")


def set_precision(precision: Precision, device: torch.device, fixed_shapes: bool) -> None:
    """Set how a GPU multiplies float32 values from now on, in this process.

    Args:
        precision: Of the step. Only `tf32` rounds factors to 10 bits.
        device: Where the step runs. A CPU has nothing to set.
        fixed_shapes: Whether all batches have one shape, for which cuDNN may look for the fastest
            algorithm.

    Raises:
        InputError: The precision is float16 and the device a CPU.
    """
    if device.type != "cuda":
        if precision == "float16":
            raise InputError(
                "the precision float16 is for GPUs, and this step runs on a CPU: set "
                "optimization.precision and base.optimization.precision to float32 or bfloat16"
            )
        return
    value = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = value  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cuda.matmul.fp32_precision = value
    torch.backends.cudnn.benchmark = fixed_shapes


def uses_tf32(device: torch.device) -> bool:
    """Return whether convolutions of float32 tensors run in TF32 on this device."""
    if device.type != "cuda":
        return False
    return torch.backends.cudnn.conv.fp32_precision == "tf32"  # pyright: ignore[reportAttributeAccessIssue]
