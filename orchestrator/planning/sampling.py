"""Draw the samples of a campaign from Ray Tune's search spaces, by a seed alone."""

from collections.abc import Mapping
from typing import Any

from orchestrator.cluster.search_spaces import check_space, draw
from orchestrator.store.canonical import digest
from training.config import InputError

# Draws in a row that may repeat earlier samples before a space counts as exhausted.
MOST_REPEATS = 1000


def draw_samples(spaces: Mapping[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """Return different samples, each a value by field.

    The first samples do not depend on `count`, and a field's values not on the other fields. So a
    campaign that asks for more keeps the chains that it has.

    Args:
        spaces: Search spaces by dotted field.
        count: How many samples.
        seed: Of all draws.

    Raises:
        InputError: The spaces do not hold so many samples, or a space cannot be drawn from.
    """
    for field, space in spaces.items():
        check_space(field, space)
    found: list[dict[str, Any]] = []
    number = repeats = 0
    while len(found) < count:
        sample = {
            field: draw(space, draw_seed(seed, field, number)) for field, space in spaces.items()
        }
        number += 1
        if sample not in found:
            found.append(sample)
            repeats = 0
            continue
        repeats += 1
        if repeats == MOST_REPEATS:
            raise InputError(
                f"{', '.join(spaces)} hold no more than {len(found)} different samples, and "
                f"{count} are asked for: ask for {len(found)}, or widen a space"
            )
    return found


def draw_seed(seed: int, *place: str | int) -> int:
    """Return the seed (32 bits) of one draw of those that follow from a campaign's seed."""
    return int(digest([seed, *place])[:8], 16)
