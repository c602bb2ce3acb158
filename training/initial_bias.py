"""Compute the bias that a classifier of sigmoids starts with."""

import torch
from torch import Tensor

from training.binary_method import BinaryMethodConfig
from training.step_config import StepConfig


def initial_bias(step: StepConfig) -> Tensor | None:
    """Return log(p / (1 - p)) for each channel of the step's own classifier, float32 [channels].

    p is a pixel share of the task, or the method's `initial_probability` for classes and one minus
    that for background. Return None where the method gives no p and the bias stays random.
    """
    method = step.method
    if not isinstance(method, BinaryMethodConfig) or method.initial_probability is None:
        return None
    channels = step.task.channels[-1]
    if method.initial_probability == "shares":
        assert step.task.pixel_shares is not None
        probabilities = torch.tensor(step.task.pixel_shares, dtype=torch.float64)
    else:
        probabilities = torch.full((channels,), method.initial_probability, dtype=torch.float64)
        if len(step.task.groups) == 1 and step.task.background == "class":
            probabilities[0] = 1 - method.initial_probability
    return torch.logit(probabilities).float()
