"""One page that says in words and pictures why chains forgot: all at a glance, then each, and what each figure means."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.analysis.diagnosis import Analysis, sentences
from orchestrator.analysis.tables import JOINTS, flow_table, layer_table, overview, remedy_table
from orchestrator.report import figures
from orchestrator.report.html import Drawing, draw, render
from orchestrator.report.render import to_csv, to_markdown
from orchestrator.report.table import Table

FEW = 3  # chains that a title names
DEFINITIONS = {
    "stitching": "the later model up to a layer, a 1x1 layer with bias, and the earlier model from there on; its mean IoU "
    "on the earlier classes over the earlier model's own. High values: what the rest needs is still computed up to there.",
    **{name.replace("_", " "): words for name, words in JOINTS.items()},
    "CKA": "centred kernel alignment of the two models' features on the same images and positions, linear, with the unbiased "
    "estimator of HSIC, over minibatches. 100: the same but for rotation and scale; 0: unrelated.",
    "background shift": "pixels of earlier classes that are predicted as background: new steps label them so.",
    "pull of new classes": "pixels of earlier classes that are predicted as a class learned since: bias towards new classes.",
    "logit gap": "mean over pixels of earlier classes (training images) of the highest logit of a new class (or background's) "
    "less the highest logit of an earlier class.",
    "lowered": "the validation images scored again with the gap subtracted from these logits; what comes back was outvoted, "
    "not lost. It is a counterfactual, not a method: the gap is measured with the masks of earlier classes.",
    "trained anew": "the later model's encoder (or encoder and head) kept as it is, the rest trained from a random start on "
    "all labels of all classes: what the kept part still tells apart.",
    "|w| and b": "length of a class's weight vector in the classifier, and its bias.",
}


@dataclass(frozen=True)
class Part:
    """What the page shows of one pair of steps."""

    analysis: Analysis
    sentences: list[str]
    layer_table: Table
    flow_table: Table
    remedy_table: Table
    layers: Drawing | None
    flow: Drawing
    classifier: Drawing | None

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.layer_table, self.flow_table, self.remedy_table


def write_page(analyses: Sequence[Analysis], folder: Path) -> Path:
    """Write analysis.html, analysis.md and layers.csv to `folder`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in page_files(analyses).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "analysis.html"


def page_files(analyses: Sequence[Analysis]) -> dict[str, str]:
    """The page and its numbers, by file name."""
    parts = [_part(analysis) for analysis in analyses]
    glance = overview(analyses) if len(analyses) > 1 else ()
    names = dict.fromkeys(analysis.chain.name for analysis in analyses)
    title = ", ".join(names) if len(names) <= FEW else f"{len(names)} chains"
    told = [
        "\n".join([f"## {part.analysis.title}", "", *(f"- {told}" for told in part.sentences), ""])
        + "\n".join(map(to_markdown, part.tables))
        for part in parts
    ]
    return {
        "analysis.html": render(
            "analysis.html.j2", parts=parts, glance=glance, title=title, definitions=DEFINITIONS
        ),
        "analysis.md": "\n".join([*map(to_markdown, glance), *told]),
        "layers.csv": "".join(to_csv(part.layer_table) for part in parts),
    }


def _part(analysis: Analysis) -> Part:
    return Part(
        analysis=analysis,
        sentences=sentences(analysis),
        layer_table=layer_table(analysis),
        flow_table=flow_table(analysis),
        remedy_table=remedy_table(analysis),
        layers=_layers(analysis),
        flow=_flow(analysis),
        classifier=_classifier(analysis),
    )


def _layers(analysis: Analysis) -> Drawing | None:
    if not analysis.layers:
        return None
    lines = {
        f"joint: {joint.replace('_', ' ')}": [layer.kept.get(joint) for layer in analysis.layers]
        for joint in JOINTS
    }
    lines["CKA"] = [layer.cka for layer in analysis.layers]
    lines = {
        name: values for name, values in lines.items() if any(value is not None for value in values)
    }
    figure = figures.by_layer([layer.cut for layer in analysis.layers], lines)
    caption = "Mean IoU of the earlier classes that a stitched network keeps, and how alike the features are."
    return draw(figure, f"What is left behind each layer, {analysis.title}", caption)


def _flow(analysis: Analysis) -> Drawing:
    steps = {
        f"after step {analysis.earlier.record.index}": analysis.flow_before,
        f"after step {analysis.later.record.index}": analysis.flow_after,
    }
    caption = "What the earlier classes' pixels were predicted as: grey is background shift, orange the pull of new classes."
    return draw(
        figures.breakdowns({analysis.chain.name: steps}),
        f"What their pixels became, {analysis.title}",
        caption,
    )


def _classifier(analysis: Analysis) -> Drawing | None:
    if analysis.bias is None:
        return None
    answer = analysis.bias.answer
    names = [analysis.later.evaluation.class_names[class_id] for class_id in answer["classes"]]
    known = sum(map(len, analysis.earlier.groups))
    figure = figures.by_channel(names, {"|w|": answer["norms"], "b": answer["biases"]}, known + 1)
    caption = "Length of each class's weight vector in the classifier, and its bias; a line parts the new classes."
    return draw(figure, f"Classifier weights, {analysis.title}", caption)
