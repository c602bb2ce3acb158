"""Figures that compare, from plain numbers: over incremental steps, along a numeric axis, among the values of another.

Means over seeds carry a band (lines) or a whisker (dots) of one standard deviation to each side. What a paper reports stands
beside as a hollow mark.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.report.figures import STYLE, legend, look, side_by_side
from orchestrator.report.table import Measured, Value, fraction

GAP = 0.8  # between values of a categorical axis, of the height of a bar
STYLES = ("-", "--", "-.", ":")  # of lines beyond those that colours and marks tell apart


class Series(NamedTuple):
    """What was measured at some places of an axis: values of ours, fractions, and the paper's where it has any."""

    ours: Sequence[Value]
    paper: Sequence[float | None]


def along(
    axis_name: str, places: Sequence[float], shown: Mapping[str, Mapping[str, Series]]
) -> Figure:
    """Lines along a numeric axis, with bands: panel (old, new, all) -> series -> its values at `places`, None for none."""
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(shown), 3.0, 3.0, sharey=False)
        for axis, (title, lines) in zip(axes, shown.items(), strict=True):
            for number, (name, series) in enumerate(lines.items()):
                _line(axis, places, series.ours, number, name)
                theirs = _heights(series.paper)
                if not np.isnan(theirs).all():
                    hollow = {
                        **look(number),
                        "linestyle": ":",
                        "markerfacecolor": "none",
                        "linewidth": 1.2,
                    }
                    axis.plot(places, theirs, **hollow, label=f"{name}, paper".lstrip(", "))
            axis.set(title=title, xlabel=axis_name)
            if len(places) <= 8:
                axis.set_xticks(places, [f"{place:g}" for place in places])
        axes[0].set_ylabel("mIoU, per cent")
        legend(figure, axes[0])
    return figure


def among(values: Sequence[str], shown: Mapping[str, Mapping[str, Series]]) -> Figure:
    """Dots with whiskers by the values of a categorical axis: panel -> series -> its values, None for none."""
    rows, middles, end = _rows(
        len(values), [series for lines in shown.values() for series in lines.items()]
    )
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(shown), 3.0, 1.1 + 0.19 * end)
        for axis, (title, lines) in zip(axes, shown.items(), strict=True):
            for number, (name, series) in enumerate(lines.items()):
                y = np.array([rows.get((index, name), np.nan) for index in range(len(values))])
                there = ~np.isnan(y)
                y, mean, deviation = (
                    y[there],
                    _heights(series.ours)[there],
                    _deviations(series.ours)[there],
                )
                style = look(number)
                axis.barh(y, mean, height=0.85, color=style["color"], alpha=0.3)
                axis.errorbar(
                    mean,
                    y,
                    xerr=deviation,
                    **{**style, "linestyle": "none", "capsize": 3, "label": name},
                )
                theirs = _heights(series.paper)[there]
                if not np.isnan(theirs).all():
                    hollow = {
                        "marker": "|",
                        "markersize": 15,
                        "markeredgewidth": 2,
                        "linestyle": "none",
                    }
                    axis.plot(
                        theirs,
                        y,
                        color=style["color"],
                        **hollow,
                        label=f"{name}, paper".lstrip(", "),
                    )
            axis.grid(visible=False, axis="y")
            axis.set_yticks(middles, values)
            axis.tick_params(axis="y", length=0)
            axis.set(
                title=title,
                xlim=(0, 100),
                ylim=(end - 0.5, -0.5 - GAP / 2),
                xlabel="mIoU, per cent",
            )
        legend(figure, axes[0])
    return figure


def _rows(
    count: int, lines: Sequence[tuple[str, Series]]
) -> tuple[dict[tuple[int, str], float], list[float], float]:
    """Where the series stand at each value, the middle of each value, and the end: series that are not there take no room."""
    places, middles, start = {}, [], 0.0
    for index in range(count):
        names = list(
            dict.fromkeys(
                n
                for n, series in lines
                if (series.ours[index], series.paper[index]) != (None, None)
            )
        )
        places |= {(index, name): start + offset for offset, name in enumerate(names)}
        middles.append(start + max(len(names) - 1, 0) / 2)
        start += max(len(names), 1) + GAP
    return places, middles, start - GAP / 2


def over_steps(shown: Mapping[str, Mapping[str, Sequence[Value]]]) -> Figure:
    """Lines over incremental steps, with bands: panel -> chain or cell -> its value after each step, None for none."""
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(shown), 3.0, 2.9)
        for axis, (title, cells) in zip(axes, shown.items(), strict=True):
            for number, (name, values) in enumerate(cells.items()):
                _line(axis, range(len(values)), values, number, name)
            steps = max(map(len, cells.values()))
            axis.set(title=title, xlabel="step", ylim=(0, 100), xlim=(-0.15, steps - 0.85))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("mIoU, per cent")
        legend(figure, axes[0])
    return figure


def _line(
    axis: Axes, places: Sequence[float], values: Sequence[Value], number: int, name: str
) -> None:
    """A line through the values that there are, and the band of their deviations."""
    mean, deviation, style = _heights(values), np.nan_to_num(_deviations(values)), look(number)
    there = ~np.isnan(mean)
    x = np.asarray(places, float)[there]
    axis.plot(
        x,
        mean[there],
        **style,
        linestyle=STYLES[number // 8 % len(STYLES)],
        label=name,
        clip_on=False,
    )
    if deviation.any():
        low, high = (mean - deviation)[there], (mean + deviation)[there]
        axis.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        axis.plot(x, low, x, high, color=style["color"], alpha=0.45, linewidth=0.6)


def _heights(values: Sequence[Value]) -> np.ndarray:
    return np.array(
        [np.nan if (each := fraction(value)) is None else 100 * each for value in values], float
    )


def _deviations(values: Sequence[Value]) -> np.ndarray:
    return np.array(
        [100 * value.deviation if isinstance(value, Measured) else np.nan for value in values],
        float,
    )
