"""Check that no iteration of any method leaves a tensor on the host or waits for the device.

There is no GPU here. On the device `meta` a tensor has a shape and no values, so whatever would
need a value, or mixes devices, raises (`tests.support.device_loop`).
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.device_loop import META, run_on_meta
from tests.support.encoders import small_model
from tests.support.methods import LATER, START, build_step
from training import methods
from training.config import MethodConfig, ModelConfig
from training.methods import (
    base,
    dft,
    ewc,
    ewf,
    fine_tuning,
    icarl,
    ilt,
    joint,
    lwf,
    lwf_mc,
    mib,
    mib_augm,
    offline,
    offline_layer,
    pi,
    plop,
    retraining,
    rw,
    ssul,
    wilson,
)

CASES: tuple[MethodConfig, ...] = (
    fine_tuning.Config(),
    fine_tuning.Config(loss="bce", importance=True),
    fine_tuning.Config(ignore_background=True),
    joint.Config(),
    joint.Config(loss="bce"),
    lwf.Config(),
    lwf_mc.Config(),
    ilt.Config(),
    ewc.Config(weight=1),
    pi.Config(weight=1),
    rw.Config(weight=1),
    mib.Config(),
    mib.Config(unbiased_cross_entropy=False, background_initialisation=False),
    mib.Config(unbiased_distillation=False),
    plop.Config(),
    plop.Config(pseudo_labels=False),
    icarl.Config(),
    icarl.Config(background="mask"),
    icarl.Config(background="previous"),
    retraining.Config(),
    retraining.Config(part="decoder"),
    wilson.Config(warmup_epochs=1),
    wilson.Config(warmup_epochs=1, alpha=1, background_mix=0.1, affinity=False),
    wilson.Config(warmup_epochs=1, prior="fixed", pooling="attention"),
    wilson.Config(warmup_epochs=1, prior="constant", pooling="gap"),
    wilson.Config(warmup_epochs=1, prior="softmax_ce", pooling="ngwp"),
    wilson.Config(warmup_epochs=1, semantic_prior=1, similarity=((4, 1, 2.0),)),
    offline.Config(classifier_epochs=5),
    offline.Config(classifier_epochs=5, pseudo_labels="single_stage"),
    offline.Config(classifier_epochs=5, pseudo_labels="single_stage", resolution="image"),
    icarl.Config(encoder_distillation=1),
    retraining.Config(loss="bce", initial_probability=0.01),
    fine_tuning.Config(mean_over="all"),
    dft.Config(),
    mib_augm.Config(),
    ssul.Config(),
    ewf.Config(trained_by=mib.Config()),
    offline_layer.Config(),
)
ENCODERS = (
    ModelConfig(encoder="resnet50", activation="leaky_relu", dilated_blocks="all"),
    ModelConfig(encoder="resnet101", output_stride=8, encoder_norm="frozen"),
    ModelConfig(encoder="mobilenet_v2"),
    small_model("swin"),
    small_model("dinov2"),
)
# Before offline's single stage learns from its own masks, and then.
POINTS = (START, base.Progress(20, 100, 10), LATER)


def title(config: MethodConfig) -> str:
    """Return the method's name and the fields that are not at their defaults."""
    fields = config.model_dump(exclude_defaults=True, exclude={"similarity"})
    return " ".join([config.name, *(f"{name}={value}" for name, value in fields.items())])


@pytest.mark.parametrize("config", CASES, ids=title)
def test_an_iteration_stays_on_the_device(config: MethodConfig) -> None:
    for losses in run_on_meta(build_step(config), POINTS):
        assert losses
        assert all(loss.is_meta for loss in losses.values())


@pytest.mark.parametrize("model", ENCODERS, ids=lambda model: model.encoder)
def test_an_iteration_of_each_encoder_stays_on_the_device(model: ModelConfig) -> None:
    document = build_step(wilson.Config(warmup_epochs=0)).model_copy(update={"model": model})
    # Random weights of such networks would take seconds.
    (losses,) = run_on_meta(document, made_on=META)
    assert all(loss.is_meta for loss in losses.values())


def test_every_method_is_among_the_cases() -> None:
    folder = Path(methods.__path__[0])
    files = {path.stem for path in folder.glob("*.py")}
    tested = {config.name.replace("-", "_") for config in CASES}
    assert files - {"__init__", "adopted", "base", "weight_penalty"} == tested


class Reads(fine_tuning.Method):
    """Reads a value on the host."""

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        losses = super().forward(batch, progress)
        return losses | {"more": losses["segmentation"] * losses["segmentation"].item()}


class Selects(fine_tuning.Method):
    """Needs the number of pixels on the host."""

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        return {"loss": self.outputs(batch.images).logits[:, 0][batch.masks[:, ::4, ::4] > 0].sum()}


class Decides(fine_tuning.Method):
    """Branches on a value of the device."""

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        losses = super().forward(batch, progress)
        return losses if losses["segmentation"] > 0 else {"segmentation": self.model.head.norm.bias}


class Forgets(fine_tuning.Method):
    """Leaves a tensor on the host."""

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        weights = torch.ones(batch.image_labels.shape[1]).double()
        return {"loss": (self.outputs(batch.images).logits.mean((0, 2, 3))[1:] * weights).sum()}


class Copies(fine_tuning.Method):
    """Makes a constant anew in each iteration, which waits for the device."""

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        logits = self.outputs(batch.images).logits
        weights = torch.tensor([1.0, 2.0, 3.0], device=logits.device)
        return {"loss": (logits.mean((0, 2, 3))[:3] * weights).sum()}


class Moves(fine_tuning.Method):
    """Moves a tensor of the host to the device in each iteration."""

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        logits = self.outputs(batch.images).logits
        return {"loss": (logits.mean((0, 2, 3))[:3] * torch.ones(3).to(logits.device)).sum()}


class Clips(fine_tuning.Method):
    """Reads the norm of the gradients on the host before each update."""

    def before_update(self, progress: base.Progress) -> None:
        norm = self.model.head.norm.bias.grad
        assert norm is not None
        if norm.norm() > 1:
            norm.zero_()


@pytest.mark.parametrize("kind", [Reads, Selects, Decides, Forgets, Copies, Moves, Clips])
def test_a_wait_or_a_mixed_device_is_found(kind: type[fine_tuning.Method]) -> None:
    def change(method: base.Method) -> base.Method:
        method.__class__ = kind
        return method

    document = build_step(fine_tuning.Config())
    run_on_meta(document)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|device"):
        run_on_meta(document, change=change)


def test_meta_refuses_what_a_gpu_refuses() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.add(torch.ones(3, device=META), torch.ones(3))
