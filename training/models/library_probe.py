"""Tell whether the installed Transformers computes what another version computed.

Weights and configuration do not decide the numbers alone: the library's code does, too. A published
model therefore holds what its encoder computed of a fixed picture. Whoever loads it compares.
"""

import torch

from training.config import InputError
from training.models.library import installed_version
from training.models.library_encoder import LibraryEncoder
from training.models.segmenter import Segmenter

CELLS = 4  # of a side of the picture
GROUPS = 8  # of channels, each of which gives one number
TOLERANCE = 1e-4  # of the largest number: machines round differently, to about 1e-6


@torch.no_grad()
def probe_features(model: Segmenter) -> tuple[float, ...] | None:
    """Return the mean absolute feature of each group of channels; None for an encoder of ours.

    Args:
        model: In evaluation mode, on a CPU.
    """
    encoder = model.encoder
    if not isinstance(encoder, LibraryEncoder):
        return None
    side = torch.arange(CELLS * encoder.layout.grain) / 7.0
    waves = torch.stack([torch.cos(side * (1 + colour / 5)) for colour in range(3)])
    picture = (waves[:, :, None] * waves[:, None, :])[None]
    features = encoder(picture.to(next(model.parameters()).dtype)).double().abs()
    return tuple(float(f"{group.mean():.8g}") for group in features[0].chunk(GROUPS))


def check_features(model: Segmenter, expected: tuple[float, ...] | None) -> None:
    """Raise InputError if the model's encoder computes other numbers than when it was published.

    Args:
        model: As for `probe_features`.
        expected: What `probe_features` returned then; None is not compared.
    """
    if expected is None:
        return
    found = probe_features(model) or ()
    tolerance = TOLERANCE * max(map(abs, expected))
    if len(found) == len(expected) and all(
        abs(now - then) <= tolerance for now, then in zip(found, expected, strict=True)
    ):
        return
    raise InputError(
        f"{installed_version()} computes other features of this model's encoder than the version "
        f"that trained it ({found[0] if found else 'none'} instead of {expected[0]}): install that "
        "version, which the step's record names"
    )
