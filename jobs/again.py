"""Train a published step again on purpose: `python -m jobs.train --retrain STEP`.

STEP is a step's key, the beginning of one, or CHAIN:INDEX with a chain's name, such as
`digits_wilson:1`. The other attempt starts from nothing and lies beside the published one, which
stays. What differs is printed, and written beside the step's record.
"""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.options import StoreOptions
from orchestrator.cluster.give import step_kind
from orchestrator.cluster.resources import Request, check_steps


@dataclass(frozen=True)
class AgainOptions(StoreOptions):
    """Which step is trained again, and by what."""

    retrain: Annotated[str, tyro.conf.arg(metavar="STEP")] = tyro.MISSING
    """The published step."""
    request: Annotated[Request, tyro.conf.arg(name="")] = field(default_factory=Request)


def retrain(options: AgainOptions) -> None:
    """Train the step again, compare both attempts, and print what differs."""
    from jobs.console import open_console
    from jobs.machines import check_machines
    from orchestrator.execution.context import RunContext
    from orchestrator.execution.reproduce import plan_again, reproduce
    from orchestrator.planning.memory import memory_needs
    from orchestrator.records.repository import Repository
    from orchestrator.store.base import check_writable

    console = open_console()
    store = options.open_existing()
    repository = Repository(store)
    record = repository.step_by_name(options.retrain)
    planned, plan = plan_again(record, repository)
    check_steps(options.request, [(step_kind(planned.index), planned.step.optimization.batch)])
    check_writable(store)
    context = RunContext(store, options.request, console)
    needs = memory_needs([planned], options.request)
    told = ", ".join(map(str, needs))
    console.print(f"{planned.title} ({planned.key}) is trained again; {told}", markup=False)
    check_machines(needs, context)
    found = reproduce(planned, plan, record, context)
    console.print(f"{planned.title}: {found}", markup=False, highlight=False, soft_wrap=True)


def parse_again(arguments: list[str]) -> AgainOptions:
    """Read the command line. Raise SystemExit for a wrong option; tyro has printed why."""
    return tyro.cli(AgainOptions, prog="jobs.train", description=__doc__, args=arguments)
