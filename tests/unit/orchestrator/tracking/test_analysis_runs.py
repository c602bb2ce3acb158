"""The run of an analysis holds what its page says."""

import pytest

from orchestrator.analysis.diagnosis import analyse
from orchestrator.analysis.record import publish_analysis
from orchestrator.planning.chain import Chain
from orchestrator.store.base import Store
from orchestrator.tracking.analysis_runs import analysis_runs
from orchestrator.tracking.runs import build_chain_run
from tests.support.analyses import answers, publish_forgetting_chain


def test_mlflow_shows_what_the_page_says(store: Store):
    chain = publish_forgetting_chain(store)
    retrained = {"classifier": chain.steps[0]}
    record = publish_analysis(store, chain, (0, 1), answers(1.0), retrained)
    analysis = analyse(chain, chain.steps[0], chain.steps[1], answers(1.0), retrained)
    run, step = analysis_runs(record, analysis)
    points = {(point.name, point.step): point.value for point in run.points}
    assert points["kept/trained", 0] == 1.0
    assert points["kept/trained", 1] == pytest.approx(0.97)
    assert points["cka", 1] == 0.5
    assert points["pixels after/background", 0] == pytest.approx(0.5)
    assert points["miou earlier/after", 0] == pytest.approx(0.3)
    assert points["miou earlier/both_corrected", 0] == pytest.approx(0.45)
    assert points["miou earlier/classifier anew", 0] == pytest.approx(1.0)
    assert points["gap/new_minus_previous", 0] == 3.25
    assert ("miou new/before", 0) not in points, "there was no new class then"
    assert run.params["layers"] == "stem, head, classifier"
    assert "50.0 points more became background" in run.texts["analysis.html"]
    assert (run.kind, run.status) == ("analysis", "FINISHED")
    assert (step.kind, step.key) == ("step", chain.steps[0].record.key)
    document = Chain.model_validate(chain.record.chain)
    assert run.nested_in == build_chain_run(document, chain.record.steps, 0).key
