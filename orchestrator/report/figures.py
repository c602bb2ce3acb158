"""Figures from plain numbers: IoU by class, training curves, confusion, flow. Those that compare are in `comparisons`.

Each function takes numbers and returns a matplotlib figure; `svg` or `png` makes bytes of it. No state of matplotlib is
shared: figures are built as objects, never through pyplot. Series differ in colour (after Okabe and Ito, whose colours the
colour-blind tell apart), in marker and in place, so that print in grey still reads. Ink is one colour, which a page may
replace by its own text colour, and grounds are transparent, so one figure serves light and dark.
"""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from training.prediction_breakdown import PredictionBreakdown

INK = "#3b4350"
COLOURS = ("#0a7bc2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
MARKERS = "osD^vP*X"
FLOW_COLOURS = {
    "right": "#009e73",
    "background": "#9aa3ad",
    "new": "#d55e00",
    "other_old": "#0a7bc2",
}
FLOW_NAMES = {
    "right": "right",
    "background": "background",
    "new": "a new class",
    "other_old": "another old class",
}
WORDS = 26  # characters of a heading above an axis, before it is broken
READABLE = 25  # classes; larger confusion matrices show shades without numbers
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def by_class(
    classes: Sequence[str], chains: Mapping[str, Sequence[tuple[float | None, float | None]]]
) -> Figure:
    """IoU of each class: a hollow mark right after the class was learned, a full one after the last step, a line between.

    `chains`: by name, per class the two fractions.
    """
    with matplotlib.rc_context(STYLE):
        height = 0.5 + len(classes) * max(0.28, 0.13 * len(chains) + 0.06)
        figure = Figure(figsize=(8.4, height + 0.6), layout="constrained")
        axis = figure.add_subplot()
        spread = np.linspace(-0.28, 0.28, len(chains)) if len(chains) > 1 else np.zeros(1)
        for number, (name, pairs) in enumerate(chains.items()):
            known = [
                (y + spread[number], a, b)
                for y, (a, b) in enumerate(pairs)
                if a is not None and b is not None
            ]
            y, first, last = np.array(known, float).reshape(-1, 3).T
            colour = COLOURS[number % len(COLOURS)]
            axis.hlines(y, 100 * first, 100 * last, color=colour, linewidth=1.6, alpha=0.55)
            marker = {
                "marker": MARKERS[number % len(MARKERS)],
                "color": colour,
                "linestyle": "none",
                "clip_on": False,
            }
            axis.plot(100 * first, y, **marker, markersize=5, markerfacecolor="none")
            axis.plot(100 * last, y, **marker, markersize=5.5, label=name)
        for y in range(1, len(classes)):
            axis.axhline(y - 0.5, color=INK, alpha=0.12, linewidth=0.6)
        axis.grid(visible=False, axis="y")
        axis.set(xlim=(0, 100), ylim=(len(classes) - 0.5, -0.5), xlabel="IoU, per cent")
        axis.set_yticks(range(len(classes)), classes)
        axis.tick_params(axis="y", length=0)
        legend(figure, axis)
    return figure


def curves(steps: Sequence[Sequence[Mapping[str, Any]]]) -> Figure:
    """Losses and learning rates of a chain's steps, one after the other along the iterations; rows as training logs them."""
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
            start += int(rows[-1]["total"]) if rows else 0
        for axis, prefix, total in ((losses, "loss/", ("loss",)), (rates, "lr/", ())):
            names = dict.fromkeys(
                name
                for rows in steps
                for row in rows
                for name in row
                if name.startswith(prefix) or name in total
            )
            for number, name in enumerate(sorted(names, key=lambda name: name not in total)):
                _draw_curve(
                    axis,
                    steps,
                    name,
                    number,
                    name.removeprefix(prefix) if name not in total else "sum of losses",
                )
            axis.set_yscale("log")
            axis.legend(
                loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.6, borderaxespad=0.2
            )
        losses.set_ylabel("loss")
        rates.set(ylabel="learning rate", xlabel="iteration", xlim=(0, max(start, 1)))
    return figure


def _draw_curve(
    axis: Axes, steps: Sequence[Sequence[Mapping[str, Any]]], name: str, number: int, label: str
) -> None:
    """One named value over all steps, broken between steps and where it is zero, absent or not logged."""
    x: list[float] = []
    y: list[float] = []
    start = 0
    for rows in steps:
        for row in rows:
            x.append(start + row["iteration"])
            y.append(row.get(name) or np.nan)  # a logarithmic axis has no zero
        x.append(np.nan)
        y.append(np.nan)
        start += int(rows[-1]["total"]) if rows else 0
    if name != "loss":
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "linewidth": 1.3,
            "linestyle": ("-", "--", "-.", ":")[number // 2 % 4],
        }
    else:
        style = {"color": INK, "linewidth": 1.8, "alpha": 0.6}
    axis.plot(x, y, label=label, **style)


def confusion(matrix: np.ndarray, names: Sequence[str], bounds: Sequence[int] = ()) -> Figure:
    """Row-normalised confusion: rows are truth and add up to 100 per cent, columns are predictions.

    `matrix`: counts [1 + C, 1 + C], background first; `bounds`: positions before which a class group begins.
    """
    with matplotlib.rc_context(STYLE), matplotlib.rc_context({"axes.grid": False}):
        size = len(matrix)
        side = 0.9 + max(2.2, 0.25 * size)
        figure = Figure(figsize=(side, side), layout="constrained")
        axis = figure.add_subplot()
        totals = matrix.sum(1, keepdims=True)
        shares = np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)
        red, green, blue = to_rgb(COLOURS[0])
        shade = LinearSegmentedColormap.from_list(
            "shade", [(red, green, blue, 0.0), (red, green, blue, 1.0)]
        )
        axis.pcolormesh(shares, cmap=shade, vmin=0, vmax=100)
        for bound in bounds:
            axis.axhline(bound, color=INK, linewidth=0.8, alpha=0.5)
            axis.axvline(bound, color=INK, linewidth=0.8, alpha=0.5)
        if size <= READABLE:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.5:
                    tone = "white" if share > 60 else INK
                    axis.text(
                        column + 0.5,
                        row + 0.5,
                        f"{share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color=tone,
                    )
        axis.set_xticks(np.arange(size) + 0.5, names, rotation=90, fontsize=8)
        axis.set_yticks(np.arange(size) + 0.5, names, fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set(visible=True, alpha=0.5)
        axis.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="truth", aspect="equal")
    return figure


