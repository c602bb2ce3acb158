"""Work out the runs of an analysis: its own, and those of the decoders that were retrained for it.

The run of an analysis is nested in the run of its chain. Its metrics have layers as their steps,
and its artifacts are the page and its numbers. A decoder that was retrained for the analysis is a
step like any other. Its run is nested in the run of the same chain.
"""

from collections.abc import Iterator

from orchestrator.analysis.diagnosis import Analysis
from orchestrator.analysis.page import page_files
from orchestrator.analysis.record import AnalysisRecord
from orchestrator.records import layout
from orchestrator.tracking.runs import (
    Point,
    Run,
    build_finished_chain_run,
    build_step_result_run,
    to_milliseconds,
)
from training.metrics import wilson


def analysis_runs(record: AnalysisRecord, analysis: Analysis) -> list[Run]:
    """Return the run of the analysis, then those of the steps that retrained a part."""
    chain = build_finished_chain_run(analysis.chain, wilson())
    time = to_milliseconds(record.created)
    files = page_files([analysis])
    points = [
        Point(name, value, time, step)
        for name, value, step in _values(analysis)
        if value is not None
    ]
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
        points=tuple(points),
        texts=files,
        nested_in=chain.key,
    )
    steps = analysis.retrained_steps.values()
    return [run, *(build_step_result_run(step, chain, wilson()) for step in steps)]


def _values(analysis: Analysis) -> Iterator[tuple[str, float | None, int]]:
    """Yield name, value and step of each metric. The step of a layer's metric is its position."""
    for position, layer in enumerate(analysis.layers):
        for joint, kept in layer.kept.items():
            yield f"kept/{joint}", kept, position
        yield "cka", layer.cka, position
    moments = (("before", analysis.breakdown_before), ("after", analysis.breakdown_after))
    for moment, breakdown in moments:
        for prediction, share in breakdown or ():
            yield f"pixels {moment}/{prediction}", share, 0
    means = {"before": analysis.before, "after": analysis.after, **analysis.corrected}
    # Published metrics keep their names, although the code now calls them "retrained".
    means |= {f"{part} anew": value for part, value in analysis.retrained.items()}
    for name, (earlier, new) in means.items():
        yield f"miou earlier/{name}", earlier, 0
        yield f"miou new/{name}", new, 0
    yield "background_taken", analysis.background_taken, 0
    gap = analysis.bias.answer["gap"] if analysis.bias else None
    for name, value in (gap or {}).items():
        yield f"gap/{name}", float(value), 0
