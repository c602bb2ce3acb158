"""An analysis as MLflow shows it: a run below its chain's, its layers along the steps of a metric, and the page.

Decoders that were trained anew for it are steps like any other, with a run of their own below the same chain.
"""

from collections.abc import Iterator

from orchestrator.analysis.diagnosis import Analysis
from orchestrator.analysis.page import page_files
from orchestrator.analysis.record import AnalysisRecord
from orchestrator.records import layout
from orchestrator.records.results import StepResult, named_scores
from orchestrator.tracking.runs import Point, Run, milliseconds, published, whole_chain
from training.metrics import wilson


def analysis_runs(record: AnalysisRecord, analysis: Analysis) -> list[Run]:
    """The analysis's own run, and those of the steps that trained a part of the later model anew."""
    chain, time = whole_chain(analysis.chain, wilson()), milliseconds(record.created)
    files = page_files([analysis])
    run = Run(
        key=record.key,
        kind="analysis",
        experiment=chain.experiment,
        name=f"why step {record.after} forgot step {record.before}",
        began=time,
        status="FINISHED",
        ended=time,
        params={
            "chain": analysis.chain.record.chain["name"],
            "before": str(record.before),
            "after": str(record.after),
            "layers": ", ".join(layer.cut for layer in analysis.layers),
        },
        tags={
            "stepchain.record": layout.analysis_record(record.key),
            "mlflow.note.content": files["analysis.md"],
        },
        points=tuple(
            Point(name, value, time, step)
            for name, value, step in _values(analysis)
            if value is not None
        ),
        texts=files,
        nested_in=chain.key,
    )
    return [run, *(_step_run(step, chain) for step in analysis.anew.values())]


def _step_run(step: StepResult, chain: Run) -> Run:
    scores = named_scores(step.scores(wilson()), step.evaluation.class_names)
    return published(step.record, chain.experiment, chain.key, scores, step.curves)


def _values(analysis: Analysis) -> Iterator[tuple[str, float | None, int]]:
    """Names, values and steps of all metrics: of what is asked of every layer, the step is the layer's place."""
    for place, layer in enumerate(analysis.layers):
        for joint, kept in layer.kept.items():
            yield f"kept/{joint}", kept, place
        yield "cka", layer.cka, place
    for moment, flow in (("before", analysis.flow_before), ("after", analysis.flow_after)):
        for part, share in flow or ():
            yield f"pixels {moment}/{part}", share, 0
    means = {"before": analysis.before, "after": analysis.after, **analysis.corrected}
    means |= {f"{part} anew": value for part, value in analysis.retrained.items()}
    for name, (earlier, new) in means.items():
        yield f"miou earlier/{name}", earlier, 0
        yield f"miou new/{name}", new, 0
    yield "background_taken", analysis.background_taken, 0
    gap = analysis.bias.answer["gap"] if analysis.bias else None
    for name, value in (gap or {}).items():
        yield f"gap/{name}", float(value), 0
