"""Summarize repeated measurements: mean, standard deviation and confidence interval."""

import math
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95
HALVINGS = 60  # more than a float can resolve


class Summary(NamedTuple):
    """Summary statistics of one quantity. A single measurement has only a mean."""

    mean: float
    deviation: float | None  # standard deviation, with n - 1
    margin: float | None  # half the 95 % confidence interval of the mean


def summarize(values: Iterable[float | None]) -> Summary | None:
    """Summarize the values that exist.

    Returns:
        Mean, standard deviation and confidence interval by Student's t, or None when no value
        exists.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    count = len(known)
    mean = fmean(known)
    if count == 1:
        return Summary(mean, None, None)
    deviation = stdev(known)
    return Summary(mean, deviation, student_t(count - 1) * deviation / math.sqrt(count))


def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided critical value of Student's t distribution.

    Args:
        freedom: Degrees of freedom, at least 1.
        confidence: Probability that a value lies between minus and plus the result.
    """
    low, high = 0.0, 1.0
    while _probability_within(high, freedom) < confidence:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _probability_within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return high


def _probability_within(t: float, freedom: int) -> float:
    """Return the probability of -t..t in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + odd, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
