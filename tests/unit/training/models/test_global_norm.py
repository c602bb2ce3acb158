"""Two workers normalise as one does with both their batches (this file is also the worker)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from tests.support.paths import ROOT
from training.models.global_norm import statistics_group
from training.models.norm import BatchNorm

CHANNELS = 3
Found = dict[str, Tensor]


def _network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    norm = BatchNorm(CHANNELS)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        values.data.uniform_(0.5, 2)
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
    return nn.Sequential(convolution, norm, nn.LeakyReLU(0.01, inplace=True)).to(dtype).train()


def _train_two_batches(
    network: nn.Module, batches: list[Tensor], directions: list[Tensor], half: bool
) -> Found:
    """Return outputs, gradients of input and parameters, and the state after two passes."""
    found = {}
    for index, (batch, direction) in enumerate(zip(batches, directions, strict=True)):
        batch = batch.to(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
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


def _worker(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    given = torch.load(folder / "given.pt")
    batches = [tensor.chunk(2)[rank].clone() for tensor in given["batches"]]
    directions = [tensor.chunk(2)[rank].clone() for tensor in given["directions"]]
    network = _network(batches[0].dtype)
    found = _train_two_batches(network, batches, directions, given["half"])
    for name, value in found.items():
        if name.startswith("gradient of "):
            distributed.all_reduce(value)
    torch.save(found, folder / f"rank{rank}.pt")
    group = statistics_group()
    assert group is not None
    assert group is statistics_group(), "a group per norm or step would use up the machine"
    assert group is not distributed.group.WORLD
    distributed.destroy_process_group()
    assert statistics_group() is None
    # Workers that stay may join another group of workers later.
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'again'}", rank=rank, world_size=2
    )
    distributed.all_reduce(torch.ones(1), group=statistics_group())
    distributed.destroy_process_group()


def _by_two_workers(folder: Path, given: dict[str, object]) -> tuple[Found, Found]:
    torch.save(given, folder / "given.pt")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-W", "error", __file__, str(rank), str(folder)] for rank in range(2)
    ]
    workers = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        assert [worker.wait(120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    return first, second


@pytest.mark.parametrize(
    ("dtype", "half", "centre", "tolerance"),
    [
        (torch.float64, False, 0, 1e-13),
        # There, sums of squares would cancel.
        (torch.float64, False, 100, 1e-11),
        (torch.float32, False, 0, 2e-4),
        # Half precision has three digits.
        (torch.float32, True, 0, 2e-2),
    ],
)
def test_two_workers_equal_one(
    tmp_path: Path, dtype: torch.dtype, half: bool, centre: float, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (8, CHANNELS, 4, 5)
    batches = [centre + torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]
    directions = [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]
    given = {"batches": batches, "directions": directions, "half": half}
    first, second = _by_two_workers(tmp_path, given)
    one = _train_two_batches(_network(dtype), batches, directions, half)
    for name, expected in one.items():
        whole = name.startswith(("output", "input"))
        found = torch.cat([first[name], second[name]]) if whole else first[name]
        assert found.dtype == expected.dtype
        # Gradients of the parameters are sums over all cells.
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(
            found, expected, rtol=0, atol=tolerance * scale, msg=lambda text, name=name: name + text
        )
    state = _network(dtype).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in state)


def test_a_single_worker_has_no_group() -> None:
    assert statistics_group() is None


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]))
