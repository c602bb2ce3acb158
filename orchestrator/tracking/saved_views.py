"""Views of a campaign that MLflow offers under **Views** on its runs page: which chains, grouped how, in which charts.

For each scenario there is one view with the campaign's name, which shows every chain, and one for each thing that was varied,
which shows means over all else. MLflow keeps a saved view as a tag of the experiment: JSON whose `state` is what its page
would keep of itself, deflated. That form is MLflow's own (3.17) and written down nowhere, so a browser test opens these views;
an MLflow that did not understand them would offer none and lose nothing else.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from orchestrator.records.results import iou_of
from orchestrator.store.canonical import digest
from training.metrics import Convention

TAG = "mlflow.sharedViewState."
FIT = 20_000  # characters of a tag


class _Section(NamedTuple):
    name: str
    charts: list[dict[str, Any]]


def saved_views(
    campaign: str, axes: Sequence[str], classes: Iterable[str], convention: Convention, created: int
) -> dict[str, str]:
    """Tags of an experiment, one for each view.

    `axes`: parameters that differ among the campaign's chains; `classes`: names of all that they learn; `created`: in
    milliseconds since 1970.
    """
    curves = [iou_of(name) for name in classes]
    found = {}
    for axis in (None, *axes):
        name = campaign if axis is None else f"{campaign} by {axis}"
        tag = _tag(name, _state(campaign, axis, axes, curves, convention), created)
        if len(tag) > FIT:  # hundreds of classes
            tag = _tag(name, _state(campaign, axis, axes, [], convention), created)
        found[f"{TAG}{digest(name)[:16]}"] = tag
    return found


def _tag(name: str, state: dict[str, Any], created: int) -> str:
    packed = "deflate;" + b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": created, "updatedAt": created, "state": packed})


def _state(
    campaign: str,
    axis: str | None,
    axes: Sequence[str],
    curves: Sequence[str],
    convention: Convention,
) -> dict[str, Any]:
    """What MLflow's page keeps of itself; what is left out is as it is by default. `axis`: what to group by."""
    old = "miou/base_with_background" if convention.background_in_old else "miou/base"
    both = "miou/all" if convention.background_in_all else "miou/all_without_background"
    means = (both, old, "miou/added")  # the columns of the campaign's table
    # Of one variant there is nothing to compare, and a mean over everything else has no place on other axes.
    several = [_parallel(axes, f"final/{both}")] if axes and axis is None else []
    sections = [
        _Section("After the last step", several + [_bar(f"final/{metric}") for metric in means]),
        _Section("Over incremental steps", [_line(metric) for metric in means]),
        _Section(
            "Forgetting",
            [
                _bar(f"final/{name}")
                for name in ("forgetting_first_minus_last", "backward_transfer")
            ],
        ),
        _Section("Classes over incremental steps", [_line(curve) for curve in curves]),
    ]
    return {
        "searchFilter": f"tags.`stepchain.campaign.{campaign}` = 'yes'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [f"params.`{name}`" for name in axes]
        + [f"metrics.`final/{metric}`" for metric in means],
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
            {
                "uuid": f"s{n}",
                "name": s.name,
                "display": True,
                "isReordered": False,
                "deleted": False,
                "isGenerated": False,
            }
            for n, s in enumerate(sections)
        ],
        "compareRunCharts": [
            {
                "uuid": f"s{n}c{number}",
                "metricSectionId": f"s{n}",
                "deleted": False,
                "isGenerated": False,
                **chart,
            }
            for n, section in enumerate(sections)
            for number, chart in enumerate(section.charts)
        ],
    }


def _bar(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric, "runsCountToCompare": 100}


def _line(metric: str) -> dict[str, Any]:
    where = {
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
    return {"type": "LINE", "metricKey": metric, **where, **plain, **shared}


def _parallel(axes: Sequence[str], metric: str) -> dict[str, Any]:
    shown = {"selectedParams": list(axes), "selectedMetrics": [metric], "showAllRuns": True}
    return {"type": "PARALLEL", "runsCountToCompare": 100, **shown}
