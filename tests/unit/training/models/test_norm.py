"""Norms are frozen, folded, or span several workers (this file is also the worker)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from tests.support.paths import ROOT
from training.models.mobilenet import Depthwise
from training.models.norm import BatchNorm, convolve

CHANNELS = 3


def _lived_in(norm: BatchNorm) -> BatchNorm:
    generator = torch.Generator().manual_seed(1)
    for values, low in (
        (norm.weight, 0.5),
        (norm.bias, -1),
        (norm.running_mean, -1),
        (norm.running_var, 0.5),
    ):
        values.data.uniform_(low, 2, generator=generator)
    return norm.double()


def test_frozen_norm_keeps_its_statistics_whatever_train_says() -> None:
    norm = _lived_in(BatchNorm(CHANNELS, frozen=True))
    network = nn.Sequential(norm).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    images = torch.randn(4, CHANNELS, 5, 5, dtype=torch.float64)
    output = network(images)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(output, network.eval()(images), rtol=0, atol=0)
    output.sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.abs().min() > 0


def test_batch_norm_follows_train_and_eval_like_torch() -> None:
    ours, torchs = BatchNorm(CHANNELS), nn.BatchNorm2d(CHANNELS)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    images = torch.randn(4, CHANNELS, 5, 5)
    for mode in (True, False):
        torch.testing.assert_close(
            ours.train(mode)(images), torchs.train(mode)(images), rtol=0, atol=0
        )
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, CHANNELS, 3, 2, padding=2, dilation=2, bias=False),
        Depthwise(CHANNELS, 1, 2),
        Depthwise(CHANNELS, 2, 1),
    ],
)
def test_folding_changes_neither_outputs_nor_gradients(
    convolution: nn.Conv2d, frozen: bool
) -> None:
    convolution, norm = convolution.double(), _lived_in(BatchNorm(CHANNELS, frozen))
    norm.train(frozen)
    images = torch.randn(2, convolution.in_channels, 7, 8, dtype=torch.float64, requires_grad=True)
    inputs = (images, convolution.weight, norm.weight, norm.bias)
    folded, plain = convolve(convolution, norm, images), norm(convolution(images))
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-12)
    direction = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad(folded, inputs, direction),
        torch.autograd.grad(plain, inputs, direction),
        rtol=0,
        atol=1e-11,
    )


def _train_two_batches(
    network: nn.Module, batches: list[Tensor], directions: list[Tensor]
) -> dict[str, Tensor]:
    """Return outputs, gradients of input and parameters, and the state after two passes."""
    found = {}
    for index, (batch, direction) in enumerate(zip(batches, directions, strict=True)):
        batch.requires_grad_()
        output = network(batch)
        (output * direction).sum().backward()
        assert batch.grad is not None
        found |= {f"output {index}": output.detach(), f"input gradient {index}": batch.grad}
    found |= {
        f"gradient of {name}": value.grad
        for name, value in network.named_parameters()
        if value.grad is not None
    }
    return found | network.state_dict()


def _network() -> nn.Module:
    norm = _lived_in(BatchNorm(CHANNELS))
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 1, dtype=torch.float64),
        norm,
        nn.LeakyReLU(0.01, inplace=True),
    ).train()


def _worker(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    given = torch.load(folder / "given.pt")
    network = _network()
    network.load_state_dict(given["state"])
    batches = [tensor.split([5, 3])[rank].clone() for tensor in given["batches"]]
    directions = [tensor.split([5, 3])[rank].clone() for tensor in given["directions"]]
    found = _train_two_batches(network, batches, directions)
    for name, value in found.items():
        if name.startswith("gradient of "):
            distributed.all_reduce(value)
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def test_two_workers_equal_one(tmp_path: Path) -> None:
    """Return unequal shares, 5 and 3 images, of batches whose mean is far from zero.

    There, sums of squares would cancel.
    """
    network = _network()
    batches = [100 + torch.randn(8, CHANNELS, 4, 5, dtype=torch.float64) for _ in range(2)]
    directions = [torch.randn_like(batch) for batch in batches]
    torch.save(
        {"state": network.state_dict(), "batches": batches, "directions": directions},
        tmp_path / "given.pt",
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-W", "error", __file__, str(rank), str(tmp_path)] for rank in range(2)
    ]
    workers = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        assert [worker.wait(120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    one = _train_two_batches(network, batches, directions)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name, expected in one.items():
        together = (
            torch.cat([first[name], second[name]])
            if name.startswith(("output", "input"))
            else first[name]
        )
        # Gradients of the parameters are sums over values of 100, with as much less of precision.
        tolerance = 1e-9 if name.startswith("gradient") else 1e-12
        torch.testing.assert_close(
            together,
            expected,
            rtol=0,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    assert all(torch.equal(first[name], second[name]) for name in network.state_dict())


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]))
