"""Read the class groups of a scenario: all classes in order, and the classifiers' channels."""

from collections.abc import Iterable
from typing import Literal, TypeVar

T = TypeVar("T")
# Whether the model has a channel for background, or every labelled pixel shows one of the classes.
Background = Literal["class", "none"]


def flatten_groups(groups: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """Return the classes of all groups as one tuple, in order: ids or names."""
    return tuple(each for group in groups for each in group)


def classifier_channels(
    groups: tuple[tuple[int, ...], ...], background: Background = "class"
) -> tuple[int, ...]:
    """Return the output channels of each group's classifier.

    The first has background, too, if it is a class.
    """
    first, *later = (len(group) for group in groups)
    return (first + (background == "class"), *later)
