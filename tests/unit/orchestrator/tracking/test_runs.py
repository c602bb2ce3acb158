"""What a run should look like fits MLflow."""

import pytest

from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.tracking.runs import build_published_step_run, curve_points, to_params


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


def test_the_parts_of_training_stand_beside_its_seconds(store: Store, publish_chain):
    old = Repository(store).step(publish_chain(store, "old").steps[0])
    record = old.model_copy(update={"train_parts": {"data": 4.0, "checkpoint": 0.5}})
    run = build_published_step_run(record, "digits", None, {}, [])
    assert {point.name: point.value for point in run.points} == {
        "seconds/train": 42.0,
        "seconds/evaluate": 3.5,
        "seconds/train_data": 4.0,
        "seconds/train_checkpoint": 0.5,
    }
    assert run.began == build_published_step_run(old, "digits", None, {}, []).began
