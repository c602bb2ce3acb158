"""One HTML file that shows chains side by side, and the same numbers as Markdown, LaTeX, CSV and Parquet beside it.

The page needs nothing but itself: figures are inline SVG in the page's own ink, pictures are data URIs, there is no script
and no request. Whatever number it shows comes from `orchestrator.report.chain_tables`, which every other rendering uses too.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orchestrator.planning.chain import leaves
from orchestrator.records.results import ChainResult
from orchestrator.report import comparison_figures, figures
from orchestrator.report.chain_tables import (
    class_table,
    flow_table,
    forgetting_table,
    headline,
    summary_table,
)
from orchestrator.report.html import Drawing, draw, render
from orchestrator.report.predictions import SMALL, Picture, label_picture, palette, photo
from orchestrator.report.render import to_csv, to_latex, to_markdown
from orchestrator.report.scores_parquet import write_scores
from orchestrator.report.table import Table
from training.config import BACKGROUND, VOID, flatten_groups
from training.metrics import Convention, Scores
from training.prediction_breakdown import prediction_breakdown
from training.scenario import Scenario


class Setting(NamedTuple):
    """One field of the chains' documents, with its value in each chain."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


class Thumbnail(NamedTuple):
    """A picture in the page: its file as a data URI, and what is to be seen on it."""

    uri: str
    words: str
    small: bool  # so small that it is shown enlarged


@dataclass(frozen=True)
class Report:
    """What the page shows. Built by `build_report`, written by `write_report`."""

    title: str
    chains: tuple[ChainResult, ...]
    convention: Convention
    summary: Table
    classes: Table
    forgetting: Table | None
    flow: Table | None
    drawings: Mapping[str, Drawing]
    confusion: tuple[Drawing, ...]  # of each chain
    curves: tuple[Drawing, ...]
    settings: tuple[Setting, ...]
    strips: tuple[
        tuple[Thumbnail, ...], ...
    ]  # of each image: itself, its truth, and what `seen` names
    seen: tuple[tuple[str, tuple[str, ...]], ...]  # of each chain, what is shown of its steps
    legend: tuple[tuple[str, str], ...]  # class name, colour

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(
            table for table in (self.summary, self.classes, self.flow, self.forgetting) if table
        )


