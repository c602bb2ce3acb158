"""What a run should look like fits MLflow."""

import pytest

from orchestrator.tracking.runs import curve_points, to_params


def test_names_and_values_fit_mlflow():
    document = {"a": {"b": 0.5, "c": None}, "d": [["x"]], "e": "text", "f": True}
    assert to_params(document) == {
        "a.b": "0.5",
        "a.c": "null",
        "d": '[["x"]]',
        "e": "text",
        "f": "true",
    }
    row = {"iteration": 3, "total": 9, "time": 1.5, "loss": 0.25, "lr/head": float("nan")}
    (point,) = curve_points([row])
    assert point == ("loss", 0.25, 1500, 3)


@pytest.mark.parametrize("name", ["usage/cpu_percent", "system/cpu_utilization_percentage"])
def test_usage_has_mlflows_name_whatever_the_curve_calls_it(name: str):
    (point,) = curve_points([{"iteration": 1, "time": 1.0, name: 50.0}])
    assert point.name == "system/cpu_utilization_percentage"
