"""A large image is predicted in tiles as it would be in one piece."""

from itertools import pairwise

import pytest
import torch

from training.config import ModelConfig
from training.evaluate import predict
from training.models.segmenter import Segmenter, upsample
from training.tiles import _upsample_rows, predict_tiled, spans

IDS = torch.arange(5, dtype=torch.uint8)


@pytest.fixture(scope="module")
def model() -> Segmenter:
    """Return an untrained network whose cells look at no more than about 100 pixels around them."""
    torch.manual_seed(0)
    config = ModelConfig(encoder="tiny", output_stride=4, head_channels=16, eval_pooling=16)
    return Segmenter(config, (3, 2)).eval().requires_grad_(False)


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 67, 68, 100, 160, 1000, 1003])
@pytest.mark.parametrize("overlap", [0, 16, 24])
def test_tiles_cover_a_side_from_whole_cells_on(length: int, overlap: int):
    tiles = spans(length, tile=64, overlap=overlap, stride=4)
    assert tiles[0].first == 0
    assert tiles[-1].end == length
    for tile in tiles:
        assert tile.first % 4 == 0
        assert tile.end - tile.first < 64 + 4
    for left, right in pairwise(tiles):
        assert left.end - right.first >= overlap
        assert left.after
        assert right.before


@pytest.mark.parametrize(("height", "width"), [(384, 512), (333, 515)])
def test_tiles_agree_with_the_whole_image(model: Segmenter, height: int, width: int):
    """Of the pixels, 99.9 per cent have the class that they have in one piece; most of them must,
    because most cells see all that they look at within one tile."""
    torch.manual_seed(1)
    pixels = image(height, width)
    whole = predict(model, pixels[None], IDS)[0]
    tiled = predict_tiled(model, pixels, IDS, tile=320, overlap=224, stride=4)
    assert tiled.shape == whole.shape
    assert (tiled == whole).double().mean() > 0.999
    assert len(whole.unique()) > 1


def test_an_image_that_fits_one_tile_has_the_same_classes(model: Segmenter):
    torch.manual_seed(2)
    pixels = image(96, 130)
    whole = predict(model, pixels[None], IDS)[0]
    tiled = predict_tiled(model, pixels, IDS, tile=320, overlap=128, stride=4)
    assert (tiled == whole).double().mean() > 0.9999


def test_strips_are_the_rows_of_the_whole():
    torch.manual_seed(3)
    logits = torch.randn(1, 3, 21, 30, dtype=torch.float64)
    whole = upsample(logits, (331, 477))
    strips = [
        _upsample_rows(logits, (331, 477), first, min(first + 50, 331))
        for first in range(0, 331, 50)
    ]
    torch.testing.assert_close(torch.cat(strips, 2), whole)
