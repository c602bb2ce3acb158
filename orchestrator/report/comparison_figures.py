"""Draw figures that compare variants: over steps, along a numeric axis, among named values.

Means over seeds carry a band (lines) or a whisker (bars) of one standard deviation to each side.
Numbers of a paper stand beside them as hollow marks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.report.figure_style import STYLE, add_legend, series_style, side_by_side
from orchestrator.report.table import Measured, Value, fraction

GAP = 0.8  # between values of a categorical axis, in heights of a bar
# Line styles for series beyond those that colours and marks distinguish.
LINES = ("-", "--", "-.", ":")
# A numeric axis with more values has no tick for each of them.
MANY = 8


class Series(NamedTuple):
    """What was measured at the values of an axis, as fractions. None stands for no measurement."""

    ours: Sequence[Value]
    paper: Sequence[float | None]


Panels = Mapping[str, Mapping[str, Series]]  # series by name, by the title of their panel


def along(axis_name: str, values: Sequence[float], panels: Panels) -> Figure:
    """Draw lines along a numeric axis, with bands of the deviations.

    Args:
        axis_name: What varies.
        values: The values of the axis.
        panels: The series of each panel. Each has one measurement per value of the axis.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(panels), 3.0, 3.0, sharey=False)
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for number, (name, series) in enumerate(lines.items()):
                _draw_line(axis, values, series.ours, number, name)
                _draw_paper_line(axis, values, series.paper, number, name)
            axis.set(title=title, xlabel=axis_name)
            if len(values) <= MANY:
                axis.set_xticks(values, [f"{value:g}" for value in values])
        axes[0].set_ylabel("mIoU, per cent")
        add_legend(figure, axes[0])
    return figure


def among(values: Sequence[str], panels: Panels) -> Figure:
    """Draw bars with whiskers for the values of a categorical axis.

    Args:
        values: The values of the axis, as text.
        panels: The series of each panel. Each has one measurement per value of the axis.
    """
    series = [each for lines in panels.values() for each in lines.items()]
    positions, middles, end = _place_bars(len(values), series)
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(panels), 3.0, 1.1 + 0.19 * end)
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for number, (name, each) in enumerate(lines.items()):
                y = [positions.get((index, name), np.nan) for index in range(len(values))]
                _draw_bars(axis, np.array(y), each, number, name)
            axis.grid(visible=False, axis="y")
            axis.set_yticks(middles, values)
            axis.tick_params(axis="y", length=0)
            axis.set(
                title=title,
                xlim=(0, 100),
                ylim=(end - 0.5, -0.5 - GAP / 2),
                xlabel="mIoU, per cent",
            )
        add_legend(figure, axes[0])
    return figure


def over_steps(panels: Mapping[str, Mapping[str, Sequence[Value]]]) -> Figure:
    """Draw lines over incremental steps, with bands of the deviations.

    Args:
        panels: By the title of the panel and the name of the line, the value after each step.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(panels), 3.0, 2.9)
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for number, (name, values) in enumerate(lines.items()):
                _draw_line(axis, range(len(values)), values, number, name)
            steps = max(map(len, lines.values()))
            axis.set(title=title, xlabel="step", ylim=(0, 100), xlim=(-0.15, steps - 0.85))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("mIoU, per cent")
        add_legend(figure, axes[0])
    return figure


def _place_bars(
    count: int, series: Sequence[tuple[str, Series]]
) -> tuple[dict[tuple[int, str], float], list[float], float]:
    """Place the bars of a categorical axis. A series without a measurement takes no room.

    Args:
        count: Number of values of the axis.
        series: The series of all panels with their names.

    Returns:
        The position of each bar by index of the value and name of the series; the middle of each
        value; the end of the axis.
    """
    positions: dict[tuple[int, str], float] = {}
    middles = []
    start = 0.0
    for index in range(count):
        measured = [
            name for name, each in series if (each.ours[index], each.paper[index]) != (None, None)
        ]
        names = list(dict.fromkeys(measured))
        for offset, name in enumerate(names):
            positions[index, name] = start + offset
        middles.append(start + max(len(names) - 1, 0) / 2)
        start += max(len(names), 1) + GAP
    return positions, middles, start - GAP / 2


def _draw_line(
    axis: Axes, positions: Sequence[float], values: Sequence[Value], number: int, name: str
) -> None:
    """Draw a line through the values that exist and the band of their deviations."""
    mean = _means(values)
    deviation = np.nan_to_num(_deviations(values))
    style = series_style(number)
    known = ~np.isnan(mean)
    x = np.asarray(positions, float)[known]
    line = LINES[number // 8 % len(LINES)]
    axis.plot(x, mean[known], **style, linestyle=line, label=name, clip_on=False)
    if deviation.any():
        low = (mean - deviation)[known]
        high = (mean + deviation)[known]
        axis.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        axis.plot(x, low, x, high, color=style["color"], alpha=0.45, linewidth=0.6)


def _draw_paper_line(
    axis: Axes, positions: Sequence[float], values: Sequence[float | None], number: int, name: str
) -> None:
    """Draw a paper's numbers as a dotted line with hollow marks, if there are any."""
    numbers = _means(values)
    if np.isnan(numbers).all():
        return
    hollow = {"linestyle": ":", "markerfacecolor": "none", "linewidth": 1.2}
    axis.plot(positions, numbers, **series_style(number) | hollow, label=_paper_label(name))


def _draw_bars(axis: Axes, y: np.ndarray, series: Series, number: int, name: str) -> None:
    """Draw the bars of one series at the positions that are not NaN, and the paper's numbers."""
    placed = ~np.isnan(y)
    y = y[placed]
    mean = _means(series.ours)[placed]
    deviation = _deviations(series.ours)[placed]
    style = series_style(number)
    axis.barh(y, mean, height=0.85, color=style["color"], alpha=0.3)
    whisker: dict[str, Any] = style | {"linestyle": "none", "capsize": 3, "label": name}
    axis.errorbar(mean, y, xerr=deviation, **whisker)
    paper = _means(series.paper)[placed]
    if not np.isnan(paper).all():
        mark: dict[str, Any] = {
            "marker": "|",
            "markersize": 15,
            "markeredgewidth": 2,
            "linestyle": "none",
        }
        axis.plot(paper, y, color=style["color"], **mark, label=_paper_label(name))


def _paper_label(name: str) -> str:
    return f"{name}, paper".lstrip(", ")


def _means(values: Sequence[Value]) -> np.ndarray:
    """Return means in per cent, NaN where there is none."""
    means = [fraction(value) for value in values]
    return np.array([np.nan if mean is None else 100 * mean for mean in means], float)


def _deviations(values: Sequence[Value]) -> np.ndarray:
    """Return standard deviations in per cent, NaN where there is none."""
    deviations = [value.deviation if isinstance(value, Measured) else np.nan for value in values]
    return 100 * np.array(deviations, float)
