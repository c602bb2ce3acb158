"""Summarize repeated measurements: mean, standard deviation, confidence interval."""

import math
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95


class Summary(NamedTuple):
    """Repeated measurements of one quantity. A single one has a mean and nothing else."""

    mean: float
    deviation: float | None  # standard deviation, with n - 1
    margin: (
        float | None
    )  # half the 95 % confidence interval of the mean: it reaches from mean - margin to mean + margin


def summarize(values: Iterable[float | None]) -> Summary | None:
    """Mean, standard deviation and confidence interval (Student's t) of the values that exist; None when none does."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    count, mean = len(known), fmean(known)
    if count == 1:
        return Summary(mean, None, None)
    deviation = stdev(known)
    return Summary(mean, deviation, student_t(count - 1) * deviation / math.sqrt(count))


def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t that Student's distribution with `freedom` >= 1 degrees of freedom stays below in size, with that probability."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):  # halvings: more than a float can tell apart
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Probability of -t..t, in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    square, odd = math.cos(angle) ** 2, freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + odd, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
