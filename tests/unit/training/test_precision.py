"""A precision sets what a GPU computes, explicitly; a CPU keeps its settings."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from tests.support.methods import build_method, build_step
from training.checkpoint import load_checkpoint, take_snapshot
from training.config import InputError, Optimization, Precision
from training.methods import fine_tuning
from training.precision import DTYPES, autocast, gradient_scaler, set_precision, uses_tf32
from training.step_config import StepConfig

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    backends = torch.backends
    convolutions = backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = convolutions.fp32_precision, backends.cuda.matmul.fp32_precision
    searches = backends.cudnn.benchmark
    yield
    convolutions.fp32_precision, backends.cuda.matmul.fp32_precision = before
    backends.cudnn.benchmark = searches


@pytest.mark.parametrize("precision", DTYPES)
def test_only_tf32_uses_tf32(precision: Precision):
    set_precision(precision, GPU, fixed_shapes=True)
    assert uses_tf32(GPU) == (precision == "tf32")
    expected = "tf32" if precision == "tf32" else "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == expected


def test_cudnn_searches_only_where_shapes_are_fixed():
    for fixed in (True, False):
        set_precision("float32", GPU, fixed_shapes=fixed)
        assert torch.backends.cudnn.benchmark == fixed


def test_a_cpu_keeps_its_settings():
    set_precision("tf32", GPU, fixed_shapes=True)
    set_precision("float32", torch.device("cpu"), fixed_shapes=False)
    assert uses_tf32(GPU)
    assert torch.backends.cudnn.benchmark
    assert not uses_tf32(torch.device("cpu"))


def test_only_half_precisions_round_what_convolutions_read():
    layer = torch.nn.Conv2d(1, 1, 1)
    images = torch.ones(1, 1, 2, 2)
    halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    for precision in ("float32", "tf32", "bfloat16", "float16"):
        with autocast(precision, CPU):
            found = layer(images).dtype
        assert found == halves.get(precision, torch.float32)


def test_a_cpu_refuses_float16():
    with pytest.raises(InputError, match=r"float16 is for GPUs, and this step runs on a CPU: set"):
        set_precision("float16", CPU, fixed_shapes=True)


def updated(precision: Precision, gradient: float) -> tuple[float, GradScaler]:
    """Return a weight of 1 after one update by SGD at rate 1, and what scaled the gradient."""
    weight = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = SGD([weight], lr=1)
    scaler = gradient_scaler(precision, CPU)
    scaler.scale(weight * gradient).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return weight.item(), scaler


@pytest.mark.parametrize("precision", DTYPES)
def test_the_scale_of_the_loss_leaves_an_update_as_it_is(precision: Precision):
    assert updated(precision, 0.25)[0] == 0.75


def test_a_gradient_that_overflows_gives_no_update_and_a_smaller_scale():
    _, before = updated("float16", 0.25)
    weight, after = updated("float16", float("inf"))
    assert weight == 1
    assert after.get_scale() == before.get_scale() / 2
    assert updated("bfloat16", float("inf"))[0] == float("-inf")


def test_a_checkpoint_restores_the_scale(tmp_path: Path):
    _, halved = updated("float16", float("inf"))
    method = build_method(build_step(fine_tuning.Config()))
    optimizer = SGD(method.parameters(), lr=1)
    take_snapshot(method, optimizer, halved, 7, []).write(tmp_path)
    resumed = gradient_scaler("float16", CPU)
    assert load_checkpoint(tmp_path, method, optimizer, resumed) == (7, [])
    assert resumed.get_scale() == halved.get_scale()


def test_importance_is_not_recorded_in_float16():
    step = build_step(fine_tuning.Config(importance=True))
    half = step.optimization.model_copy(update={"precision": "float16"})
    with pytest.raises(ValidationError, match="would spoil: set its precision to bfloat16"):
        StepConfig.model_validate({**dict(step), "optimization": half})


def test_every_precision_of_the_document_has_a_dtype():
    for precision in DTYPES:
        assert Optimization(precision=precision).precision == precision
