"""Draw figures from plain numbers: IoU by class, training curves, confusion, breakdowns, layers.

Each function takes numbers and returns a matplotlib figure. `orchestrator.report.figure_style`
turns it into SVG. Figures that compare variants are in `orchestrator.report.comparison_figures`.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from orchestrator.report.figure_style import (
    COLOURS,
    INK,
    MARKERS,
    STYLE,
    TITLE_WIDTH,
    add_legend,
    name_rows,
    series_style,
    side_by_side,
    text_colour,
)
from training.prediction_breakdown import PredictionBreakdown


class _ShareStyle(NamedTuple):
    """How a share of a prediction breakdown is drawn."""

    name: str
    colour: str


# The style of each share, by field of PredictionBreakdown.
SHARE_STYLES = {
    "right": _ShareStyle("right", "#009e73"),
    "background": _ShareStyle("background", "#9aa3ad"),
    "new": _ShareStyle("a new class", "#d55e00"),
    "other_old": _ShareStyle("another old class", "#0a7bc2"),
}
READABLE = 25  # classes; larger confusion matrices show shades without numbers
Rows = Sequence[Mapping[str, Any]]  # as training logs them


def by_class(
    classes: Sequence[str], chains: Mapping[str, Sequence[tuple[float | None, float | None]]]
) -> Figure:
    """Draw the IoU of each class when it was learned and after the last step.

    A hollow mark is the IoU right after the class was learned, a full mark the IoU after the last
    step. A line joins the two.

    Args:
        classes: Names of the classes.
        chains: The two fractions of each class, by the name of the chain.
    """
    with matplotlib.rc_context(STYLE):
        height = 0.5 + len(classes) * max(0.28, 0.13 * len(chains) + 0.06)
        figure = Figure(figsize=(8.4, height + 0.6), layout="constrained")
        axis = figure.add_subplot()
        offsets = np.linspace(-0.28, 0.28, len(chains)) if len(chains) > 1 else np.zeros(1)
        for number, (name, pairs) in enumerate(chains.items()):
            _draw_pairs(axis, pairs, offsets[number], number, name)
        for y in range(1, len(classes)):
            axis.axhline(y - 0.5, color=INK, alpha=0.12, linewidth=0.6)
        name_rows(axis, list(classes))
        axis.set(xlim=(0, 100), xlabel="IoU, per cent")
        add_legend(figure, axis)
    return figure


def _draw_pairs(
    axis: Axes,
    pairs: Sequence[tuple[float | None, float | None]],
    offset: float,
    number: int,
    name: str,
) -> None:
    """Draw the marks of one chain, a little above or below the middle of each class."""
    known = []
    for y, (first, last) in enumerate(pairs):
        if first is not None and last is not None:
            known.append((y + offset, first, last))
    y, first, last = np.array(known, float).reshape(-1, 3).T
    colour = COLOURS[number % len(COLOURS)]
    axis.hlines(y, 100 * first, 100 * last, color=colour, linewidth=1.6, alpha=0.55)
    marker: dict[str, Any] = {
        "marker": MARKERS[number % len(MARKERS)],
        "color": colour,
        "linestyle": "none",
        "clip_on": False,
    }
    axis.plot(100 * first, y, **marker, markersize=5, markerfacecolor="none")
    axis.plot(100 * last, y, **marker, markersize=5.5, label=name)


def curves(steps: Sequence[Rows]) -> Figure:
    """Draw losses and learning rates over the iterations of all steps, one after the other.

    Args:
        steps: The rows that training logged, step by step.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.3), layout="constrained")
        losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        start = 0
        for index, rows in enumerate(steps):
            if index:
                for axis in (losses, rates):
                    axis.axvline(start, color=INK, alpha=0.5, linewidth=0.8)
            losses.annotate(
                f"step {index}",
                (start, 1),
                (4, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
            )
            start += _iterations(rows)
        _draw_curves(losses, steps, "loss/", "loss")
        _draw_curves(rates, steps, "lr/")
        losses.set_ylabel("loss")
        rates.set(ylabel="learning rate", xlabel="iteration", xlim=(0, max(start, 1)))
    return figure


def _draw_curves(axis: Axes, steps: Sequence[Rows], prefix: str, total: str | None = None) -> None:
    """Draw all values whose names begin with `prefix`, and the value `total` before them."""
    logged: dict[str, None] = {}
    for rows in steps:
        for row in rows:
            logged |= dict.fromkeys(row)
    names = [name for name in logged if name == total]
    names += [name for name in logged if name.startswith(prefix)]
    for number, name in enumerate(names):
        label = "sum of losses" if name == total else name.removeprefix(prefix)
        if name == total:
            style: dict[str, Any] = {"color": INK, "linewidth": 1.8, "alpha": 0.6}
        else:
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "linewidth": 1.3,
                "linestyle": ("-", "--", "-.", ":")[number // 2 % 4],
            }
        axis.plot(*_curve(steps, name), label=label, **style)
    axis.set_yscale("log")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6, borderaxespad=0.2)


