"""An MLflow rebuilt from records holds everything, and no run stays running without a lease."""

import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from orchestrator.analysis.record import publish_analysis
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.results import ChainResult
from orchestrator.store.base import Store
from orchestrator.store.lease import Lease
from orchestrator.tracking.held_run import HeldRun
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.rebuild import rebuild
from orchestrator.tracking.runs import Run, build_chain_run, build_step_run
from tests.support.mlflow_runs import history, runs_of_kind
from training.metrics import wilson

LONG_AGO = int(1000 * (time.time() - 7200))


def test_a_chain_run_holds_what_people_compare(uri: str, result: ChainResult, store: Store):
    rebuild(store, uri, wilson())
    (chain,) = runs_of_kind(uri, "chain")
    metrics = chain.data.metrics
    tags = chain.data.tags
    first, last = result.scores(wilson())
    assert history(uri, chain, "miou/all") == [(0, first.miou_all), (1, last.miou_all)]
    assert history(uri, chain, "miou/old") == [(1, last.miou_old)]
    assert metrics["final/miou/all_without_background"] == last.miou_all_without_background
    assert metrics["final/iou/7"] == last.iou[8]
    forgetting = result.continual(wilson()).forgetting_first_minus_last
    assert metrics["final/forgetting_first_minus_last"] == forgetting
    assert chain.data.params["method.alpha"] == "0.5"
    assert chain.data.params["method.name"] == "wilson"
    assert tags["stepchain.step.1"] == result.steps[1].record.key
    assert tags["mlflow.source.git.commit"] == "0123456789abcdef"
    assert "alpha 0.5" in tags["mlflow.note.content"]
    assert chain.info.run_name == "alpha 0.5"
    assert chain.info.status == "FINISHED"
    client = MlflowClient(uri)
    assert client.get_experiment(chain.info.experiment_id).name == "digits 6-4 overlap"
    tables = {artifact.path for artifact in client.list_artifacts(chain.info.run_id, "tables")}
    assert tables == {"tables/classes.md", "tables/classes.json"}


def test_step_runs_hold_curves_data_and_lineage(uri: str, result: ChainResult, store: Store):
    rebuild(store, uri, wilson())
    base, weak = runs_of_kind(uri, "step")
    (chain,) = runs_of_kind(uri, "chain")
    prior = [(row["iteration"], row["loss/prior"]) for row in result.steps[1].curves]
    assert history(uri, weak, "loss/prior") == prior
    assert "mlflow.parentRunId" not in base.data.tags, "step 0 is shared by chains"
    assert weak.data.tags["mlflow.parentRunId"] == chain.info.run_id
    assert weak.data.tags["stepchain.parent"] == base.data.tags["stepchain.key"]
    assert weak.data.metrics["miou/new"] == result.scores(wilson())[1].miou_new
    # A search leaves model inputs out.
    weak = MlflowClient(uri).get_run(weak.info.run_id)
    assert weak.inputs
    assert base.outputs
    datasets = [(item.dataset.name, item.dataset.digest) for item in weak.inputs.dataset_inputs]
    assert datasets == [("digits", "7" * 36)]
    started_from = [item.model_id for item in weak.inputs.model_inputs]
    assert started_from == [item.model_id for item in base.outputs.model_outputs]


def test_a_step_shared_by_two_chains_has_one_run(uri: str, result: ChainResult, store: Store):
    twin = result.record.model_copy(
        update={"key": "f" * 16, "chain": {**result.record.chain, "name": "the same, again"}}
    )
    store.write(layout.chain_record(twin.key), twin.model_dump_json().encode())
    assert rebuild(store, uri, wilson()) == (4, 0, ())
    assert len(runs_of_kind(uri, "chain")) == 2
    assert len(runs_of_kind(uri, "step")) == 2


