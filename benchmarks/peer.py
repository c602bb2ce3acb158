"""Train as the published code does: the yardstick that the benchmarks compare this code with.

WILSON's weak step, its step 0 and MiB are written out from their papers in plain eager torch, as
the public loops have them: the previous model runs unfolded in each iteration, the localizer runs
twice, PAMR is made of convolutions, the optimizer is torch's default, and the host reads the loss
after every iteration. Maps are not channels_last. The losses equal this code's on the same weights
and images (tests/unit/benchmarks/test_peer.py). Mixed precision is PyTorch's autocast.

Where the published code uses in-place ABN, the norms here are torch's: same values, more memory.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from benchmarks import peer_losses, peer_networks
from training.methods import fine_tuning, mib, wilson
from training.step_config import StepConfig


class Peer:
    """The networks and the optimizer of one step's training.

    Args:
        step: Its method is `fine-tuning` with the loss `bce`, `mib` or `wilson`, each with the
            settings of its paper. The encoder is a ResNet or MobileNetV2.
        device: Where it trains.
        dtype: Of the weights and images.
    """

    def __init__(
        self,
        step: StepConfig,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.step = step
        self.device = device or torch.device("cpu")
        placed: dict[str, Any] = {"device": self.device, "dtype": dtype}
        channels = step.task.channels
        self.model = peer_networks.Segmenter(step.model, channels).to(**placed).train()
        self.previous = None
        if len(channels) > 1:
            self.previous = peer_networks.Segmenter(step.model, channels[:-1]).to(**placed)
            self.previous.eval().requires_grad_(False)
        self.localizer = None
        if isinstance(step.method, wilson.Config):
            self.localizer = peer_networks.localizer(
                self.model.encoder.channels,
                step.method.localizer_channels,
                sum(channels),
                peer_networks.activation(step.model),
            ).to(**placed)
        if step.model.encoder_norm == "frozen":
            _freeze_norms(self.model.encoder.modules())
        self.optimizer = SGD(
            self.parameter_groups(),
            momentum=step.optimization.momentum,
            weight_decay=step.optimization.weight_decay,
            nesterov=True,
        )
        self.autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=step.optimization.precision == "bfloat16"
        )

    def parameter_groups(self) -> list[dict]:
        """Return the optimizer's groups with their learning rates."""
        rates = self.step.optimization
        head = [*self.model.head.parameters(), *self.model.classifiers.parameters()]
        groups: list[dict] = [
            {"params": [*self.model.encoder.parameters()], "lr": rates.encoder_lr},
            {"params": head, "lr": rates.head_lr},
        ]
        if isinstance(self.step.method, wilson.Config) and self.localizer is not None:
            localizer = [*self.localizer.parameters()]
            groups.append({"params": localizer, "lr": self.step.method.localizer_lr})
        return groups

    def iterate(self, images: Tensor, labels: Tensor) -> float:
        """Train one iteration and return the loss.

        Args:
            images: [B, 3, H, W], normalised.
            labels: Masks, int64 [B, H, W], or for WILSON image labels, [B, classes].
        """
        self.optimizer.zero_grad()
        with self.autocast:
            losses = self.losses(images, labels)
            loss = torch.stack([*losses.values()]).sum()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses by the names that this code's methods give them."""
        match self.step.method:
            case wilson.Config() as method:
                return self.wilson(images, labels, method)
            case mib.Config() as method:
                return self.mib(images, labels, method)
            case fine_tuning.Config(loss="bce"):
                _, logits = self.model(images)
                return {"segmentation": peer_losses.one_hot_bce(_upsample(logits, labels), labels)}
            case method:
                raise ValueError(f"there is no transcription of {method.name}")

    def mib(self, images: Tensor, masks: Tensor, method: mib.Config) -> dict[str, Tensor]:
        """Return MiB's losses, at image resolution."""
        with torch.no_grad():
            _, before = self.old_outputs(images)
            before = _upsample(before, masks)
        _, logits = self.model(images)
        logits = _upsample(logits, masks)
        kept = peer_losses.unbiased_distillation(logits, before)
        return {
            "segmentation": peer_losses.unbiased_cross_entropy(logits, masks, before.shape[1]),
            "distillation": method.distillation_weight * kept,
        }

    def wilson(self, images: Tensor, labels: Tensor, method: wilson.Config) -> dict[str, Tensor]:
        """Return WILSON's losses after its warm-up, at the encoder's stride."""
        localizer = self.localizer
        assert localizer is not None
        with torch.no_grad():
            features_before, before = self.old_outputs(images)
        features, logits = self.model(images)
        with torch.no_grad():
            localizer.eval()
            target_scores = localizer(features)
            localizer.train()
            masks = peer_losses.confident_masks(images, target_scores, labels)
            target, counts = peer_losses.pseudo_supervision(
                target_scores, before, labels, method.alpha
            )
        scores = localizer(features)
        return {
            "classification": peer_losses.classification(scores, labels, before.shape[1]),
            "prior": peer_losses.prior(scores, before),
            "encoder": F.mse_loss(features, features_before),
            "self_supervision": peer_losses.self_supervision(scores, masks, labels),
            "segmentation": peer_losses.segmentation(logits, target, counts),
        }

    def old_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the previous model's features and logits."""
        assert self.previous is not None
        return self.previous(images)


def _freeze_norms(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _upsample(logits: Tensor, masks: Tensor) -> Tensor:
    return F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
