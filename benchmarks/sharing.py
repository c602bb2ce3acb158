"""Measure what is saved by training equal steps once.

    python -m benchmarks.sharing [--campaigns NAME ...] [--train 400] [--out build/sharing]

The chains of campaigns on digits run twice, in stores of their own: as they are, and with every
chain alone. Alone means that no step is shared, because the weight decay of each chain's step 0
differs in its twelfth decimal. Everything else is the same, and so are the two steps at a time.

The command prints fits and wall times. Its last line is JSON, and its `ratio` is the wall time of
the chains alone divided by that of the chains that share their steps.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import ray
import tyro
from rich.console import Console

from jobs.campaigns import SHIPPED
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.run import run_campaign
from orchestrator.cluster.resources import Request
from orchestrator.datasets.ingest import ingest
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.campaign_record import campaign_tree
from orchestrator.planning.chain import Chain
from orchestrator.planning.cost import Costs
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import StepTree, build_tree
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records.attempts import attempt_names
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.report.render import to_markdown
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from training.data.digits import Digits
from training.metrics import wilson


class Finished(NamedTuple):
    """Chains that were trained, and how long that took."""

    tree: StepTree
    store: Store
    seconds: float

    @property
    def fits(self) -> int:
        """Return how many attempts to train a step there were."""
        return sum(len(attempt_names(self.store, key)) for key in self.tree.nodes)


def main(
    campaigns: tuple[str, ...] = ("digits_wilson_alpha", "digits_wilson_prior"),
    train: int = 400,
    out: Path = Path("build/sharing"),
    max_concurrent: int = 2,
    seeds: tuple[int, ...] = (42,),
) -> None:
    """Run the campaigns twice, and print how long each run took.

    Args:
        campaigns: Names of campaigns on digits.
        train: Scenes to train on.
        out: A new folder for the stores. Steps that it already holds are not trained again.
        max_concurrent: Steps at a time, one CPU each.
        seeds: Only chains of these seeds.
    """
    loaded = [chain for name in campaigns for chain in load_campaign(name, SHIPPED).chains]
    chains = [chain for chain in loaded if chain.seed in seeds]
    chains_alone = [alone(chain, number) for number, chain in enumerate(chains)]
    results = {}
    for how, wanted in (("shared", chains), ("alone", chains_alone)):
        finished = run(wanted, out / how, train, max_concurrent)
        steps = len(finished.tree.nodes)
        fits = finished.fits
        seconds = round(finished.seconds, 1)
        results[how] = {"chains": len(chains), "steps": steps, "fits": fits, "seconds": seconds}
        counts = f"{len(chains)} chains, {steps} steps, {fits} fits"
        print(f"{how}: {counts}, {seconds:.0f} s", flush=True)
        if how == "shared":
            print_scores(campaigns, finished.store)
    ratio = results["alone"]["seconds"] / results["shared"]["seconds"]
    print(json.dumps({**results, "ratio": round(ratio, 2)}))
    ray.shutdown()


def print_scores(campaigns: Sequence[str], store: Store) -> None:
    """Print each campaign's table of scores."""
    for name in campaigns:
        campaign = replace(load_campaign(name, SHIPPED), paper=())
        tree = campaign_tree(campaign, store)
        result = load_campaign_results(campaign, tree, Repository(store), wilson())
        print(to_markdown(scores_table(result, mark_best=False)))


def alone(chain: Chain, number: int) -> Chain:
    """Return the chain with a step 0 of its own."""
    decay = chain.base.optimization.weight_decay + (number + 1) * 1e-12
    return with_field(chain, "base.optimization.weight_decay", decay)


def run(chains: Sequence[Chain], folder: Path, train: int, max_concurrent: int) -> Finished:
    """Run the chains in a new store."""
    store = open_store(str(folder / "store"))
    ingest(Digits(seed=0, train=train, val=100), store, "digits")
    tree = build_tree([Planner(store).plan(chain) for chain in chains])
    stored = look_up_steps(tree, store)
    context = RunContext(store, Request(cpus_per_worker=1), Console(quiet=True))
    limits = Limits(max_concurrent=max_concurrent)
    begun = time.monotonic()
    outcome = run_campaign("sharing", tree, stored, context, Costs(), limits)
    seconds = time.monotonic() - begun
    assert outcome.complete, outcome.chains
    return Finished(tree, store, seconds)


if __name__ == "__main__":
    tyro.cli(main)
