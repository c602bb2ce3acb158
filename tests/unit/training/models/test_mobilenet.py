"""MobileNetV2's activation has the values and gradients of torch's, and no copy of its input."""

import torch

from training.models.mobilenet import ReLU6

EDGES = torch.tensor([-1.0, 0.0, 0.5, 6.0, 7.0])


def test_values_and_gradients_are_those_of_torch() -> None:
    gradients = []
    for activation in (ReLU6(), torch.nn.ReLU6()):
        leaf = EDGES.clone().requires_grad_()
        output = activation(leaf * 1)
        assert output.tolist() == [0.0, 0.0, 0.5, 6.0, 6.0]
        output.backward(torch.arange(1.0, 6.0))
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_nothing_is_kept_but_the_output() -> None:
    kept: list[int] = []

    def keep(saved: torch.Tensor) -> torch.Tensor:
        kept.append(saved.data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        values = EDGES.clone().requires_grad_() + 1
        output = ReLU6()(values)
    assert kept == [output.data_ptr()] == [values.data_ptr()]
