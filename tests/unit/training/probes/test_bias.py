"""Bias towards new classes, on numbers made by hand."""

import pytest
import torch

from training.config import ModelConfig
from training.models.segmenter import Segmenter
from training.probes.bias import classifier_weights, correct_logits, logit_gap

# One image of 1 x 4 pixels: background, previous class 1, previous class 2, void.
# Channels: background, previous classes 1 and 2, new classes 3 and 4.
TRUTH = torch.tensor([[[0, 1, 2, 255]]])
LOGITS = torch.tensor(
    [
        [9.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 2.0, 0.0, 5.0, 4.0],
        [0.0, 1.0, 3.0, 2.0, 8.0],
        [7.0, 7.0, 7.0, 7.0, 7.0],
    ]
).T.reshape(1, 5, 1, 4)


def test_the_gap_is_the_mean_over_pixels_of_previous_classes():
    gap = logit_gap([(LOGITS, TRUTH)], previous_channels=3)
    assert gap is not None
    assert gap.pixels == 2
    assert gap.new_minus_previous == pytest.approx(((5 - 2) + (8 - 3)) / 2)
    assert gap.background_minus_previous == pytest.approx(((1 - 2) + (0 - 3)) / 2)


def test_batches_add_up():
    halves = [(LOGITS[..., :2], TRUTH[..., :2]), (LOGITS[..., 2:], TRUTH[..., 2:])]
    assert logit_gap(halves, 3) == logit_gap([(LOGITS, TRUTH)], 3)


def test_correction_lowers_new_classes_by_the_gap_and_nothing_else():
    gap = logit_gap([(LOGITS, TRUTH)], 3)
    assert gap is not None
    after = correct_logits(LOGITS, 3, gap)
    torch.testing.assert_close(after[:, :3], LOGITS[:, :3])
    torch.testing.assert_close(after[:, 3:], LOGITS[:, 3:] - 4)
    # One of two pixels comes back.
    assert after.argmax(1).flatten().tolist()[1:3] == [1, 4]


def test_background_is_lowered_by_its_own_gap_where_it_leads():
    gap = logit_gap([(LOGITS + torch.tensor([10.0, 0, 0, 0, 0])[:, None, None], TRUTH)], 3)
    assert gap is not None
    after = correct_logits(LOGITS, 3, gap, background=True)
    torch.testing.assert_close(after[:, 0], LOGITS[:, 0] - 8)


def test_a_gap_the_other_way_is_left_alone():
    gap = logit_gap([(-LOGITS, TRUTH)], 3)
    assert gap is not None
    assert gap.new_minus_previous < 0
    torch.testing.assert_close(correct_logits(LOGITS, 3, gap), LOGITS)


def test_no_pixel_of_a_previous_class_means_no_gap():
    assert logit_gap([(LOGITS, torch.zeros_like(TRUTH))], 3) is None


def test_a_model_without_new_classes_is_refused():
    with pytest.raises(ValueError, match="without new classes"):
        logit_gap([(LOGITS[:, :3], TRUTH)], 3)


def test_weights_of_each_channel_in_channel_order():
    config = ModelConfig(encoder="tiny", output_stride=4, head_channels=2, eval_pooling=None)
    model = Segmenter(config, (2, 1))
    vector = torch.tensor([3.0, 4.0])[None, :, None, None]
    with torch.no_grad():
        for number, classifier in enumerate(model.classifiers):
            assert isinstance(classifier, torch.nn.Conv2d)
            assert classifier.bias is not None
            classifier.weight.copy_((number + 1) * vector.expand_as(classifier.weight))
            classifier.bias.fill_(number)
    weights = classifier_weights(model)
    assert weights.norms == (5.0, 5.0, 10.0)
    assert weights.biases == (0.0, 0.0, 1.0)
