"""Predict an image that is too large to pass through the network at once, tile by tile.

Tiles overlap and begin at whole cells of the encoder's map. Their logits are laid into one map of
the whole image before anything is interpolated: where tiles overlap, as a mean whose weights fall
to the tiles' borders, at which a tile lacks context. So a cell whose surroundings lie within one
tile has the logits that the whole image would give it. The map is small. It is brought to the
image's size in strips, because the logits of every pixel would not fit into memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from training.methods.base import full_precision
from training.models.segmenter import Segmenter, normalise, upsample

STRIP = 1 << 24  # logits that are interpolated at once


class Span(NamedTuple):
    """Where a tile lies along one side, in pixels."""

    first: int
    end: int
    # Whether the image goes on beyond the tile.
    before: bool
    after: bool


def spans(length: int, tile: int, overlap: int, stride: int) -> list[Span]:
    """Return the tiles along a side: evenly spread, each beginning at a multiple of `stride`.

    Args:
        length: Of the image's side.
        tile: Of a tile's side, a multiple of `stride`. The last tile may be longer by less than a
            stride.
        overlap: The least that two tiles share, a multiple of `stride` and less than `tile`.
        stride: Of the encoder's map.
    """
    if length < tile + stride:
        return [Span(0, length, False, False)]
    last = (length - tile) // stride
    count = max(2, -(-(length - overlap) // (tile - overlap)))
    firsts = [last * number // (count - 1) * stride for number in range(count)]
    ends = [first + tile for first in firsts[:-1]] + [length]
    return [
        Span(first, end, number > 0, number < count - 1)
        for number, (first, end) in enumerate(zip(firsts, ends, strict=True))
    ]


@torch.inference_mode()
def predict_tiled(
    model: Segmenter, pixels: Tensor, class_ids: Tensor, tile: int, overlap: int, stride: int
) -> Tensor:
    """Return the dataset id of the likeliest class at each pixel, as `training.evaluate.predict`.

    Args:
        model: Its parameters are on the device that is used.
        pixels: RGB, uint8 [3, H, W], on any device.
        class_ids: The dataset id of each channel, uint8.
        tile: As for `spans`, and so are `overlap` and `stride`.

    Returns:
        uint8 [H, W], on the device of `pixels`.
    """
    logits = _stitch(model, pixels, tile, overlap, stride)
    height, width = pixels.shape[-2:]
    rows = max(1, STRIP // (len(class_ids) * width))
    strips = []
    for first in range(0, height, rows):
        strip = _upsample_rows(logits, (height, width), first, min(first + rows, height))
        strips.append(class_ids[strip.argmax(1)[0]].to(pixels.device))
    return torch.cat(strips)


def _stitch(model: Segmenter, pixels: Tensor, tile: int, overlap: int, stride: int) -> Tensor:
    """Return the logits of the whole image at the resolution of the encoder, [1, C, h, w]."""
    height, width = pixels.shape[-2:]
    parameter = next(model.parameters())
    logits = weights = None
    for down, right, part in _tiles(pixels, tile, overlap, stride):
        images = normalise(part[None].to(parameter.device), parameter.dtype)
        found = full_precision(model(images.contiguous(memory_format=torch.channels_last)).logits)
        if logits is None or weights is None:
            size = -(-height // stride), -(-width // stride)
            logits = found.new_zeros(1, found.shape[1], *size)
            weights = found.new_zeros(size)
        box = tuple(
            slice(span.first // stride, span.first // stride + cells)
            for span, cells in zip((down, right), found.shape[-2:], strict=True)
        )
        weight = _weights(down, found.shape[-2], found)[:, None] * _weights(
            right, found.shape[-1], found
        )
        logits[(..., *box)] += weight * found
        weights[box] += weight
    assert logits is not None
    assert weights is not None
    return logits / weights


def _tiles(
    pixels: Tensor, tile: int, overlap: int, stride: int
) -> Iterator[tuple[Span, Span, Tensor]]:
    """Yield the tiles of an image, row by row, with where they lie."""
    height, width = pixels.shape[-2:]
    for down in spans(height, tile, overlap, stride):
        for right in spans(width, tile, overlap, stride):
            yield down, right, pixels[:, down.first : down.end, right.first : right.end]


def _weights(span: Span, cells: int, like: Tensor) -> Tensor:
    """Return the weights of a tile's cells along one side, [cells].

    They are the fourth power of the distance to the border at which the tile ends and the image
    does not. A smaller power lets more of what a border spoils through, and a mean without any
    would show the seams.
    """
    place = torch.arange(cells, dtype=like.dtype, device=like.device) + 0.5
    distance = torch.full_like(place, cells)
    if span.before:
        distance = distance.minimum(place)
    if span.after:
        distance = distance.minimum(cells - place)
    return (distance / cells) ** 4


def _upsample_rows(logits: Tensor, size: tuple[int, int], first: int, end: int) -> Tensor:
    """Return the rows `first` to `end` of `upsample(logits, size)`, [1, C, end - first, W]."""
    height, width = size
    rows = torch.arange(first, end, dtype=logits.dtype, device=logits.device)
    place = ((rows + 0.5) * (logits.shape[-2] / height) - 0.5).clamp(min=0)
    above = place.long()
    below = (above + 1).clamp(max=logits.shape[-2] - 1)
    share = (place - above)[:, None]
    mixed = torch.lerp(logits[..., above, :], logits[..., below, :], share)
    return upsample(mixed, (end - first, width))
