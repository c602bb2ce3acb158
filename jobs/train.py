"""Train a chain, or whatever of it is not published yet: `python -m jobs.train PRESET [--field value ...]`.

A preset (stepchain/presets.py) is where a chain starts from, and every field of it is an option: `--method.alpha 0.7`,
`--scenario.setting disjoint`. `python -m jobs.train PRESET --help` lists them. All that can be checked is checked before
anything is spent. What was published before is used as it is, so the same command again takes seconds.
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import create_model
from rich.console import Console
from rich.table import Table
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from jobs.errors import user_errors
from jobs.options import JobOptions, with_weights
from orchestrator.cluster.resources import Request, check_batches
from orchestrator.datasets.catalog import resolve
from orchestrator.datasets.image_lists import publish_selections
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.planning.campaign import with_field
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import PlannedChain, plan_chain
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult
from orchestrator.report.chain_tables import class_table
from orchestrator.report.render import to_terminal
from orchestrator.store.base import Store, check_writable
from orchestrator.store.open import open_store
from stepchain.presets import PRESETS
from training.config import Document, InputError
from training.metrics import Convention, wilson
from training.scenario import Scenario, split_groups


@dataclass(frozen=True)
class Options(JobOptions):
    """Everything that is no part of the chain, and so of no key."""

    groups: tuple[str, ...] | None = None
    """Class names of each step, separated by commas, steps by spaces: cat,horse,sofa cow,dog."""
    split: str | None = None
    """Groups by number, over the dataset's classes in order: 15-5 is 15 classes, then 5 at a time; or coco-voc."""
    selections: Path | None = None
    """Folder with lists of each step's training images, train-0.npy or .txt and so on, instead of a setting's rule."""


@user_errors()
def main(arguments: list[str]) -> None:
    """The job."""
    preset, *rest = arguments or [""]
    if preset in ("", "-h", "--help"):
        _print_presets()
        return
    chain, options = parse(preset, rest)
    console = Console(highlight=False, markup=False)
    store = open_store(options.store)
    check_writable(store)
    plan = plan_chain(complete(chain, options, store), store)
    check_batches(
        options.request.workers, [planned.step.optimization.batch for planned in plan.steps]
    )
    options.announce(store, console)
    show_plan(plan, store, console)
    tracker = options.tracker(store)
    with tracker or nullcontext():
        result = ensure_chain(
            plan,
            RunContext(
                store, options.request, console, tracker, lease_seconds=options.lease_seconds
            ),
        )
    show_result(result, wilson(), console)


def parse(preset: str, arguments: list[str]) -> tuple[Chain, Options]:
    """The preset with its fields overridden, and the other options. Exits with tyro's message when they are wrong."""
    name = preset.replace("-", "_")
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PRESETS)}"
        raise InputError(f"there is no preset {preset!r}: {advice}")
    default = PRESETS[name]()
    # tyro reads types: give it the preset's own method document, and leave the groups, a list of lists, to --groups.
    scenario: Any = create_model(
        "Scenario", __base__=Scenario, groups=(tyro.conf.Suppress[Any], default.scenario.groups)
    )
    base: Any = create_model("Base", __base__=Base, method=(type(default.base.method), ...))
    chain: Any = create_model(
        "Chain",
        __base__=Chain,
        scenario=(scenario, ...),
        base=(base, ...),
        method=(type(default.method), ...),
    )
    parts = {"scenario": scenario(**dict(default.scenario)), "base": base(**dict(default.base))}
    start = chain(**{**dict(default), **parts})
    both: Any = tuple[
        Annotated[chain, tyro.conf.arg(name="")], Annotated[Options, tyro.conf.arg(name="")]
    ]
    prog, words = f"jobs.train {name}", PRESETS[name].__doc__
    parsed, options = tyro.cli(
        both,
        default=(start, Options()),
        args=arguments,
        prog=prog,
        description=words,
        registry=_unchecked(),
    )
    checked = Request.model_validate(options.request.model_dump())
    return Chain.model_validate(parsed.model_dump()), replace(options, request=checked)


def _unchecked() -> ConstructorRegistry:
    """Has tyro collect the fields of documents without checking them: checked together, they say plainly what is wrong."""
    registry = ConstructorRegistry()
    asked: list[StructTypeInfo] = []

    @registry.struct_rule
    def collect(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info in asked or not (isinstance(info.type, type) and issubclass(info.type, Document)):
            return None  # leaves it to tyro's own rules
        asked.append(info)
        found = ConstructorRegistry.get_struct_spec(info)
        asked.pop()
        return (
            replace(found, instantiate=info.type.model_construct)
            if isinstance(found, StructConstructorSpec)
            else None
        )

    return registry


def complete(chain: Chain, options: Options, store: Store) -> Chain:
    """The chain with the groups, lists and encoder's weights that the options name; these two are checked and stored."""
    if options.groups and options.split:
        raise InputError("give either --groups or --split")
    if options.groups:
        groups = tuple(tuple(filter(None, group.split(","))) for group in options.groups)
        chain = with_field(chain, "scenario.groups", groups)
    if options.split:
        _, manifest = resolve(store, chain.scenario.dataset)
        chain = with_field(chain, "scenario.groups", split_groups(options.split, manifest.classes))
    if options.selections:
        digest = publish_selections(store, options.selections, chain.scenario.dataset)
        chain = with_field(chain, "scenario.selections", digest)
    (chain,) = with_weights([chain], options.encoder_weights, store)
    return chain


def show_plan(plan: PlannedChain, store: Store, console: Console) -> None:
    """Say which steps there are, and which of them are published already."""
    title = f"{plan.chain.name}: {plan.chain.scenario.title}"
    table = Table("step", "key", "images", "iterations", "", title=title, title_justify="left")
    repository = Repository(store)
    for step in plan.steps:
        published = repository.find_step(step.key) is not None
        table.add_row(
            step.title,
            step.key,
            str(len(step.rows)),
            str(step.iterations),
            "published" if published else "to train",
        )
    console.print(table)
    if plan.chain.model.weights is None and plan.chain.model.encoder != "tiny":
        console.print(
            "The encoder starts from random weights; --encoder-weights PATH gives it pretrained ones."
        )


def show_result(result: ChainResult, convention: Convention, console: Console) -> None:
    """Print the table of every class after every step."""
    table = class_table([result], convention)
    for part in to_terminal(table, console.width):
        console.print(part)
    console.print(table.caption)


def _print_presets() -> None:
    print(__doc__)
    print("Presets:")
    for name, preset in PRESETS.items():
        print(f"  {name:20}{preset.__doc__}")


if __name__ == "__main__":
    main(sys.argv[1:])
