import numpy as np
import pytest

from training.data.digits import SIDE, Digits, saliency
from training.data.transforms import decode_image, decode_mask


@pytest.fixture(scope="module")
def source() -> Digits:
    return Digits(seed=3, train=80, val=40)


def test_scenes_are_small_rgb_pictures_with_masks_of_ten_classes(source: Digits):
    seen = set()
    for id in source.ids("train"):
        sample = source.read("train", id)
        assert decode_image(sample.image).shape == (SIDE, SIDE, 3)
        mask = decode_mask(sample.mask)
        assert mask.shape == (SIDE, SIDE)
        assert 1 <= len(set(np.unique(mask)) - {0}) <= 3
        seen |= set(np.unique(mask).tolist())
    assert seen == set(range(11))
    assert source.classes == tuple("0123456789")


def test_every_class_in_a_mask_covers_enough_to_be_learned(source: Digits):
    for id in source.ids("val"):
        pixels = np.bincount(decode_mask(source.read("val", id).mask).ravel())
        assert (pixels[pixels > 0] >= 40).all()


def test_a_scene_follows_from_seed_split_and_number_alone(source: Digits):
    id = source.ids("train")[17]
    again = Digits(seed=3, train=20, val=1).read("train", id)
    assert again == source.read("train", id)
    assert Digits(seed=4, train=20, val=1).read("train", id) != again
    assert source.read("val", "val-00017").image != again.image


def test_train_and_validation_use_different_handwriting(source: Digits):
    train = {stroke.tobytes() for stroke in source.handwriting["train"][0]}
    val = {stroke.tobytes() for stroke in source.handwriting["val"][0]}
    assert not train & val
    assert all(set(class_ids) == set(range(1, 11)) for _, class_ids in source.handwriting.values())


def test_what_is_salient_are_digits_and_most_of_their_strokes(source: Digits):
    salient = digits = both = 0
    for id in source.ids("train"):
        sample = source.read("train", id)
        shown = saliency(decode_image(sample.image)) > 0
        mask = decode_mask(sample.mask) > 0
        salient += shown.sum()
        digits += mask.sum()
        both += (shown & mask).sum()
    assert both > 0.99 * salient
    assert both > 0.5 * digits
