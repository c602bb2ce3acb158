"""Train a chain, or the steps of it that are not published yet: `python -m jobs.train PRESET`.

A preset (stepchain/presets.py) is where a chain starts from. Every field of it is an option:
`--method.alpha 0.7`, `--scenario.setting disjoint`. `python -m jobs.train PRESET --help` lists
them. Everything that can be checked is checked before training starts. Published steps are used as
they are, so the same command again takes seconds. `python -m jobs.train --retrain STEP` trains a
published step again beside the first attempt, and compares the two.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jobs.again import parse_again, retrain
from jobs.errors import user_errors
from jobs.open_chain import NewChainOptions, open_chain
from jobs.options import Flag, Questions
from orchestrator.cluster.resources import Request, check_steps
from training.config import Document, InputError

if TYPE_CHECKING:
    from rich.console import Console
    from tyro.constructors import ConstructorRegistry

    from orchestrator.planning.chain import Chain
    from orchestrator.planning.memory import MemoryNeed
    from orchestrator.planning.planner import PlannedChain
    from orchestrator.store.base import Store


@dataclass(frozen=True)
class Options(NewChainOptions):
    """Everything that is no part of the chain, and so of no key."""

    plan: Flag = False
    """Print the plan, and train and write nothing."""
    questions: Annotated[Questions, tyro.conf.arg(name="")] = field(default_factory=Questions)


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: a preset, then options."""
    preset, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if preset in ("", "-h", "--help"):
        _print_presets()
        return
    if preset.partition("=")[0] == "--retrain":
        retrain(parse_again([preset, *rest]))
        return
    train(*parse(preset, rest))


def train(chain: "Chain", options: Options) -> None:
    """Train what is not published of a chain, and print its scores; or only print the plan."""
    from jobs.console import open_console
    from orchestrator.records.store_version import prepare_store

    asked = options.questions
    if (asked.why or asked.verify) and not options.plan:
        raise InputError("--why and --verify are questions to a plan: give --plan, too")
    console = open_console()
    store = options.open_existing()
    if not options.plan:
        prepare_store(store)
    with open_chain(chain, options, store) as opened:
        planned = opened.planner.plan(opened.chain)
        check_steps(options.request, planned.batches)
        if not options.plan:
            opened.publish(store)
    if options.plan:
        show_plan(planned, store, console, options)
    else:
        _train(planned, store, console, options)


def show_plan(plan: "PlannedChain", store: "Store", console: "Console", options: Options) -> None:
    """Print the plan of a chain and the answers to questions. Exit with 1 for damaged files."""
    from jobs.plan_answers import answer
    from orchestrator.planning.nearest_step import describe_nearest
    from orchestrator.planning.step_tree import build_tree
    from orchestrator.planning.store_state import look_up_steps

    print_plan(plan, store, console, options.request)
    tree = build_tree([plan])
    answers = answer(options.questions, tree, look_up_steps(tree, store), store)
    for key, nearest in answers.nearest.items():
        line = f"{tree.nodes[key].planned.title}: {describe_nearest(nearest)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    answers.print_verification(console)
    if answers.damaged:
        raise SystemExit(1)


def _train(plan: "PlannedChain", store: "Store", console: "Console", options: Options) -> None:
    from jobs.machines import check_machines
    from jobs.tables import print_classes
    from orchestrator.execution.context import RunContext
    from orchestrator.execution.ensure import ensure_chain
    from training.metrics import wilson

    options.announce(store, console)
    needs = print_plan(plan, store, console, options.request)
    tracker = options.tracker(store)
    with tracker or nullcontext():
        retries = options.retries
        context = RunContext(store, options.request, console, tracker, retries=retries)
        check_machines(needs, context)
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
    are left to the option --groups, and an architecture of Transformers to its folder.
    """
    from pydantic import create_model

    from orchestrator.planning.chain import Base, Chain
    from training.backbone import Backbone
    from training.config import ModelConfig
    from training.scenario import Scenario

    hidden = tyro.conf.Suppress[Any]
    groups: Any = (hidden, chain.scenario.groups)
    scenario_type: Any = create_model("Scenario", __base__=Scenario, groups=groups)
    backbone = chain.model.backbone
    backbone_type: Any = hidden
    if backbone is not None:
        architecture: Any = (hidden, backbone.architecture)
        backbone_type = create_model("Backbone", __base__=Backbone, architecture=architecture)
        backbone = backbone_type(**dict(backbone))
    model_type: Any = create_model(
        "Model", __base__=ModelConfig, backbone=(backbone_type, backbone)
    )
    base_type: Any = create_model("Base", __base__=Base, method=(type(chain.base.method), ...))
    chain_type: Any = create_model(
        "Chain",
        __base__=Chain,
        scenario=(scenario_type, ...),
        base=(base_type, ...),
        model=(model_type, ...),
        method=(type(chain.method), ...),
    )
    fields = dict(chain)
    fields["scenario"] = scenario_type(**dict(chain.scenario))
    fields["base"] = base_type(**dict(chain.base))
    fields["model"] = model_type(**(dict(chain.model) | {"backbone": backbone}))
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


def print_plan(
    plan: "PlannedChain", store: "Store", console: "Console", request: Request
) -> "tuple[MemoryNeed, ...]":
    """Print the steps of a chain, which are published, and what memory the others need.

    Return these needs.
    """
    from rich.table import Table

    from orchestrator.planning.cost import compilation_advice
    from orchestrator.planning.memory import memory_needs
    from orchestrator.planning.remarks import remarks
    from orchestrator.planning.step_tree import build_tree
    from orchestrator.planning.store_state import look_up_steps

    title = f"{plan.chain.name}: {plan.chain.scenario.title}"
    table = Table("step", "key", "images", "iterations", "", title=title, title_justify="left")
    stored = look_up_steps(build_tree([plan]), store)
    left = [step for step in plan.steps if stored[step.key].record is None]
    for step in plan.steps:
        state = "to train" if step in left else "published"
        if not step.step.method.trains:
            state = "adopted"
        table.add_row(step.title, step.key, str(len(step.rows)), str(step.iterations), state)
    console.print(table)
    needs = memory_needs(left, request)
    for need in needs:
        console.print(str(need))
    if request.compile:
        console.print(compilation_advice())
    model = plan.chain.model
    trains = plan.steps[0].step.method.trains
    if trains and model.weights is None and model.encoder != "tiny":
        console.print(
            "The encoder starts from random weights; "
            "--encoder-weights PATH gives it pretrained ones."
        )
    for remark in remarks(plan.chain):
        console.print(remark, markup=False)
    return needs


def _print_presets() -> None:
    """Print the presets that there are."""
    from stepchain.presets import PRESETS

    print(__doc__)
    print("Presets:")
    for name, preset in PRESETS.items():
        print(f"  {name:20}{preset.__doc__}")


if __name__ == "__main__":
    main()
