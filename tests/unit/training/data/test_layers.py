"""Check that a layer's map gives the numbers in its file, whatever their bits."""

import numpy as np
import pytest

from tests.support.images import gray_png, png_of_size
from training.data.layers import decode_layer
from training.data.source import BadData


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_of_any_depth_gives_the_numbers_in_the_file(bits: int) -> None:
    numbers = np.array([[0, 1, 2**bits - 1, 0], [1, 1, 2**bits - 2, 1]])
    np.testing.assert_array_equal(decode_layer(gray_png(numbers, bits)), numbers)


def test_a_map_that_is_too_large_is_refused_without_an_option_that_layers_lack() -> None:
    with pytest.raises(BadData, match=r"the map is .* are read: make it smaller$"):
        decode_layer(png_of_size(80_000_000, 80_000_000))
