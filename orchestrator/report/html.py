"""What all pages share: a template rendered alone into one file, and figures drawn in the page's own ink."""

import json
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from orchestrator.report import figures
from orchestrator.report.table import fraction, percent


class Drawing(NamedTuple):
    """A figure with what it shows, in words."""

    svg: Markup
    caption: str


def render(template: str, **values: Any) -> str:
    """The page of a template in orchestrator/templates."""
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["fraction"] = fraction
    environment.filters["pretty"] = lambda document: json.dumps(
        document, indent=2, ensure_ascii=False
    )
    return environment.get_template(template).render(**values)


def draw(figure: Figure, label: str, caption: str) -> Drawing:
    """The figure in the page's own ink; `label` is read out in its place."""
    return Drawing(Markup(figures.svg(figure, label).replace(figures.INK, "currentColor")), caption)
