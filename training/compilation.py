"""Compile the encoder of a step on a GPU: norms, activations and sums become one pass.

Compiling takes about a minute for each process that has not compiled the same encoder before. It
changes results by rounding only, so it is no part of a key.
"""

import os
from pathlib import Path

from torch import nn

# Where PyTorch's compiler keeps what it compiled.
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compile_encoder(encoder: nn.Module, cache: Path) -> None:
    """Let the encoder compile its forward pass when it is first called.

    Names and values of its weights stay. `stages`, which PLOP calls, is not compiled.

    Args:
        encoder: Of the model that trains.
        cache: A folder that outlives the process, so that others need not compile again.
    """
    os.environ[CACHE] = str(cache)
    encoder.compile()
