"""What waits for MLflow is told of each run at once, and says the same."""

from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.tracking.delivery import joined
from orchestrator.tracking.runs import Point, Run, build_published_step_run, curve_points


def test_what_is_said_of_a_run_in_pieces_joins_to_the_whole(store: Store, publish_chain):
    record = Repository(store).step(publish_chain(store, "demo").steps[1])
    rows = [{"iteration": number, "time": 1.7e9 + number, "loss": 1.0} for number in (1, 2, 3)]
    whole = build_published_step_run(record, "digits", "chain", {"miou": 0.5}, rows)
    begun = whole.model_copy(
        update={"status": "RUNNING", "ended": None, "points": (), "publishes": False}
    )
    curves = begun.model_copy(update={"points": curve_points(rows[:2])})
    assert joined(joined(begun, curves), whole) == whole
    assert joined(whole, curves) == whole, "a finished run stays finished"
    again = begun.model_copy(update={"status": "FAILED", "ended": 5})
    assert joined(again, begun).status == "RUNNING", "a run that failed may begin again"


def test_the_first_measurement_of_an_iteration_counts_and_the_last_score():
    step = Run(key="k", kind="step", experiment="e", name="n", began=0)
    first, last = Point("loss", 1.0, 10, 3), Point("loss", 2.0, 20, 3)
    one, two = (step.model_copy(update={"points": (each,)}) for each in (first, last))
    assert joined(one, two).points == (first,)
    one, two = (each.model_copy(update={"kind": "chain"}) for each in (one, two))
    assert joined(one, two).points == (last,)
