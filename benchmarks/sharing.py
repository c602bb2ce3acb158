"""What is saved by training equal steps once: campaigns on digits as they are, and with every chain alone, in one run.

    python benchmarks/sharing.py --train 400 --out build/sharing

Alone means the same chains, made different from each other by a weight decay of step 0 that differs in its twelfth decimal, so
that no step is shared; all else, two steps at a time included, is the same. Prints fits and wall times; the last line is JSON.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ray
import tyro
from rich.console import Console

from jobs.campaigns import SHIPPED
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.run import run_campaign
from orchestrator.cluster.resources import Request
from orchestrator.datasets.ingest import ingest
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign import with_field
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.campaign_record import campaign_tree
from orchestrator.planning.chain import Chain
from orchestrator.planning.cost import Costs
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


def main(
    campaigns: tuple[str, ...] = ("digits_wilson_alpha", "digits_wilson_prior"),
    train: int = 400,
    out: Path = Path("build/sharing"),
    max_concurrent: int = 2,
) -> None:
    """Measure.

    Args:
        campaigns: Names of campaigns on digits.
        train: Scenes to train on.
        out: Folder for the stores; what is published there already is not trained again, so give a new one.
        max_concurrent: Steps at a time, one CPU each.
    """
    chains = [chain for name in campaigns for chain in load_campaign(name, SHIPPED).chains]
    results = {}
    for how, wanted in (
        ("shared", chains),
        ("alone", [alone(chain, number) for number, chain in enumerate(chains)]),
    ):
        tree, store, seconds = run(wanted, out / how, train, max_concurrent)
        fits = sum(len(attempt_names(store, key)) for key in tree.nodes)
        results[how] = {
            "chains": len(chains),
            "steps": len(tree.nodes),
            "fits": fits,
            "seconds": round(seconds, 1),
        }
        print(
            f"{how}: {len(chains)} chains, {len(tree.nodes)} steps, {fits} fits, {seconds:.0f} s",
            flush=True,
        )
        if how == "shared":
            for name in campaigns:
                campaign = replace(load_campaign(name, SHIPPED), paper=())
                part = campaign_tree(campaign, store)
                result = load_campaign_results(campaign, part, Repository(store), wilson())
                print(to_markdown(scores_table(result, mark_best=False)))
    ratio = results["alone"]["seconds"] / results["shared"]["seconds"]
    print(json.dumps({**results, "ratio": round(ratio, 2)}))
    ray.shutdown()


def alone(chain: Chain, number: int) -> Chain:
    """The chain with a step 0 of its own."""
    decay = chain.base.optimization.weight_decay + (number + 1) * 1e-12
    return with_field(chain, "base.optimization.weight_decay", decay)


def run(
    chains: Sequence[Chain], folder: Path, train: int, max_concurrent: int
) -> tuple[StepTree, Store, float]:
    """Run the chains in a new store; returns their tree, the store and the seconds."""
    store = open_store(str(folder / "store"))
    ingest(Digits(seed=0, train=train, val=100), store, "digits")
    tree = build_tree([Planner(store).plan(chain) for chain in chains])
    place = RunContext(store, Request(cpus_per_worker=1), Console(quiet=True))
    begun = time.monotonic()
    outcome = run_campaign(
        "sharing",
        tree,
        look_up_steps(tree, store),
        place,
        Costs(),
        Limits(max_concurrent=max_concurrent),
    )
    assert outcome.complete, outcome.chains
    return tree, store, time.monotonic() - begun


if __name__ == "__main__":
    tyro.cli(main)
