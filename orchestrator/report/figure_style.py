"""Give all figures one look and turn them into SVG.

Series differ in colour, in marker and in position, so a print in grey is readable. The colours are
those of Okabe and Ito, which colour-blind readers can distinguish. Ink is one colour, which a page
may replace by the colour of its own text. Backgrounds are transparent, so one figure serves light
and dark pages. Figures are built as objects, never through pyplot, so no state of matplotlib is
shared.
"""

import re
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

INK = "#3b4350"
COLOURS = ("#0a7bc2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
MARKERS = "osD^vP*X"
TITLE_WIDTH = 26  # characters of a title above an axis before it wraps
LEGEND_HANDLE = 0.7  # inches of a series beside its name in a legend
LEGEND_ROW = 0.24  # inches
LEAST_PANEL = 2.2  # inches of a panel beside its labels
PANELS = 3  # side by side before another row begins
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


def svg(figure: Figure, label: str) -> str:
    """Return the figure as an `<svg>` element for a page.

    The same figure gives the same text. Ids are made from the label, so figures of different
    labels can share a page.

    Args:
        figure: The figure to draw.
        label: The text that screen readers read instead of the figure.
    """
    out = BytesIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE), matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(out, format="svg", transparent=True, metadata=no_metadata)
    text = out.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Matplotlib names the groups alike in every figure, so their ids would repeat in a page.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1)


def side_by_side(
    count: int, width: float, height: float, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure with several panels, a few to a row.

    Args:
        count: Number of panels.
        width: Width of a panel in inches.
        height: Height of a panel in inches.
        sharey: Whether all panels share the vertical axis.
    """
    columns = min(count, PANELS)
    rows = -(-count // columns)
    # A legend needs room above a single panel too.
    total_width = max(columns * width + 0.4, 6.2)
    figure = Figure(figsize=(total_width, rows * height), layout="constrained")
    axes = figure.subplots(
        rows, columns, squeeze=False, sharey=sharey, gridspec_kw={"wspace": 0.12}
    ).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def series_style(number: int) -> dict[str, Any]:
    """Return colour and marker of the series with that number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linewidth": 1.8,
        "markersize": 6,
    }


def add_legend(figure: Figure, axis: Axes) -> None:
    """Put the legend of an axis above the figure, unless there is only one series.

    It has as many columns as fit beside each other, and the figure grows by its rows, and
    where a single name is wider, to its width.
    """
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) < 2:
        return
    entry = max(map(_text_width, labels)) + LEGEND_HANDLE
    columns = int(min(max(figure.get_figwidth() // entry, 1), len(labels), 4))
    rows = -(-len(labels) // columns)
    figure.set_figwidth(max(figure.get_figwidth(), entry))
    figure.set_figheight(figure.get_figheight() + (rows - 1) * LEGEND_ROW)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, borderaxespad=0.1)


def _text_width(text: str) -> float:
    """Return the width of a text in inches. A page's own font may be a tenth wider than ours."""
    size = STYLE["font.size"]
    return TextPath((0, 0), text, size=size).get_extents().width / 72 * 1.1 if text.strip() else 0


def name_rows(axis: Axes, names: list[str]) -> None:
    """Label the rows of a horizontal chart, the first row on top, and give the labels room."""
    figure = axis.get_figure(root=True)
    spec = axis.get_subplotspec()
    assert figure is not None
    assert spec is not None
    room = max(map(_text_width, names)) + LEAST_PANEL * spec.get_gridspec().ncols
    figure.set_figwidth(max(figure.get_figwidth(), room))
    axis.grid(visible=False, axis="y")
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(names) - 0.5, -0.5)


def text_colour(background: str) -> str:
    """Return black or white, whichever reads better on the background colour."""
    red, green, blue = to_rgb(background)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