@pytest.mark.parametrize("is_named", [False, True])
def test_a_campaign_whose_dataset_is_gone_is_left_out_and_named(
    is_named: bool, finished_campaign: tuple[Campaign, Store], store: Store, uri: str
):
    campaign, _ = finished_campaign
    publish_campaign(store, campaign)
    if is_named:  # and its manifest is lost
        store.write(layout.dataset_name(campaign.chains[0].scenario.dataset), b"d" * 64)
    summary = rebuild(store, uri, wilson())
    assert summary.runs == 0
    assert summary.left_out[0].startswith("hardness: ")


def test_a_run_that_is_deleted_while_it_is_written_is_written_again(
    store: Store, result: ChainResult, uri: str, monkeypatch: pytest.MonkeyPatch
):
    log, deleted = RunClient._log, []

    def delete_first(client: RunClient, held: HeldRun, run: Run) -> None:
        if not deleted:
            deleted.append(held.run_id)
            client._client.delete_run(held.run_id)
        log(client, held, run)

    monkeypatch.setattr(RunClient, "_log", delete_first)
    assert rebuild(store, uri, wilson()) == (3, 0, ())
    (chain,) = runs_of_kind(uri, "chain")
    assert chain.info.run_id not in deleted


def test_analyses_are_nested_in_their_chains(store: Store, result: ChainResult, uri: str):
    analysis = publish_analysis(store, result, (0, 1), (), {})
    # A second rebuild changes nothing.
    rebuild(store, uri, wilson())
    rebuild(store, uri, wilson())
    (run,), (chain,) = runs_of_kind(uri, "analysis"), runs_of_kind(uri, "chain")
    assert (run.info.run_name, run.info.status) == ("why step 1 forgot step 0", "FINISHED")
    assert run.data.tags["mlflow.parentRunId"] == chain.info.run_id
    assert run.data.tags["stepchain.record"] == f"analyses/{analysis.key}.json"
    old, new = chain.data.metrics["final/miou/old"], chain.data.metrics["final/miou/new"]
    assert run.data.metrics["miou earlier/after"] == pytest.approx(old)
    assert run.data.metrics["miou new/after"] == pytest.approx(new)
    page = MlflowClient(uri).download_artifacts(run.info.run_id, "analysis.html")
    assert "What would have helped" in Path(page).read_text()


def test_runs_without_a_lease_are_ended(store: Store, result: ChainResult, uri: str):
    store.delete(layout.chain_record(result.record.key))
    chain = Chain.model_validate(result.record.chain)
    records = [step.record for step in result.steps]
    steps = [
        PlannedStep(r.index, r.step, f"{r.index}" * 16, r.parent, r.class_names, np.arange(3))
        for r in records
    ]
    keys = [step.key for step in steps]
    alive, dead, young = (
        build_chain_run(chain.model_copy(update={"name": name}), keys, LONG_AGO)
        for name in ("alive", "dead", "young")
    )
    alive = alive.model_copy(update={"tags": {"stepchain.step.0": "e" * 16}})
    young = young.model_copy(update={"began": int(1000 * time.time())})
    client = RunClient(uri)
    title = chain.scenario.title
    for run in (alive, dead, young):
        client.put(run)
    client.put(build_step_run(steps[1], title, records[1].data, None, LONG_AGO))
    client.put(build_step_run(records[0], title, records[0].data, None, LONG_AGO))
    lease = Lease(store, layout.step_lease("e" * 16), "ada@node", period=60)
    assert lease.acquire()
    assert rebuild(store, uri, wilson()).closed == 3
    statuses = {run.info.run_name: run.info.status for run in runs_of_kind(uri, "chain")}
    assert statuses == {"alive": "RUNNING", "dead": "KILLED", "young": "RUNNING"}
    ended = {run.data.tags["stepchain.key"]: run for run in runs_of_kind(uri, "step")}
    assert ended[steps[1].key].info.status == "KILLED"
    finished = ended[records[0].key]
    assert finished.info.status == "FINISHED", "it is published, though no chain names it yet"
    assert len(history(uri, finished, "loss")) == len(result.steps[0].curves)
    assert rebuild(store, uri, wilson()).closed == 0
