"""Test scores against a slow computation on label maps and against cases worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.confusions import count_split
from training.metrics import (
    Convention,
    Groups,
    Scores,
    confusion_counts,
    mib,
    plop,
    plop_ade,
    score,
    wilson,
)

GROUPS: Groups = ((3, 1), (4,), (2, 6))
CONVENTIONS = [
    Convention(
        name="any", future=future, images=images, background_in_old=False, background_in_all=True
    )
    for future in ("background", "ignore")
    for images in ("all", "with_learned_class")
]
CONVENTIONS_IDS = [f"{c.future}-{c.images}" for c in CONVENTIONS]


def slow_iou(
    truths: list, predictions: list, seen: list[int], convention: Convention
) -> tuple[dict, int, float | None]:
    """Return the same scores by walking over pixels, one at a time."""
    right, truth_only, predicted_only = (dict.fromkeys([0, *seen], 0) for _ in range(3))
    images = pixels = 0
    for truth, predicted in zip(truths, predictions, strict=True):
        if convention.images == "with_learned_class" and not any(
            value in seen for value in truth.flat
        ):
            continue
        images += 1
        for t, p in zip(truth.flat, predicted.flat, strict=True):
            if t == 255:
                continue
            if t != 0 and t not in seen:
                if convention.future == "ignore":
                    continue
                t = 0
            pixels += 1
            if t == p:
                right[t] += 1
            else:
                truth_only[t] += 1
                predicted_only[p] += 1
    iou = {
        c: right[c] / (right[c] + truth_only[c] + predicted_only[c])
        if right[c] + truth_only[c]
        else None
        for c in [0, *seen]
    }
    return iou, images, sum(right.values()) / pixels if pixels else None


@st.composite
def splits(draw) -> tuple[list[np.ndarray], list[np.ndarray], Groups]:
    """Draw a few small images: truths of any class, predictions of classes seen so far."""
    groups = GROUPS[: draw(st.integers(1, len(GROUPS)))]
    seen = [c for group in groups for c in group]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    few = draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 255]), min_size=1, max_size=8))
    shapes = [tuple(rng.integers(1, 5, 2)) for _ in range(draw(st.integers(1, 4)))]
    truths = [rng.choice(few, shape).astype(np.uint8) for shape in shapes]
    predictions = [rng.choice([0, *seen], shape).astype(np.uint8) for shape in shapes]
    return truths, predictions, groups


@given(splits(), st.sampled_from(CONVENTIONS))
def test_scores_equal_a_walk_over_pixels(split, convention) -> None:
    truths, predictions, groups = split
    seen = [c for group in groups for c in group]
    iou, images, accuracy = slow_iou(truths, predictions, seen, convention)
    scores = score(count_split(truths, predictions), groups, convention)
    assert scores.iou == pytest.approx(iou)
    assert list(scores.iou) == [0, *seen]
    assert scores.pixel_accuracy == pytest.approx(accuracy)
    assert scores.images == images

    def mean(classes) -> object:
        values = [iou[c] for c in classes if iou[c] is not None]
        return pytest.approx(np.mean(values)) if values else None

    old = [c for group in groups[:-1] for c in group]
    assert scores.miou_all == mean([0, *seen])
    assert scores.miou_old == mean(old)
    assert scores.miou_old_with_background == (mean([0, *old]) if old else None)
    assert scores.miou_new == mean(groups[-1])
    assert scores.miou_base == mean(groups[0])
    assert scores.miou_base_with_background == mean([0, *groups[0]])
    assert scores.miou_all_without_background == mean(seen)
    assert scores.miou_added == mean([c for group in groups[1:] for c in group])
    assert scores.miou_groups == tuple(mean(group) for group in groups)


@given(splits(), st.sampled_from(CONVENTIONS))
def test_scores_are_json_without_nan(split, convention) -> None:
    scores = score(count_split(*split[:2]), split[2], convention)
    text = json.dumps(scores.model_dump(), allow_nan=False)
    assert Scores.model_validate_json(text) == scores


def test_counts_of_two_maps() -> None:
    truth = np.array([[0, 255, 7], [7, 7, 0]], np.uint8)
    predicted = np.array([[0, 3, 7], [3, 3, 7]], np.uint8)
    counts = [column.tolist() for column in confusion_counts(truth, predicted)]
    assert counts == [[0, 0, 7, 7, 255], [0, 7, 3, 7, 3], [1, 1, 2, 1, 1]]


@pytest.mark.parametrize("predicted", [np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.int64)])
def test_counts_refuse_maps_that_do_not_match(predicted) -> None:
    with pytest.raises(ValueError, match="uint8 and of one shape"):
        confusion_counts(np.zeros((2, 2), np.uint8), predicted)


def test_conventions_of_the_papers_on_one_case() -> None:
    """Classes 1 and 2 are learned, class 3 is not. The second image has only background and 3."""
    truths = [np.array([[0, 1, 2, 255]], np.uint8), np.array([[0, 0, 3, 3]], np.uint8)]
    predictions = [np.array([[0, 1, 1, 1]], np.uint8), np.array([[0, 2, 2, 0]], np.uint8)]
    confusion = count_split(truths, predictions)
    groups = ((1,), (2,))

    # Of background 3 of 5 pixels are right, and of class 2 none is.
    everything = score(confusion, groups, wilson())
    assert everything.images == 2
    assert everything.iou == {0: 3 / 5, 1: 1 / 2, 2: 0.0}
    assert everything.pixel_accuracy == 4 / 7

    for convention in (mib(), plop()):  # the second image has no learned class
        kept = score(confusion, groups, convention)
        assert kept.images == 1
        assert kept.iou == {0: 1.0, 1: 1 / 2, 2: 0.0}

    ignoring = CONVENTIONS[CONVENTIONS_IDS.index("ignore-all")]
    assert score(confusion, groups, ignoring).iou == {0: 2 / 3, 1: 1 / 2, 2: 0.0}


def test_plop_counts_void_as_background_on_ade() -> None:
    truth = np.array([[0, 255, 255, 1]], np.uint8)
    predicted = np.array([[0, 0, 1, 1]], np.uint8)
    confusion = count_split([truth], [predicted])
    assert score(confusion, ((1,),), plop()).iou == {0: 1.0, 1: 1.0}
    assert score(confusion, ((1,),), plop_ade()).iou == {0: 2 / 3, 1: 1 / 2}
    assert "void pixels count as background" in plop_ade().words
    assert "void pixels are left out" in plop().words


def test_presets_print_the_means_of_their_papers() -> None:
    flags = {c.name: (c.background_in_old, c.background_in_all) for c in (wilson(), mib(), plop())}
    assert flags == {"wilson": (False, True), "mib": (False, False), "plop": (True, True)}
    assert "count as background" in wilson().words
    assert "are left out; “old” is without background, “all” is without background" in mib().words


def test_a_prediction_outside_the_groups_is_refused() -> None:
    confusion = count_split([np.zeros((2, 2), np.uint8)], [np.full((2, 2), 6, np.uint8)])
    with pytest.raises(ValueError, match="class 6, which is not among the classes learned so far"):
        score(confusion, ((1, 2),), wilson())
