"""The network that goes with exported weights computes what the published one does."""

import ast
from pathlib import Path

import pytest
import torch

from tests.support.encoders import small_model
from training.config import ModelConfig
from training.models import standalone
from training.models.norm import BatchNorm
from training.models.segmenter import Segmenter, normalise, upsample
from training.models.standalone import Network


def in_other_colours(model: ModelConfig) -> ModelConfig:
    """Return the model with an encoder that was pretrained on other colours."""
    assert model.backbone is not None
    backbone = model.backbone.model_copy(update={"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.5)})
    return model.model_copy(update={"backbone": backbone})


CONFIGS = [
    ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=16),
    ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=None),
    ModelConfig(encoder="mobilenet_v2", head_channels=8, eval_pooling=3),
    ModelConfig(encoder="mobilenet_v2", output_stride=8, head_channels=8, eval_pooling=4),
    ModelConfig(encoder="resnet50", head_channels=8, activation="leaky_relu"),
    ModelConfig(encoder="resnet50", output_stride=8, head_channels=8, dilated_blocks="all"),
    ModelConfig(encoder="tiny", output_stride=4, head_channels=8, head="torchvision"),
    ModelConfig(
        encoder="tiny", output_stride=4, head_channels=32, eval_pooling=None, head="linear"
    ),
    small_model("dinov2"),
    small_model("swin", "stage3", "stage4", output_stride=16),
    in_other_colours(small_model("pvt_v2")),
    ModelConfig(encoder="tiny", output_stride=4, head_channels=8, classifier="ssul"),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda config: f"{config.encoder} {config.output_stride}"
)
def test_it_computes_what_the_published_network_does(config: ModelConfig):
    torch.manual_seed(0)
    model = Segmenter(config, (3, 2))
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    model.eval().requires_grad_(False)
    network = Network(config.model_dump(mode="json"), [3, 2]).eval()
    network.load_state_dict(model.state_dict())
    for size in ((48, 33), (17, 70)):
        pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        images = normalise(pixels)
        with torch.inference_mode():
            expected = upsample(model(images).logits, size)
            torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-4)


def test_it_agrees_where_background_wins_over_a_sure_class():
    config = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, classifier="ssul")
    model = Segmenter(config, (3, 2)).eval().requires_grad_(False)
    for name, value in model.state_dict().items():
        if name.endswith("scores.bias"):
            value.fill_(20 if name.startswith("classifiers") else 1)
    network = Network(config.model_dump(mode="json"), [3, 2]).eval()
    network.load_state_dict(model.state_dict())
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    expected = upsample(model(normalise(pixels)).logits, (32, 32))
    torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-4)
    assert (expected.argmax(1) == 0).all()


def test_it_needs_nothing_but_torch():
    source = Path(standalone.__file__).read_text(encoding="utf-8")
    needed = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            needed.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            needed.add(node.module)
    assert needed == {"collections", "importlib", "typing", "torch", "torch.nn"}
