"""A part is retrained by the kind of loss that trained the model."""

import torch

from tests.support.methods import START, build_batch, build_method, build_step
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import retraining
from training.models.segmenter import upsample


def test_the_loss_is_a_softmax_or_a_sigmoid_for_each_channel() -> None:
    for config, loss in (
        (retraining.Config(), cross_entropy),
        (retraining.Config(loss="bce"), binary_cross_entropy),
    ):
        method = build_method(build_step(config))
        batch = build_batch(method.step)
        found = method(batch, START)["segmentation"]
        logits = upsample(method.model(batch.images).logits, (32, 32))
        torch.testing.assert_close(found, loss(logits, batch.masks))


def test_every_class_starts_at_the_probability_and_background_at_the_rest() -> None:
    method = build_method(build_step(retraining.Config(loss="bce", initial_probability=0.01)))
    for number, expected in enumerate(([0.99, 0.01, 0.01, 0.01], [0.01, 0.01])):
        bias = method.model.get_parameter(f"classifiers.{number}.bias")
        torch.testing.assert_close(bias.sigmoid(), torch.tensor(expected).double())


def test_ssuls_classifiers_learn_that_nothing_is_unknown() -> None:
    document = build_step(retraining.Config(loss="bce", initial_probability=0.01))
    model = document.model.model_copy(update={"classifier": "ssul"})
    method = build_method(document.model_copy(update={"model": model}))
    batch = build_batch(document)
    loss = method(batch, START)["segmentation"]
    scores = upsample(method.model.scores(method.model(batch.images).head), (32, 32))
    torch.testing.assert_close(loss, binary_cross_entropy(scores, batch.masks))
    assert scores.shape[1] == 7
    loss.backward()
    gradient = method.model.get_parameter("unknown.scores.bias").grad
    assert gradient is not None
    assert gradient.item() > 0
