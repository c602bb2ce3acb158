"""Write one page that says in words and figures why chains forgot.

Several chains begin with an overview. Then each pair of steps has a section, and at the end the
page says what each figure means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.analysis.diagnosis import Analysis
from orchestrator.analysis.sentences import describe_analysis
from orchestrator.analysis.tables import (
    JOINTS,
    breakdown_table,
    layer_table,
    overview,
    remedy_table,
)
from orchestrator.report import figures
from orchestrator.report.html import Drawing, draw, render
from orchestrator.report.render import to_csv, to_markdown
from orchestrator.report.table import Table

MOST_NAMES = 3  # chains that a title names
DEFINITIONS = {
    "stitching": "the later model up to a layer, a 1x1 layer with bias, and the earlier model "
    "from there on; its mean IoU on the earlier classes over the earlier model's own. "
    "High values: what the rest needs is still computed up to there.",
    **{name.replace("_", " "): words for name, words in JOINTS.items()},
    "CKA": "centred kernel alignment of the two models' features on the same images and "
    "positions, linear, with the unbiased estimator of HSIC, over minibatches. 100: the same but "
    "for rotation and scale; 0: unrelated.",
    "background shift": "pixels of earlier classes that are predicted as background, because the "
    "labels of later steps say background there.",
    "bias towards new classes": "pixels of earlier classes that are predicted as a class learned "
    "since.",
    "logit gap": "mean over pixels of earlier classes (training images) of the highest logit of a "
    "new class (or background's) less the highest logit of an earlier class.",
    "lowered": "the validation images scored again with the gap subtracted from these logits; "
    "what comes back was outvoted, not lost. It is a counterfactual, not a method: the gap is "
    "measured with the masks of earlier classes.",
    "retrained": "the later model's encoder (or encoder and head) kept as it is, the rest trained "
    "from a random start on all labels of all classes: what the kept part still separates.",
    "|w| and b": "length of a class's weight vector in the classifier, and its bias.",
}


@dataclass(frozen=True)
class Section:
    """What the page shows of one pair of steps."""

    analysis: Analysis
    sentences: list[str]
    layer_table: Table | None
    breakdown_table: Table
    remedy_table: Table
    layers: Drawing | None
    breakdown: Drawing
    classifier: Drawing | None

    @property
    def tables(self) -> tuple[Table, ...]:
        """Return the section's tables, in order."""
        tables = (self.layer_table, self.breakdown_table, self.remedy_table)
        return tuple(table for table in tables if table)


def write_page(analyses: Sequence[Analysis], folder: Path) -> Path:
    """Write analysis.html, analysis.md and layers.csv to `folder`; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in page_files(analyses).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "analysis.html"


def page_files(analyses: Sequence[Analysis]) -> dict[str, str]:
    """Return the page and its numbers, by file name."""
    sections = [_build_section(analysis) for analysis in analyses]
    glance = overview(analyses) if len(analyses) > 1 else ()
    names = dict.fromkeys(analysis.chain.name for analysis in analyses)
    title = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} chains"
    page = render(
        "analysis.html.j2", sections=sections, glance=glance, title=title, definitions=DEFINITIONS
    )
    blocks = [*map(to_markdown, glance), *map(_section_markdown, sections)]
    return {
        "analysis.html": page,
        "analysis.md": "\n".join(blocks),
        "layers.csv": "".join(to_csv(each.layer_table) for each in sections if each.layer_table),
    }


def _section_markdown(section: Section) -> str:
    bullets = [f"- {sentence}" for sentence in section.sentences]
    lines = [f"## {section.analysis.title}", "", *bullets, ""]
    return "\n".join(lines) + "\n".join(map(to_markdown, section.tables))


def _build_section(analysis: Analysis) -> Section:
    return Section(
        analysis=analysis,
        sentences=describe_analysis(analysis),
        layer_table=layer_table(analysis),
        breakdown_table=breakdown_table(analysis),
        remedy_table=remedy_table(analysis),
        layers=_draw_layers(analysis),
        breakdown=_draw_breakdown(analysis),
        classifier=_draw_classifier(analysis),
    )


def _draw_layers(analysis: Analysis) -> Drawing | None:
    if not analysis.layers:
        return None
    lines: dict[str, list[float | None]] = {}
    for joint in JOINTS:
        kept = [layer.kept.get(joint) for layer in analysis.layers]
        lines[f"joint: {joint.replace('_', ' ')}"] = kept
    lines["CKA"] = [layer.cka for layer in analysis.layers]
    measured = {name: values for name, values in lines.items() if values != [None] * len(values)}
    figure = figures.by_layer([layer.cut for layer in analysis.layers], measured)
    label = f"What is left behind each layer, {analysis.title}"
    caption = (
        "Mean IoU of the earlier classes that a stitched network keeps, and how similar the "
        "features are."
    )
    return draw(figure, label, caption)


def _draw_breakdown(analysis: Analysis) -> Drawing:
    steps = {
        f"after step {analysis.earlier.record.index}": analysis.breakdown_before,
        f"after step {analysis.later.record.index}": analysis.breakdown_after,
    }
    label = f"What their pixels became, {analysis.title}"
    caption = (
        "What the earlier classes' pixels were predicted as: grey is background shift, orange the "
        "bias towards new classes."
    )
    return draw(figures.breakdowns({analysis.chain.name: steps}), label, caption)


def _draw_classifier(analysis: Analysis) -> Drawing | None:
    if analysis.bias is None:
        return None
    answer = analysis.bias.answer
    names = [analysis.later.evaluation.class_names[class_id] for class_id in answer["classes"]]
    known = sum(map(len, analysis.earlier.groups))
    figure = figures.by_channel(names, {"|w|": answer["norms"], "b": answer["biases"]}, known + 1)
    caption = (
        "Length of each class's weight vector in the classifier, and its bias; a line separates "
        "the new classes."
    )
    return draw(figure, f"Classifier weights, {analysis.title}", caption)
