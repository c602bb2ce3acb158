"""Check that the transcription of the published code computes the losses of this code."""

from importlib import import_module

import pytest
import torch
from torch import Tensor

from benchmarks.peer import Peer
from training.checkpoint import freeze
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, Task
from training.methods import base, fine_tuning, mib, wilson
from training.models.norm import BatchNorm
from training.models.segmenter import Segmenter, normalise
from training.step_config import StepConfig

CROP = 128
BATCH = 4
KNOWN = ((0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (0, 0, 0, 1, 1), (0, 0, 0, 1, 0))


def build_step(method: MethodConfig, model: ModelConfig) -> StepConfig:
    """Return step 0 of three classes, or the step that adds two, where the method needs one."""
    groups = ((1, 2, 3), (4, 5)) if method.needs_previous else ((1, 2, 3),)
    task = Task(data="d", groups=groups, selection="s", images=8, supervision=method.supervision)
    return StepConfig(
        task=task,
        method=method,
        model=model,
        optimization=Optimization(epochs=10, batch=BATCH, precision="float64"),
        augmentation=Augmentation(crop=CROP),
    )


def randomise_norms(model: torch.nn.Module) -> None:
    """Give the norms statistics and weights that a step of training would leave."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)


def build_method(step: StepConfig) -> base.Method:
    """Return our method in float64."""
    torch.manual_seed(0)
    previous = None
    if len(step.task.groups) > 1:
        previous = Segmenter(step.model, step.task.channels[:-1]).double()
        randomise_norms(previous)
        previous = freeze(previous)
    module = import_module(f"training.methods.{step.method.name.replace('-', '_')}")
    method: base.Method = module.Method(step, previous).double().train()
    if isinstance(method, wilson.Method):
        with torch.no_grad():
            # Scores so far apart that an image has masks of all its classes.
            method.localizer.classifier.weight *= 50
            # Features that differ from the previous model's.
            for parameter in method.model.encoder.parameters():
                parameter *= 1 + 0.1 * torch.rand_like(parameter)
    return method


def build_peer(step: StepConfig, method: base.Method) -> Peer:
    """Return the transcription with the weights of our method."""
    peer = Peer(step, dtype=torch.float64)
    peer.model.load_state_dict(method.model.state_dict())
    if peer.previous:
        peer.previous.load_state_dict(method.previous.state_dict())
    if peer.localizer:
        assert isinstance(method, wilson.Method)
        peer.localizer.load_state_dict(method.localizer.state_dict())
    return peer


def build_batch(step: StepConfig) -> base.Batch:
    """Return random images, blurred so that neighbours resemble each other, and their labels."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(BATCH, 3, 8, 8, generator=generator)
    pixels = torch.nn.functional.interpolate(small, (CROP, CROP), mode="bilinear") * 255
    pixels = pixels.to(torch.uint8)
    masks = None
    if step.task.supervision == "pixel":
        masks = torch.randint(0, sum(step.task.channels), (BATCH, CROP, CROP), generator=generator)
        masks[:, :4] = 255
    labels = torch.tensor(KNOWN).double()
    return base.Batch(pixels, normalise(pixels, torch.float64), masks, labels)


def labels(batch: base.Batch) -> Tensor:
    """Return what the transcription learns from."""
    return batch.image_labels if batch.targets is None else batch.targets


RESNET = ModelConfig(encoder="resnet50", head_channels=16, activation="leaky_relu", eval_pooling=3)
MOBILENET = ModelConfig(encoder="mobilenet_v2", head_channels=16, encoder_norm="frozen")


@pytest.mark.parametrize(
    ("config", "model"),
    [
        pytest.param(wilson.Config(localizer_channels=16), RESNET, marks=pytest.mark.slow),
        (wilson.Config(localizer_channels=16), MOBILENET),
        (wilson.Config(localizer_channels=16, alpha=1), MOBILENET),
        (fine_tuning.Config(loss="bce"), MOBILENET),
        (mib.Config(), MOBILENET),
    ],
    ids=["wilson on a ResNet", "wilson", "wilson with hard targets", "step 0", "mib"],
)
def test_losses_and_gradients_are_ours(config: MethodConfig, model: ModelConfig) -> None:
    step = build_step(config, model)
    method = build_method(step)
    peer = build_peer(step, method)
    batch = build_batch(step)
    ours = method(batch, base.Progress(80, 100, 10))
    theirs = peer.losses(batch.images, labels(batch))
    assert set(ours) == set(theirs)
    for name, loss in ours.items():
        assert loss > 0, name
        torch.testing.assert_close(theirs[name], loss, rtol=1e-6, atol=1e-9)
    torch.stack([*ours.values()]).sum().backward()
    torch.stack([*theirs.values()]).sum().backward()
    gradients = dict(peer.model.named_parameters())
    for name, parameter in method.model.named_parameters():
        other = gradients[name].grad
        assert other is not None, name
        torch.testing.assert_close(other, parameter.grad, rtol=1e-5, atol=1e-7)


def test_iterations_lower_the_loss() -> None:
    step = build_step(
        wilson.Config(localizer_channels=8), ModelConfig(encoder="mobilenet_v2", head_channels=8)
    )
    method = build_method(step)
    peer = build_peer(step, method)
    batch = build_batch(step)
    losses = [peer.iterate(batch.images, labels(batch)) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_other_methods_have_no_transcription() -> None:
    step = build_step(fine_tuning.Config(loss="cross_entropy"), ModelConfig(encoder="resnet50"))
    peer = Peer(step)
    with pytest.raises(ValueError, match="no transcription of fine-tuning"):
        peer.losses(torch.zeros(1), torch.zeros(1))