def build_report(
    chains: Sequence[ChainResult], convention: Convention, pictures: Sequence[Picture] = ()
) -> Report:
    """Everything to be shown of chains that were scored alike.

    `pictures`: predictions in the order of `chains` and their steps; none leaves the strips out.
    """
    drawings = {"steps": _over_steps(chains, convention), "classes": _by_class(chains, convention)}
    if any(len(chain.steps) > 1 for chain in chains):
        drawings["flow"] = _flow(chains, convention)
    maps = [
        m
        for p in pictures
        for m in (p.truth, *p.predictions, *(each for weak in p.weak if weak for each in weak))
    ]
    shown = sorted({int(label) for labels in maps for label in np.unique(labels)})
    colours = palette()
    names = chains[0].steps[-1].evaluation.class_names | {VOID: "void"}
    return Report(
        title=_title(
            [Scenario.model_validate(chain.record.chain["scenario"]).title for chain in chains]
        ),
        chains=tuple(chains),
        convention=convention,
        summary=summary_table(chains, convention),
        classes=class_table(chains, convention),
        forgetting=forgetting_table(chains, convention),
        flow=flow_table(chains, convention),
        drawings=drawings,
        confusion=tuple(_confusion(chain, convention) for chain in chains),
        curves=tuple(_curves(chain) for chain in chains),
        settings=settings([chain.record.chain for chain in chains]),
        seen=_seen(chains, pictures),
        strips=tuple(tuple(_strip(picture, chains, names)) for picture in pictures),
        legend=tuple((names[label], "#" + bytes(colours[label]).hex()) for label in shown),
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write report.html, table.md and table.tex (all tables), table.csv (per class and step) and scores.parquet (everything)
    to `folder`; returns the page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(to_html(report), encoding="utf-8")
    (folder / "table.md").write_text(
        "\n".join(to_markdown(table) for table in report.tables), encoding="utf-8"
    )
    (folder / "table.tex").write_text(
        "\n".join(to_latex(table) for table in report.tables), encoding="utf-8"
    )
    (folder / "table.csv").write_text(to_csv(report.classes), encoding="utf-8")
    write_scores(report.chains, report.convention, folder / "scores.parquet")
    return page


def to_html(report: Report) -> str:
    """The page."""
    return render("report.html.j2", report=report)


def settings(documents: Sequence[Mapping[str, Any]]) -> tuple[Setting, ...]:
    """All fields of the chains' documents, flattened (`method.alpha`); those that tell the chains apart come first."""
    flat = [{name: _shown(value) for name, value in leaves(document)} for document in documents]
    names = dict.fromkeys(name for fields in flat for name in fields if name != "name")
    found = [Setting(name, tuple(fields.get(name, "–") for fields in flat)) for name in names]
    return tuple(sorted(found, key=lambda setting: not setting.differs))


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        lists = any(isinstance(inner, Sequence) and not isinstance(inner, str) for inner in value)
        return (" | " if lists else " ").join(map(_shown, value))
    return "none" if value is None else str(value)


def _title(scenarios: Sequence[str]) -> str:
    """The words that all the scenarios' titles share."""
    shared = [
        word for word in scenarios[0].split() if all(word in title.split() for title in scenarios)
    ]
    return " ".join(shared) or "Several scenarios"


def _names(chains: Sequence[ChainResult]) -> str:
    return ", ".join(chain.name for chain in chains)


def _over_steps(chains: Sequence[ChainResult], convention: Convention) -> Drawing:
    scores = {chain.name: chain.scores(convention) for chain in chains}

    def means(part: int) -> dict[str, list[float | None]]:
        return {
            name: [headline(step, convention)[part] for step in steps]
            for name, steps in scores.items()
        }

    base = {name: [step.miou_base for step in steps] for name, steps in scores.items()}
    figure = comparison_figures.over_steps(
        {"base: step 0's classes": base, "new: the step's own classes": means(1), "all": means(2)}
    )
    caption = (
        "mIoU after each step: of the classes of step 0, of the classes that the step brought, and of all classes learned "
        f"so far ({'with' if convention.background_in_all else 'without'} background)."
    )
    return draw(figure, f"mIoU over incremental steps of {_names(chains)}", caption)


def _by_class(chains: Sequence[ChainResult], convention: Convention) -> Drawing:
    scores = [chain.scores(convention) for chain in chains]
    ids = dict.fromkeys(class_id for steps in scores for class_id in steps[-1].iou)

    def pair(steps: Sequence[Scores], class_id: int) -> tuple[float | None, float | None]:
        known = [step.iou[class_id] for step in steps if class_id in step.iou]
        return (known[0], known[-1]) if known else (None, None)

    pairs = {
        chain.name: [pair(steps, c) for c in ids]
        for chain, steps in zip(chains, scores, strict=True)
    }
    names = [chains[0].class_name(class_id) for class_id in ids]
    caption = (
        "IoU of each class. Hollow: right after the step that brought it; full: after the last step; the line between them is "
        "what was lost or gained since."
    )
    return draw(
        figures.by_class(names, pairs),
        f"IoU by class, first and last, of {_names(chains)}",
        caption,
    )


def _confusion(chain: ChainResult, convention: Convention) -> Drawing:
    ids = (BACKGROUND, *flatten_groups(chain.groups))
    bounds = [1, *(1 + sum(map(len, chain.groups[:g])) for g in range(1, len(chain.groups)))]
    names = [chain.class_name(class_id) for class_id in ids]
    figure = figures.confusion(chain.steps[-1].matrix(convention), names, bounds)
    return draw(figure, f"Confusion matrix of {chain.name} after the last step", chain.name)


def _flow(chains: Sequence[ChainResult], convention: Convention) -> Drawing:
    shares = {}
    for chain in chains:
        matrix = chain.steps[-1].matrix(convention)
        old = flatten_groups(chain.groups[:-1])
        parts = {"all old classes": prediction_breakdown(matrix, chain.groups, old)} if old else {}
        shares[chain.name] = parts | {
            chain.class_name(c): prediction_breakdown(matrix, chain.groups, [c]) for c in old
        }
    caption = (
        "What the pixels of old classes were predicted as after the last step. Grey is background shift, orange the pull of "
        "new classes: the two great causes of forgetting."
    )
    return draw(
        figures.flows(shares),
        f"What became of the pixels of old classes, by {_names(chains)}",
        caption,
    )


def _curves(chain: ChainResult) -> Drawing:
    return draw(
        figures.curves([step.curves for step in chain.steps]),
        f"Training curves of {chain.name}",
        chain.name,
    )


def _seen(
    chains: Sequence[ChainResult], pictures: Sequence[Picture]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Headings of the strips: each chain's steps, and what a step was taught by where that is shown."""
    weak = iter(pictures[0].weak if pictures else ())
    found = []
    for chain in chains:
        names: list[str] = []
        for step in chain.steps:
            names.append(f"step {step.record.index}")
            names += ["localizer", "pseudo-supervision"] if next(weak, None) else []
        found.append((chain.name, tuple(names)))
    return tuple(found)


def _strip(
    picture: Picture, chains: Sequence[ChainResult], names: Mapping[int, str]
) -> list[Thumbnail]:
    def shows(labels: Any) -> str:
        present = [
            names[label]
            for label in sorted({int(value) for value in labels.flat})
            if label not in (BACKGROUND, VOID)
        ]
        return ", ".join(present) or "background only"

    made = [
        f"{chain.name} after step {step.record.index}" for chain in chains for step in chain.steps
    ]
    maps = [("truth", picture.truth)]
    for who, prediction, weak in zip(
        made, picture.predictions, picture.weak or [None] * len(made), strict=True
    ):
        maps.append((who, prediction))
        if weak:
            maps += [
                (f"{who}, its localizer", weak.localizer),
                (f"{who}, its pseudo-supervision", weak.supervision),
            ]
    small = max(picture.truth.shape) <= SMALL
    image = Thumbnail(_data_uri(photo(picture.pixels)), f"image {picture.id}", small)
    return [
        image,
        *(
            Thumbnail(_data_uri(label_picture(labels)), f"{who}: {shows(labels)}", small)
            for who, labels in maps
        ),
    ]


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
