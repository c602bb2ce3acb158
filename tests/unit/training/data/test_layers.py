"""Check that a layer's map gives the numbers in its file, whatever their bits."""

import numpy as np
import pytest

from tests.support.images import gray_png
from training.data.layers import decode_layer


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_of_any_depth_gives_the_numbers_in_the_file(bits: int) -> None:
    numbers = np.array([[0, 1, 2**bits - 1, 0], [1, 1, 2**bits - 2, 1]])
    np.testing.assert_array_equal(decode_layer(gray_png(numbers, bits)), numbers)
