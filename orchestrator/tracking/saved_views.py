"""Build the views of a campaign that MLflow offers under **Views** on its runs page.

A view defines which chains are shown, how they are grouped, and in which charts.

Each scenario has one view with the campaign's name, which shows every chain. It also has one view
for each field that was varied, which shows means over all other fields.

MLflow keeps a saved view as a tag of the experiment. The tag is JSON whose `state` is the deflated
state of MLflow's page. That form is MLflow's own (3.17) and undocumented. Therefore a browser test
opens these views. An MLflow that does not understand them offers none, and loses nothing else.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from orchestrator.store.canonical import digest
from orchestrator.tracking.metric_names import class_metric
from training.metrics import Convention

TAG = "mlflow.sharedViewState."
LONGEST_TAG = 20_000  # characters


class _Section(NamedTuple):
    name: str
    charts: list[dict[str, Any]]


def saved_views(
    campaign: str, axes: Sequence[str], classes: Iterable[str], convention: Convention, created: int
) -> dict[str, str]:
    """Return tags of an experiment, one for each view.

    Args:
        campaign: Name of the campaign.
        axes: Parameters in which the campaign's chains differ.
        classes: Names of all classes that the chains learn.
        convention: Of the scores that the charts show.
        created: Milliseconds since 1970.
    """
    class_metrics = [class_metric(name) for name in classes]
    tags = {}
    for axis in (None, *axes):
        name = campaign if axis is None else f"{campaign} by {axis}"
        tag = _tag(name, _state(campaign, axis, axes, class_metrics, convention), created)
        if len(tag) > LONGEST_TAG:
            # A chart for each of hundreds of classes does not fit.
            tag = _tag(name, _state(campaign, axis, axes, [], convention), created)
        tags[f"{TAG}{digest(name)[:16]}"] = tag
    return tags


def _tag(name: str, state: dict[str, Any], created: int) -> str:
    packed = "deflate;" + b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": created, "updatedAt": created, "state": packed})


def _state(
    campaign: str,
    axis: str | None,
    axes: Sequence[str],
    class_metrics: Sequence[str],
    convention: Convention,
) -> dict[str, Any]:
    """Return the state of MLflow's page; what is left out has its default.

    Args:
        campaign: Name of the campaign.
        axis: Parameter by which runs are grouped; None shows every run.
        axes: Parameters in which the campaign's chains differ.
        class_metrics: Names of the metrics that get a chart each.
        convention: Of the scores that the charts show.
    """
    means = _mean_metrics(convention)
    sections = _sections(axis, axes, means, class_metrics)
    params = [f"params.`{name}`" for name in axes]
    metrics = [f"metrics.`final/{metric}`" for metric in means]
    return {
        "searchFilter": f"tags.`stepchain.campaign.{campaign}` = 'yes'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": params + metrics,
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": axis
        and {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": axis}],
        },
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "compareRunSections": [
            _section_state(number, section) for number, section in enumerate(sections)
        ],
        "compareRunCharts": [
            _chart_state(number, position, chart)
            for number, section in enumerate(sections)
            for position, chart in enumerate(section.charts)
        ],
    }


def _mean_metrics(convention: Convention) -> tuple[str, str, str]:
    """Return the metrics of the columns of the campaign's table: all, old and new classes."""
    old = "miou/base_with_background" if convention.background_in_old else "miou/base"
    everything = "miou/all" if convention.background_in_all else "miou/all_without_background"
    return everything, old, "miou/added"


def _sections(
    axis: str | None, axes: Sequence[str], means: Sequence[str], class_metrics: Sequence[str]
) -> list[_Section]:
    after_last = [_bar(f"final/{metric}") for metric in means]
    if axes and axis is None:
        # Grouped runs have no position on the axes that they are averaged over.
        after_last.insert(0, _parallel(axes, f"final/{means[0]}"))
    forgetting = ("forgetting_first_minus_last", "backward_transfer")
    return [
        _Section("After the last step", after_last),
        _Section("Over incremental steps", [_line(metric) for metric in means]),
        _Section("Forgetting", [_bar(f"final/{name}") for name in forgetting]),
        _Section("Classes over incremental steps", [_line(metric) for metric in class_metrics]),
    ]


def _section_state(number: int, section: _Section) -> dict[str, Any]:
    return {
        "uuid": f"s{number}",
        "name": section.name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


def _chart_state(number: int, position: int, chart: dict[str, Any]) -> dict[str, Any]:
    return {
        "uuid": f"s{number}c{position}",
        "metricSectionId": f"s{number}",
        "deleted": False,
        "isGenerated": False,
        **chart,
    }


def _bar(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric, "runsCountToCompare": 100}


def _line(metric: str) -> dict[str, Any]:
    axes = {
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
    }
    plain = {
        "lineSmoothness": 0,
        "selectedXAxisMetricKey": "",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
    }
    shared = {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "runsCountToCompare": 100}
    return {"type": "LINE", "metricKey": metric, **axes, **plain, **shared}


def _parallel(axes: Sequence[str], metric: str) -> dict[str, Any]:
    shown = {"selectedParams": list(axes), "selectedMetrics": [metric], "showAllRuns": True}
    return {"type": "PARALLEL", "runsCountToCompare": 100, **shown}
