"""Train a chain, or the steps of it that are not published yet: `python -m jobs.train PRESET`.

A preset (stepchain/presets.py) is where a chain starts from. Every field of it is an option:
`--method.alpha 0.7`, `--scenario.setting disjoint`. `python -m jobs.train PRESET --help` lists
them. Everything that can be checked is checked before training starts. Published steps are used as
they are, so the same command again takes seconds.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jobs.errors import user_errors
from jobs.options import JobOptions
from orchestrator.cluster.resources import Request, check_batches
from training.config import Document, InputError

if TYPE_CHECKING:
    from rich.console import Console
    from tyro.constructors import ConstructorRegistry

    from orchestrator.planning.chain import Chain
    from orchestrator.planning.planner import PlannedChain
    from orchestrator.store.base import Store


@dataclass(frozen=True)
class Options(JobOptions):
    """Everything that is no part of the chain, and so of no key."""

    groups: tuple[str, ...] | None = None
    """Class names of each step, separated by commas, steps by spaces: cat,horse,sofa cow,dog."""
    split: str | None = None
    """Groups by number, over the dataset's classes in order: 15-5 is 15 classes, then 5 at a time;
    or coco-voc."""
    selections: Path | None = None
    """Folder with lists of each step's training images, train-0.npy or .txt and so on, instead of a
    setting's rule."""


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: a preset, then options."""
    preset, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if preset in ("", "-h", "--help"):
        _print_presets()
        return
    train(*parse(preset, rest))


def train(chain: "Chain", options: Options) -> None:
    """Train what is not published of a chain, and print its scores."""
    from jobs.console import open_console
    from jobs.tables import print_classes
    from orchestrator.execution.context import RunContext
    from orchestrator.execution.ensure import ensure_chain
    from orchestrator.planning.planner import plan_chain
    from orchestrator.records.store_version import prepare_store
    from training.metrics import wilson

    console = open_console()
    store = options.open()
    prepare_store(store)
    plan = plan_chain(complete(chain, options, store), store)
    batches = [planned.step.optimization.batch for planned in plan.steps]
    check_batches(options.request.workers, batches)
    options.announce(store, console)
    print_plan(plan, store, console)
    tracker = options.tracker(store)
    with tracker or nullcontext():
        retries = options.retries
        context = RunContext(store, options.request, console, tracker, retries=retries)
        result = ensure_chain(plan, context)
    print_classes([result], wilson(), console)


def parse(preset: str, arguments: Sequence[str]) -> tuple["Chain", Options]:
    """Return the preset with its fields overridden, and the other options.

    Args:
        preset: Name of the preset; dashes stand for underscores.
        arguments: Options, as on the command line.

    Raises:
        InputError: There is no such preset.
        SystemExit: An option is wrong; tyro has printed why.
    """
    from orchestrator.planning.chain import Chain
    from stepchain.presets import PRESETS

    name = preset.replace("-", "_")
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PRESETS)}"
        raise InputError(f"there is no preset {preset!r}: {advice}")
    start = _with_own_types(PRESETS[name]())
    flat = tyro.conf.arg(name="")
    both: Any = tuple[Annotated[type(start), flat], Annotated[Options, flat]]
    parsed, options = tyro.cli(
        both,
        default=(start, Options()),
        args=arguments,
        prog=f"jobs.train {name}",
        description=PRESETS[name].__doc__,
        registry=_unchecked(),
    )
    request = Request.model_validate(options.request.model_dump())
    return Chain.model_validate(parsed.model_dump()), replace(options, request=request)


def _with_own_types(chain: "Chain") -> "Chain":
    """Return the chain as a document whose types tyro can read.

    Its fields for methods have the types of the chain's own methods. The groups, a list of lists,
    are left to the option --groups.
    """
    from pydantic import create_model

    from orchestrator.planning.chain import Base, Chain
    from training.scenario import Scenario

    hidden = tyro.conf.Suppress[Any]
    groups: Any = (hidden, chain.scenario.groups)
    scenario_type: Any = create_model("Scenario", __base__=Scenario, groups=groups)
    base_type: Any = create_model("Base", __base__=Base, method=(type(chain.base.method), ...))
    chain_type: Any = create_model(
        "Chain",
        __base__=Chain,
        scenario=(scenario_type, ...),
        base=(base_type, ...),
        method=(type(chain.method), ...),
    )
    fields = dict(chain)
    fields["scenario"] = scenario_type(**dict(chain.scenario))
    fields["base"] = base_type(**dict(chain.base))
    return chain_type(**fields)


def _unchecked() -> "ConstructorRegistry":
    """Return rules that let tyro collect the fields of documents without checking them.

    Checked together afterwards, the fields give messages that state plainly what is wrong.
    """
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

    registry = ConstructorRegistry()
    asked: list[StructTypeInfo] = []

    @registry.struct_rule
    def collect(info: StructTypeInfo) -> StructConstructorSpec | None:
        is_document = isinstance(info.type, type) and issubclass(info.type, Document)
        if info in asked or not is_document:
            return None  # leaves it to tyro's own rules
        asked.append(info)
        found = ConstructorRegistry.get_struct_spec(info)
        asked.pop()
        if not isinstance(found, StructConstructorSpec):
            return None
        return replace(found, instantiate=info.type.model_construct)

    return registry


def complete(chain: "Chain", options: Options, store: "Store") -> "Chain":
    """Return the chain with the groups, lists and encoder weights that the options name.

    Lists and weights are checked and stored.
    """
    from orchestrator.datasets.catalog import resolve
    from orchestrator.datasets.image_lists import publish_selections
    from orchestrator.planning.campaign import with_field
    from training.scenario import split_groups

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
    if options.encoder_weights:
        # Checking weights imports torch.
        from orchestrator.datasets.pretrained import publish_weights

        digest = publish_weights(store, options.encoder_weights, chain.model)
        chain = with_field(chain, "model.weights", digest)
    return chain


def print_plan(plan: "PlannedChain", store: "Store", console: "Console") -> None:
    """Print the steps of a chain, and which of them are published already."""
    from rich.table import Table

    from orchestrator.records.repository import Repository

    title = f"{plan.chain.name}: {plan.chain.scenario.title}"
    table = Table("step", "key", "images", "iterations", "", title=title, title_justify="left")
    repository = Repository(store)
    for step in plan.steps:
        state = "to train" if repository.find_step(step.key) is None else "published"
        table.add_row(step.title, step.key, str(len(step.rows)), str(step.iterations), state)
    console.print(table)
    model = plan.chain.model
    if model.weights is None and model.encoder != "tiny":
        console.print(
            "The encoder starts from random weights; "
            "--encoder-weights PATH gives it pretrained ones."
        )


def _print_presets() -> None:
    """Print the presets that there are."""
    from stepchain.presets import PRESETS

    print(__doc__)
    print("Presets:")
    for name, preset in PRESETS.items():
        print(f"  {name:20}{preset.__doc__}")


if __name__ == "__main__":
    main()
