"""A model whose norms are folded once gives the outputs of one that folds at each pass."""

import copy

import pytest
import torch
from torch import nn

from training.checkpoint import freeze
from training.config import ModelConfig
from training.models.folding import fold_norms, round_convolutions
from training.models.norm import BatchNorm
from training.models.segmenter import Segmenter

ENCODERS = {"tiny": 4, "mobilenet_v2": 16, "resnet50": 16}
# Norms that follow a concatenation or a sum, not a convolution.
LEFT = ["head.branches_norm", "head.norm"]


def frozen_model(encoder: str) -> Segmenter:
    """Return a frozen model, channels last, whose norms have statistics of their own."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {"encoder": encoder, "output_stride": ENCODERS[encoder], "head_channels": 8}
    )
    model = freeze(Segmenter(config, (3, 2)))
    for module in model.modules():
        if isinstance(module, BatchNorm):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                values.uniform_(0.5, 1.5)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def images() -> torch.Tensor:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return pixels.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_outputs_and_stages_keep_their_bits(encoder: str):
    model = frozen_model(encoder)
    folded = fold_norms(copy.deepcopy(model))
    with torch.no_grad():
        (outputs, stages), (found, found_stages) = (
            one.with_stages(images()) for one in (model, folded)
        )
        plain = folded(images())
    pairs = zip((*outputs, *stages), (*found, *found_stages), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(plain.logits, outputs.logits)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_norm_behind_a_convolution_is_left(encoder: str):
    model = fold_norms(frozen_model(encoder))
    norms = [name for name, module in model.named_modules() if isinstance(module, BatchNorm)]
    assert norms == LEFT


def test_a_norm_that_trains_is_not_folded():
    model = frozen_model("tiny").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = fold_norms(model).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_convolutions_rounded_once_equal_those_that_autocast_rounds():
    model = fold_norms(frozen_model("tiny"))
    rounded = round_convolutions(copy.deepcopy(model), torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, found = model(images()), rounded(images())
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
    kinds = {module.weight.dtype for module in rounded.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {torch.bfloat16}
