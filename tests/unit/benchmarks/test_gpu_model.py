"""Check the model's prices against hand-made counts, and that it runs each kind of step."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from benchmarks.gpu_model import GPU, Prices, predictions, price, table
from benchmarks.gpu_steps import TINY
from training.config import ModelConfig

META = torch.device("meta")


def test_a_convolution_is_counted_by_its_definition() -> None:
    images = torch.empty(2, 64, 32, 32, device=META, requires_grad=True)
    kernel = torch.empty(128, 64, 3, 3, device=META, requires_grad=True)
    with Prices("bfloat16") as prices:
        output = F.conv2d(images, kernel, padding=1)
    flops = 2 * (2 * 32 * 32) * (64 * 9) * 128
    sizes = [images.numel(), kernel.numel(), output.numel()]
    assert (prices.total.kernels, prices.total.flops) == (1, flops)
    assert prices.total.bytes == 4 * sum(sizes)
    with Prices("bfloat16") as backward:
        output.backward(torch.empty_like(output))
    assert (backward.total.kernels, backward.total.flops) == (2, 2 * flops)


def test_views_and_reservations_are_free() -> None:
    tensor = torch.empty(4, 6, device=META)
    with Prices("float32") as prices:
        tensor.view(2, 12).t()[:, :1].expand(12, 5)
        torch.empty_like(tensor)
    assert prices.total.kernels == 0
    with Prices("float32") as prices:
        tensor.mul_(2)
    assert prices.total.kernels == 1


def test_an_operation_takes_the_longest_of_bytes_flops_and_kernels() -> None:
    moved = price("add", 1e9, 0, 1, "bfloat16")
    assert moved.seconds == pytest.approx(1e9 / (0.8 * GPU.bandwidth))
    assert price("mm", 0, 1e12, 1, "bfloat16").seconds == pytest.approx(1e12 / (0.55 * 989e12))
    assert price("add", 8, 0, 3, "bfloat16").seconds == 3 * GPU.smallest_kernel


@pytest.mark.slow
def test_every_kind_of_step_has_a_row() -> None:
    digits = ModelConfig(encoder="tiny", output_stride=4, head_channels=8)
    rows = list(predictions(replace(TINY, model=digits)))
    assert len(table(rows).splitlines()) == 2 + len(rows)
    halves = {row.step: row for row in rows if row.precision == "bfloat16"}
    for row in rows:
        assert row.images_per_second > 0
        assert row.cost.flops > 0
        assert row.saved > 0
    assert halves["wilson, warm-up"].cost.flops < halves["wilson"].cost.flops
