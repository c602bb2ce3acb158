"""How the store of this fixture was made, with the code of version 0.1.0, and what that code reads from it.

    cd CHECKOUT_OF_0.1.0 && PYTHONPATH=$PWD python make_store.py STORE EXPECTED_JSON

It is a record and not to be run again: today's code has other module names, and the fixture's worth is that 0.1.0 wrote it.
Everything in it was trained, scored and probed for real, by the functions that jobs call, but

- without Ray: `ray_train.run` calls the work in this process, and probes are answered one after the other;
- the tiny encoder has 6 channels instead of 32 (a class attribute, `Tiny.channels`), so that a model takes some 20 kB instead
  of 200: whoever wants to load one of these models must set that attribute, too;
- host and user are called `fixture`, and the traceback of the failed attempt is a sentence, so that nothing of the machine
  that made it is in the store.

What the store holds:

    digits             a dataset of 14 training scenes and 5 for validation, and lists of images (selections)
    wilson ...         a campaign of alpha (0, 0.5, 1) x seed (1, 2), whose seeds share a step 0:
                       alpha=0    seed=1 published after an attempt that failed; seed=2 in training: a lease that never expires
                       alpha=0.5  both seeds published
                       alpha=1    seed=1 interrupted, with a checkpoint to go on from; seed=2 failed
    finetuning         a chain from masks that shares step 0 with seed 1
    mib listed         a chain on listed images that shares nothing
    step 1 of wilson alpha=0.5 seed=1 is also scored smaller, its classifier is trained anew, and it is probed: an analysis
"""

import getpass
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from jobs.campaign_file import load_campaign
from jobs.campaign_plan import Part, make_plan, plan_document
from jobs.options import StoreOptions
from orchestrator import probes, ray_train, retraining, steps, worker
from orchestrator.analysis import sentences
from orchestrator.analysis_record import load_analysis, publish_analysis, recorded_analyses
from orchestrator.campaign import Campaign, with_field
from orchestrator.campaign_record import campaign_tree, find_campaign, publish_campaign
from orchestrator.campaign_table import campaign_table
from orchestrator.chain import Chain
from orchestrator.datasets import publish, resolve
from orchestrator.evaluations import ensure_evaluation
from orchestrator.lease import Lease, read_lease
from orchestrator.place import Place
from orchestrator.planner import plan_chain
from orchestrator.prune import leftovers
from orchestrator.record import ChainRecord, StepFailed
from orchestrator.report import build_report
from orchestrator.resources import Request, Resources
from orchestrator.results import load_chains
from orchestrator.selections import load_lists, publish_selections
from orchestrator.status import campaign_status
from orchestrator.steps import ensure_chain, ensure_step, find_record
from orchestrator.store import Store, open_store
from orchestrator.survey import survey
from orchestrator.table import to_csv, to_markdown
from orchestrator.worker import Scoring
from training.config import EvaluationConfig
from training.data.digits import Digits
from training.data.shards import build
from training.methods import fine_tuning, mib
from training.metrics import mib as mib_convention
from training.metrics import plop as plop_convention
from training.metrics import wilson as wilson_convention
from training.models.tiny import Tiny
from training.probes.measure import Bias, Similarity, Stitching
from training.runtime import Runtime

CAMPAIGN = Path(__file__).with_name("fixture_campaign.py")
CONVENTIONS = (wilson_convention(), mib_convention(), plop_convention())
RUNTIME = Runtime(log_every=40, checkpoint_every=1e9)
CENTURY = timedelta(days=36525).total_seconds()


class Workers:
    """In place of `ray_train.run`: does the work in this process. `runtime` and `failure` say how the next work goes."""

    def __init__(self) -> None:
        self.runtime = RUNTIME
        self.failure: str | None = None

    def run(self, work: Callable[[Runtime], Any], resources: Resources, name: str, *_: object) -> Any:
        if self.failure:
            # As Ray's workers fail: in the middle of it, so that the attempt's folder has its progress.
            failure, self.failure = self.failure, None
            try:
                self._until_saved(work, RuntimeError(failure))
            except RuntimeError as error:
                details = f"Traceback (most recent call last):\nRuntimeError: {error}\n"
                raise ray_train.WorkersFailed(f"RuntimeError: {error}", error, details) from error
        return work(self.runtime)

    def _until_saved(self, work: Callable[[Runtime], Any], error: BaseException) -> None:
        """Do the work up to where it would save its first checkpoint."""
        with saving(lambda saved, *arguments: _raise(error)):
            work(replace(self.runtime, checkpoint_every=0))


