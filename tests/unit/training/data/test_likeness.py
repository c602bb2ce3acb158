"""Copies of a photo are alike, other photos are not, and turned masks miss the edges."""

import cv2
import numpy as np
import pytest

from training.data.likeness import TURNS, alike, edge_fit, fingerprint

RNG = np.random.default_rng(0)


def photo() -> np.ndarray:
    return cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (160, 120))


def test_copies_are_found_and_other_photos_are_not():
    photos = [photo() for _ in range(30)]
    copy = cv2.resize(photos[7], (80, 60), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", photos[11], [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    saved = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    train = np.stack([fingerprint(each) for each in photos])
    val = np.stack([fingerprint(each) for each in (photo(), copy, saved, photo())])
    found = [*alike(val, train)]
    assert [pair[:2] for pair in found] == [(1, 7), (2, 11)]
    assert all(0.985 <= pair.correlation <= 1.001 for pair in found)


def test_photos_without_contrast_resemble_nothing():
    flat = np.full((20, 20, 3), 200, np.uint8)
    prints = np.stack([fingerprint(flat), fingerprint(flat + 1)])
    assert not [*alike(prints, prints)]
    assert not [*alike(prints, prints[:0])]


@pytest.mark.parametrize("turn", ["", *TURNS])
def test_a_mask_lies_best_on_the_edges_as_it_was_drawn(turn: str):
    labels = np.zeros((90, 120), np.uint8)
    labels[10:40, 15:50] = 3
    pixels = np.where(labels[..., None] > 0, 180, 60) + RNG.integers(0, 20, (90, 120, 3))
    turned = cv2.flip(labels, TURNS[turn]) if turn else labels
    fits = edge_fit(pixels.astype(np.uint8), turned)
    assert fits is not None
    assert max(fits, key=fits.__getitem__) == turn
    assert fits[turn] > 3


def test_without_a_border_or_an_edge_nothing_is_known():
    empty = np.zeros((8, 8), np.uint8)
    half = empty.copy()
    half[:, 4:] = 1
    assert edge_fit(RNG.integers(0, 256, (8, 8, 3), np.uint8), empty) is None
    assert edge_fit(np.zeros((8, 8, 3), np.uint8), half) is None
