"""Class groups are read as they are meant, or asked back."""

import pytest

from training.config import InputError
from training.named_groups import named_groups

CLASSES = ("cat", "chair", "cow", "dog", "hot dog", "traffic light", "hot", "tv")
TWO = (("cat", "chair"), ("cow", "dog"))


@pytest.mark.parametrize(
    "words",
    [
        ["cat,chair", "cow,dog"],
        ["cat,", "chair", "cow,", "dog"],
        ["cat", ",chair", "cow", ",dog"],
        ["cat", ",", "chair", "cow", ",", "dog"],
        ["cat, chair cow, dog"],
        ["cat, chair", "cow , dog,"],
        ["cat,chair cow,dog"],
        [" cat,chair  cow,dog "],
        ["cat,,chair", "cow,dog"],
    ],
)
def test_blanks_after_commas_do_not_divide_a_group(words: list[str]):
    assert named_groups(words, CLASSES) == TWO


def test_names_may_hold_blanks():
    assert named_groups(["traffic light,cat", "tv"], CLASSES) == (("traffic light", "cat"), ("tv",))
    assert named_groups(["cat, traffic light tv, cow"], CLASSES) == (
        ("cat", "traffic light"),
        ("tv", "cow"),
    )
    assert named_groups(["hot dog", "tv"], CLASSES) == (("hot dog",), ("tv",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cat,chair,", "cow,dog"], r"blanks after some commas .* none after others"),
        (["cat,", "chair", "cow,dog"], "as in cat,chair cow,dog"),
        (["cat chair", "cow dog"], "'cat chair' in --groups is one word of several and has"),
        (["tv hot dog"], "'tv hot dog' in --groups can mean the classes tv,hot,dog or tv,hot dog"),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_back(words: list[str], message: str):
    with pytest.raises(InputError, match=message):
        named_groups(words, CLASSES)


def test_a_name_that_there_is_not_stays_as_it_was_written():
    assert named_groups(["kat,chair cow"], CLASSES) == (("kat", "chair"), ("cow",))
    assert named_groups(["kat dgo"], CLASSES) == (("kat dgo",),)