class saving:
    """While it lasts, checkpoints are saved by `instead(save_checkpoint, *arguments)`."""

    def __init__(self, instead: Callable[..., None]) -> None:
        self.saved, self.instead = worker.save_checkpoint, instead

    def __enter__(self) -> None:
        worker.save_checkpoint = lambda *arguments: self.instead(self.saved, *arguments)

    def __exit__(self, *_: object) -> None:
        worker.save_checkpoint = self.saved


def _raise(error: BaseException) -> None:
    raise error


def isolate(cache: str) -> Workers:
    """Nothing of this machine gets into a record, and nothing outside this process is started."""
    socket.gethostname = lambda: "fixture"
    getpass.getuser = lambda: "fixture"
    os.environ["STEPCHAIN_CACHE"] = cache
    Tiny.channels = 6
    torch.set_num_threads(1)
    workers = Workers()
    ray_train.run = workers.run
    resources = Resources(workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9)
    Place.resources = lambda self: resources
    steps.POLL_SECONDS = 0.01
    probes._compute = lambda questions, earlier, later, manifest, splits, place: (
        probes._answer(place.store, earlier, later, manifest, splits, 1, question) for question in questions
    )
    retraining.PARTS = ("classifier",)
    return workers


def fill(store: Store, workers: Workers) -> None:
    """Write everything that the module's docstring names."""
    place = Place(store, console=Console(file=StringIO()))
    lists = ingest(store)
    campaign = load_campaign(str(CAMPAIGN))
    publish_campaign(store, campaign)
    chains = {chain.name: chain for chain in campaign.chains}

    workers.failure = "loss is not finite after iteration 40"
    _expect(StepFailed, lambda: ensure_chain(plan_chain(chains["wilson alpha=0 seed=1"], store), place))
    for name in ("wilson alpha=0 seed=1", "wilson alpha=0.5 seed=1", "wilson alpha=0.5 seed=2"):
        ensure_chain(plan_chain(chains[name], store), place)
    others = other_chains(chains["wilson alpha=0.5 seed=1"], lists)
    for chain in others:
        ensure_chain(plan_chain(chain, store), place)

    interrupt(chains["wilson alpha=1 seed=1"], place, workers, keep=True)
    workers.failure = "the loss diverged"
    _expect(StepFailed, lambda: ensure_chain(plan_chain(chains["wilson alpha=1 seed=2"], store), place))
    interrupt(chains["wilson alpha=0 seed=2"], place, workers, keep=False)
    leased = plan_chain(chains["wilson alpha=0 seed=2"], store).steps[1].key
    assert Lease(store, leased, "fixture@fixture", period=CENTURY).acquire()
    look_closer(store, chains["wilson alpha=0.5 seed=1"], place)


def ingest(store: Store) -> str:
    """The dataset, and lists of the images of two steps; returns the digest of the lists."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        publish(store, "digits", folder, build(Digits(seed=23, train=14, val=5), folder)[0])
        (folder / "train-0.txt").write_text("".join(f"train-{number:05d}\n" for number in range(7)))
        (folder / "train-1.txt").write_text("".join(f"train-{number:05d}\n" for number in range(6, 12)))
        return publish_selections(store, folder, "digits")


def other_chains(weak: Chain, lists: str) -> tuple[Chain, Chain]:
    """Fine-tuning that shares step 0 with the WILSON chain, and MiB on listed images that shares nothing."""
    from_masks = with_field(weak, "scenario.supervision", "pixel")
    finetuning = with_field(with_field(from_masks, "name", "finetuning"), "method", fine_tuning.Config(loss="bce"))
    listed = with_field(with_field(from_masks, "name", "mib listed"), "scenario.selections", lists)
    listed = with_field(with_field(listed, "base.method", fine_tuning.Config()), "method", mib.Config())
    return finetuning, listed


def interrupt(chain: Chain, place: Place, workers: Workers, keep: bool) -> None:
    """Begin the chain's last step and stop it as Ctrl-C does, at its first checkpoint: with that, or without."""

    def stop(saved: Callable[..., None], *arguments: Any) -> None:
        if keep:
            saved(*arguments)
        raise KeyboardInterrupt

    plan = plan_chain(chain, place.store)
    parent = find_record(place.store, plan.steps[0].key)
    workers.runtime = replace(RUNTIME, checkpoint_every=0)
    with saving(stop):
        _expect(KeyboardInterrupt, lambda: ensure_step(plan.steps[1], plan, place, parent))
    workers.runtime = RUNTIME