def _curve(steps: Sequence[Rows], name: str) -> tuple[list[float], list[float]]:
    """Return iterations and values of one name, broken between steps.

    A value that is absent or zero is missing, because a logarithmic axis has no zero.
    """
    x: list[float] = []
    y: list[float] = []
    start = 0
    for rows in steps:
        for row in rows:
            x.append(start + row["iteration"])
            y.append(row.get(name) or np.nan)
        x.append(np.nan)
        y.append(np.nan)
        start += _iterations(rows)
    return x, y


def _iterations(rows: Rows) -> int:
    return int(rows[-1]["total"]) if rows else 0


def confusion(matrix: np.ndarray, names: Sequence[str], bounds: Sequence[int] = ()) -> Figure:
    """Draw a confusion matrix. Rows are true classes and add up to 100 per cent.

    Args:
        matrix: Counts [1 + C, 1 + C], background first.
        names: Names of background and the classes.
        bounds: Positions before which a class group begins.
    """
    with matplotlib.rc_context(STYLE), matplotlib.rc_context({"axes.grid": False}):
        size = len(matrix)
        side = 0.9 + max(2.2, 0.25 * size)
        figure = Figure(figsize=(side, side), layout="constrained")
        axis = figure.add_subplot()
        totals = matrix.sum(1, keepdims=True)
        shares = np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)
        red, green, blue = to_rgb(COLOURS[0])
        ends = [(red, green, blue, 0.0), (red, green, blue, 1.0)]
        shade = LinearSegmentedColormap.from_list("shade", ends)
        axis.pcolormesh(shares, cmap=shade, vmin=0, vmax=100)
        for bound in bounds:
            axis.axhline(bound, color=INK, linewidth=0.8, alpha=0.5)
            axis.axvline(bound, color=INK, linewidth=0.8, alpha=0.5)
        if size <= READABLE:
            _write_shares(axis, shares)
        axis.set_xticks(np.arange(size) + 0.5, names, rotation=90, fontsize=8)
        axis.set_yticks(np.arange(size) + 0.5, names, fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set(visible=True, alpha=0.5)
        axis.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="truth", aspect="equal")
    return figure


def _write_shares(axis: Axes, shares: np.ndarray) -> None:
    """Write the shares of a confusion matrix into its cells, except those that round to zero."""
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:
            colour = "white" if share > 60 else INK
            axis.text(column + 0.5, row + 0.5, f"{share:.0f}", color=colour, **style)


def breakdowns(chains: Mapping[str, Mapping[str, PredictionBreakdown | None]]) -> Figure:
    """Draw what pixels were predicted as: a bar per class, a panel per chain.

    Args:
        chains: By the name of the chain, the breakdowns by class. None has no bar.
    """
    with matplotlib.rc_context(STYLE):
        bars = max(len(classes) for classes in chains.values())
        same_classes = len({tuple(classes) for classes in chains.values()}) == 1
        figure, axes = side_by_side(len(chains), 2.9, 0.9 + 0.27 * bars, sharey=same_classes)
        for axis, (title, classes) in zip(axes, chains.items(), strict=True):
            left = np.zeros(len(classes))
            for field, style in SHARE_STYLES.items():
                widths = [100 * getattr(each, field) if each else 0.0 for each in classes.values()]
                _draw_share(axis, left, np.array(widths), style)
                left += widths
            name_rows(axis, list(classes))
            axis.set(title=fill(title, TITLE_WIDTH), xlim=(0, 100), xlabel="per cent of pixels")
        add_legend(figure, axes[0])
    return figure


def _draw_share(axis: Axes, left: np.ndarray, widths: np.ndarray, share: _ShareStyle) -> None:
    """Draw one share of all bars, with its number where there is room."""
    rows = range(len(widths))
    axis.barh(rows, widths, left=left, height=0.74, color=share.colour, label=share.name)
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5}
    for y, (x, width) in enumerate(zip(left, widths, strict=True)):
        if width >= 9:
            colour = text_colour(share.colour)
            axis.text(x + width / 2, y, f"{width:.0f}", color=colour, **style)


def by_layer(cuts: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> Figure:
    """Draw lines over the layers of a network.

    Args:
        cuts: Names of the layers.
        lines: By name, a fraction for each layer. None leaves a gap.
    """
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = side_by_side(1, 6.2, 3.4)
        for number, (name, values) in enumerate(lines.items()):
            heights = [np.nan if value is None else 100 * value for value in values]
            style = series_style(number)
            axis.plot(range(len(cuts)), heights, **style, label=name, clip_on=False)
        axis.set_xticks(range(len(cuts)), cuts)
        axis.set(xlabel="up to", ylabel="per cent", ylim=(0, 105))
        add_legend(figure, axis)
    return figure


def by_channel(names: Sequence[str], panels: Mapping[str, Sequence[float]], bound: int) -> Figure:
    """Draw bars of one value per class.

    Args:
        names: Names of the classes.
        panels: By title, the values of all classes.
        bound: Position before which a line separates the classes.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(panels), 3.4, 0.9 + 0.22 * len(names))
        for axis, (title, values) in zip(axes, panels.items(), strict=True):
            axis.barh(range(len(names)), values, height=0.74, color=COLOURS[0])
            axis.axhline(bound - 0.5, color=INK, linewidth=0.8, alpha=0.5)
            axis.axvline(0, color=INK, linewidth=0.8)
            name_rows(axis, list(names))
            axis.set(title=fill(title, TITLE_WIDTH))
    return figure
