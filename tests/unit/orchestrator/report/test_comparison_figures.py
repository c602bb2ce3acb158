"""Test that comparisons show means, their deviations, and the papers' numbers apart."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from orchestrator.report import comparison_figures
from orchestrator.report.comparison_figures import Series
from orchestrator.report.figures import breakdowns
from orchestrator.report.table import Measured
from training.prediction_breakdown import PredictionBreakdown


def bars(axis: Axes) -> list[Rectangle]:
    """Return the bars of an axis."""
    return [patch for patch in axis.patches if isinstance(patch, Rectangle)]


def test_a_band_is_one_deviation_to_each_side() -> None:
    shown = {"all": {"": Series([Measured(0.6, 0.02), None, Measured(0.5, 0.01)], [None] * 3)}}
    (axis,) = comparison_figures.along("alpha", [0, 0.5, 1], shown).axes
    mean, low, high = axis.get_lines()
    assert np.asarray(mean.get_xydata()).tolist() == [[0, 60], [1, 50]]
    assert np.asarray(low.get_ydata()).tolist() == pytest.approx([58, 49])
    assert np.asarray(high.get_ydata()).tolist() == pytest.approx([62, 51])


def test_the_papers_numbers_are_hollow_and_named() -> None:
    shown = {
        "all": {
            "overlap": Series([0.6, 0.5], [0.61, None]),
            "disjoint": Series([0.4, 0.3], [None, None]),
        }
    }
    (axis,) = comparison_figures.along("alpha", [0, 1], shown).axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == ["overlap", "overlap, paper", "disjoint"]
    assert lines["overlap, paper"].get_markerfacecolor() == "none"
    assert np.asarray(lines["overlap, paper"].get_ydata())[0] == pytest.approx(61)


def test_values_of_a_categorical_axis_stand_one_below_the_other() -> None:
    shown = {"old": {"": Series([Measured(0.6, 0.1), 0.5], [None, 0.52])}}
    (axis,) = comparison_figures.among(["bce", "fixed"], shown).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["bce", "fixed"]
    assert [bar.get_width() for bar in bars(axis)] == pytest.approx([60, 50])
    assert any(line.get_label() == "paper" for line in axis.get_lines())


def test_a_value_has_room_for_what_is_there_alone() -> None:
    shown = {
        "old": {
            "": Series([0.6, None, 0.5], [None] * 3),
            "a": Series([None, 0.4, None], [None] * 3),
            "b": Series([None, 0.3, None], [None] * 3),
        }
    }
    (axis,) = comparison_figures.among(["mib", "wilson", "plop"], shown).axes
    heights = {round(bar.get_width()): bar.get_y() + bar.get_height() / 2 for bar in bars(axis)}
    middles = axis.get_yticks()
    assert heights[60] == pytest.approx(middles[0])
    assert (heights[40] + heights[30]) / 2 == pytest.approx(middles[1])
    assert heights[50] == pytest.approx(middles[2])
    assert heights[30] - heights[40] == pytest.approx(1), "one below the other"


@pytest.mark.parametrize("length", [4, 40, 80])
def test_a_legend_shows_all_names_however_long_they_are(length: int) -> None:
    names = [f"{number}{'x' * length}" for number in range(4)]
    shown = {"all": {name: Series([0.6], [None]) for name in names}}
    figure = comparison_figures.among(["False"], shown)
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    room = figure.bbox
    for text in legend.get_texts():
        box = text.get_window_extent()
        assert room.x0 <= box.x0
        assert box.x1 <= room.x1
        assert box.y1 <= room.y1


def test_long_names_of_rows_have_room() -> None:
    share = PredictionBreakdown(right=0.5, background=0.3, new=0.1, other_old=0.1)
    names = ["x" * 60 + str(number) for number in range(3)]
    figure = breakdowns({"all old classes": dict.fromkeys(names, share)})
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.canvas.draw()
    (axis,) = figure.axes
    assert axis.bbox.width > figure.dpi  # the bars have more than an inch
    assert all(label.get_window_extent().x0 >= 0 for label in axis.get_yticklabels())
