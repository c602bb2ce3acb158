"""Render pages from templates and put figures into them, drawn in the colour of the page's text."""

import json
from functools import partial
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from orchestrator.report.figure_style import INK, svg
from orchestrator.report.table import fraction, percent


class Drawing(NamedTuple):
    """A figure with its caption."""

    svg: Markup
    caption: str


def render(template: str, **values: Any) -> str:
    """Return the page of a template in orchestrator/report/templates."""
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["fraction"] = fraction
    environment.filters["pretty"] = partial(json.dumps, indent=2, ensure_ascii=False)
    return environment.get_template(template).render(**values)


def draw(figure: Figure, label: str, caption: str) -> Drawing:
    """Return the figure as SVG for a page.

    Args:
        figure: The figure to draw.
        label: The text that screen readers read instead of the figure.
        caption: Text below the figure.
    """
    return Drawing(Markup(svg(figure, label).replace(INK, "currentColor")), caption)