def flows(chains: Mapping[str, Mapping[str, PredictionBreakdown | None]]) -> Figure:
    """What old classes' pixels became: one bar per class and chain, its parts right, background, new, another old."""
    with matplotlib.rc_context(STYLE):
        bars = max(len(classes) for classes in chains.values())
        figure, axes = side_by_side(
            len(chains),
            2.9,
            0.9 + 0.27 * bars,
            sharey=len({tuple(classes) for classes in chains.values()}) == 1,
        )
        for axis, (title, classes) in zip(axes, chains.items(), strict=True):
            left = np.zeros(len(classes))
            for part, colour in FLOW_COLOURS.items():
                widths = np.array(
                    [100 * getattr(each, part) if each else 0.0 for each in classes.values()]
                )
                axis.barh(
                    range(len(classes)),
                    widths,
                    left=left,
                    height=0.74,
                    color=colour,
                    label=FLOW_NAMES[part],
                )
                for y, (x, width) in enumerate(zip(left, widths, strict=True)):
                    if width >= 9:
                        axis.text(
                            x + width / 2,
                            y,
                            f"{width:.0f}",
                            ha="center",
                            va="center",
                            fontsize=7.5,
                            color=_on(colour),
                        )
                left += widths
            axis.grid(visible=False, axis="y")
            axis.set_yticks(range(len(classes)), list(classes))
            axis.tick_params(axis="y", length=0)
            axis.set(
                title=fill(title, WORDS),
                xlim=(0, 100),
                ylim=(len(classes) - 0.5, -0.5),
                xlabel="per cent of pixels",
            )
        legend(figure, axes[0])
    return figure


def by_layer(cuts: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> Figure:
    """Lines over the layers of a network, fractions; None for none."""
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = side_by_side(1, 6.2, 3.4)
        for number, (name, values) in enumerate(lines.items()):
            heights = [np.nan if value is None else 100 * value for value in values]
            axis.plot(range(len(cuts)), heights, **look(number), label=name, clip_on=False)
        axis.set_xticks(range(len(cuts)), cuts)
        axis.set(xlabel="up to", ylabel="per cent", ylim=(0, 105))
        legend(figure, axis)
    return figure


def by_channel(names: Sequence[str], panels: Mapping[str, Sequence[float]], bound: int) -> Figure:
    """Bars of one value per class in each panel; a line stands before position `bound`."""
    with matplotlib.rc_context(STYLE):
        figure, axes = side_by_side(len(panels), 3.4, 0.9 + 0.22 * len(names))
        for axis, (title, values) in zip(axes, panels.items(), strict=True):
            axis.barh(range(len(names)), values, height=0.74, color=COLOURS[0])
            axis.axhline(bound - 0.5, color=INK, linewidth=0.8, alpha=0.5)
            axis.axvline(0, color=INK, linewidth=0.8)
            axis.grid(visible=False, axis="y")
            axis.set_yticks(range(len(names)), names)
            axis.tick_params(axis="y", length=0)
            axis.set(title=fill(title, WORDS), ylim=(len(names) - 0.5, -0.5))
    return figure


def svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element to stand in a page, `label` read out in its place by those who cannot see it.

    The same figure gives the same text. Ids are made from `label`, so figures of different labels can share a page.
    """
    out = BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE), matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<g id="[^"]*"', "<g", text
    )  # names of matplotlib's parts, the same in every figure
    said = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{said}"', 1)


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG file on white."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def side_by_side(
    count: int, width: float, height: float, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """Axes side by side, a few to a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    wide = max(columns * width + 0.4, 6.2)  # a legend needs room above a single panel too
    figure = Figure(figsize=(wide, rows * height), layout="constrained")
    axes = figure.subplots(
        rows, columns, squeeze=False, sharey=sharey, gridspec_kw={"wspace": 0.12}
    ).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def look(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linewidth": 1.8,
        "markersize": 6,
    }


def legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=min(len(labels), 4), borderaxespad=0.1
        )


def _on(colour: str) -> str:
    """Black or white, whichever reads better on the colour."""
    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