def look_closer(store: Store, chain: Chain, place: Place) -> None:
    """Score a chain's last step smaller, probe it against step 0, train its classifier anew, and keep the analysis."""
    plan = plan_chain(chain, store)
    record = find_record(store, plan.steps[1].key)
    assert record is not None
    smaller = Scoring("digits", plan.manifest, "val", EvaluationConfig(short_side=48, crop=48))
    ensure_evaluation(record, plan.source("val"), smaller, place)
    result = ensure_chain(plan, place)
    asked = (
        *(Stitching(cut=cut, joint="least_squares", images=8) for cut in ("stem", "head")),
        Similarity(cut="head", images=8),
        Bias(images=8),
    )
    answers = probes.ensure_answers(result.steps[0], result.steps[1], asked, place)
    anew = retraining.ensure_retrained(result, result.steps[1], place)
    publish_analysis(store, result, (0, 1), answers, anew)


def _expect(error: type[BaseException], work: Callable[[], object]) -> None:
    try:
        work()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


def read(store: Store) -> dict[str, Any]:
    """What version 0.1.0 reads from the store."""
    campaign = find_campaign(store, "fixture_campaign")
    assert campaign is not None
    return {
        "made_by": "0.1.0",
        "encoder_channels": Tiny.channels,
        "dataset": resolve(store, "digits")[0],
        "chains": {name: chain_numbers(store, record) for name, record in _chains(store).items()},
        "campaign": campaign_numbers(store, campaign.campaign) | {"key": campaign.key},
        "report": {"chains": ["wilson alpha=0.5 seed=1", "finetuning"], "table_md": report_tables(store)},
        "leftovers": [each._asdict() for each in leftovers(store, grace=timedelta(0))],
        "leftovers_unfinished": [each._asdict() for each in leftovers(store, unfinished=True, grace=timedelta(0))],
        "selections": {key: load_lists(store, key.split("/")[1].split(".")[0]) for key in store.list("selections/")},
        "analyses": {
            record.key: {"chain": record.chain, "sentences": list(sentences(load_analysis(store, record)))}
            for record in recorded_analyses(store)
        },
    }


def _chains(store: Store) -> dict[str, ChainRecord]:
    records = [ChainRecord.model_validate_json(store.read(key)) for key in store.list("chains/")]
    return {record.chain["name"]: record for record in sorted(records, key=lambda record: record.chain["name"])}


def chain_numbers(store: Store, record: ChainRecord) -> dict[str, Any]:
    """A chain's keys, as recorded and as its document is planned now, and its scores after each step."""
    (result,) = load_chains(store, [record])
    planned = plan_chain(Chain.model_validate(record.chain), store)
    return {
        "key": record.key,
        "steps": list(record.steps),
        "planned_steps": [step.key for step in planned.steps],
        "evaluations": list(record.evaluations),
        "scores": {
            convention.name: [scores.model_dump(mode="json") for scores in result.scores(convention)]
            for convention in CONVENTIONS
        },
        "continual": {convention.name: result.continual(convention).model_dump(mode="json") for convention in CONVENTIONS},
    }


def campaign_numbers(store: Store, campaign: Campaign) -> dict[str, Any]:
    """A campaign's tables, its plan, and how its steps stand (the lease in it never expires)."""
    tree = campaign_tree(campaign, store)
    standings = survey(tree, store)
    plan = make_plan(campaign, Part(), StoreOptions(store.uri), Request(), None, store)
    return {
        "csv": {
            convention.name: to_csv(campaign_table(tree, standings, store, campaign.paper, convention))
            for convention in CONVENTIONS
        },
        "plan_document": plan_document(plan),
        "status": {each.key: each.state for each in campaign_status(tree, standings, store)},
        "leases": {key: lease.owner for key in tree.nodes if (lease := read_lease(store, key))},
    }


def report_tables(store: Store) -> dict[str, str]:
    """The text of table.md of two chains side by side, by convention."""
    records = _chains(store)
    results = load_chains(store, [records["wilson alpha=0.5 seed=1"], records["finetuning"]])
    return {
        convention.name: "\n".join(to_markdown(table) for table in build_report(results, convention, ()).tables)
        for convention in CONVENTIONS
    }


def main(folder: str, expected: str) -> None:
    with TemporaryDirectory() as cache:
        workers = isolate(cache)
        store = open_store(folder)
        if Path(folder).exists():
            shutil.rmtree(folder)
        fill(store, workers)
        Path(expected).write_text(json.dumps(read(store), ensure_ascii=False, indent=1) + "\n")
    shutil.rmtree(Path(folder, ".tmp"), ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
