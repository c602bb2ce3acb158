"""Test that figures show what they are given, as text that a page can hold."""

from xml.etree import ElementTree

import numpy as np
import pytest

from orchestrator.report import comparison_figures, figures
from orchestrator.report.figure_style import INK, svg
from training.prediction_breakdown import PredictionBreakdown

BREAKDOWN = PredictionBreakdown(right=0.5, background=0.3, new=0.15, other_old=0.05)


def texts(text: str) -> list[str]:
    root = ElementTree.fromstring(text)
    return [element.text or "" for element in root.iter() if element.tag.endswith("text")]


def every_figure() -> dict[str, figures.Figure]:
    rows = [
        {"iteration": i, "total": 30, "loss": 1.0 / i, "loss/prior": 0.5 / i, "lr/head": 0.01}
        for i in (10, 20, 30)
    ]
    return {
        "steps": comparison_figures.over_steps(
            {
                "old": {"WILSON": [None, 0.5], "MiB": [None, 0.4]},
                "all": {"WILSON": [0.7, 0.6], "MiB": [0.7, 0.5]},
            }
        ),
        "classes": figures.by_class(
            ["background", "cat"],
            {"WILSON": [(0.9, 0.8), (None, None)], "MiB": [(0.9, 0.7), (0.5, 0.5)]},
        ),
        "curves": figures.curves([rows, rows]),
        "confusion": figures.confusion(
            np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]), ["background", "cat", "dog"], [1]
        ),
        "breakdown": figures.breakdowns(
            {
                "WILSON": {"all old classes": BREAKDOWN, "cat": None},
                "MiB": {"all old classes": BREAKDOWN, "cat": BREAKDOWN},
            }
        ),
    }


@pytest.mark.parametrize("name", ["steps", "classes", "curves", "confusion", "breakdown"])
def test_every_figure_is_an_svg_element_that_can_stand_in_a_page(name) -> None:
    text = svg(every_figure()[name], f"the {name} of <cats & dogs>")
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"the {name} of <cats & dogs>"
    assert text.startswith("<svg")
    assert "nan" not in text.lower()
    assert INK in text
    attributes = [attribute for element in root.iter() for attribute in element.items()]
    assert all(value.startswith("#") for key, value in attributes if key.endswith("href"))


def test_the_same_figure_gives_the_same_text() -> None:
    first, second = (svg(every_figure()["breakdown"], "breakdown") for _ in range(2))
    assert first == second


def test_figures_of_one_page_do_not_share_ids() -> None:
    ids = []
    for name, figure in every_figure().items():
        root = ElementTree.fromstring(svg(figure, name))
        ids += [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_confusion_shows_shares_of_the_true_class() -> None:
    shown = texts(svg(every_figure()["confusion"], "c"))
    assert [text for text in shown if text.isdigit()] == ["80", "20", "10", "90"]
    assert {"background", "cat", "dog"} <= set(shown)


def test_curves_of_a_step_that_logged_nothing() -> None:
    rows = [{"iteration": 5, "total": 5, "loss": 1.0, "loss/cross_entropy": 1.0, "lr/head": 0.01}]
    shown = texts(svg(figures.curves([[], rows]), "c"))
    assert {"step 0", "step 1", "sum of losses", "cross_entropy", "head"} <= set(shown)


def test_series_differ_in_colour_and_marker() -> None:
    figure = comparison_figures.over_steps({"all": {name: [0.5, 0.5] for name in "abcdefgh"}})
    lines = figure.axes[0].get_lines()
    assert len({str(line.get_color()) for line in lines}) == 8
    assert len({str(line.get_marker()) for line in lines}) == 8
