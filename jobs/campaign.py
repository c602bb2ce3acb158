"""Plan, run and watch a campaign: `python -m jobs.campaign plan|run|status|table CAMPAIGN`, and `prune` what it left behind.

CAMPAIGN is the name of one that ships (jobs/campaigns) or the path of a Python file with a docstring and a function chains().
A step that several chains want is trained once; what is published is used as it is, so running a campaign again goes on where
it stopped, and costs nothing once it is done. Exit codes: 0 everything asked for is published, 1 something failed or was not
run, 2 the input cannot be used, 130 interrupted.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jobs.campaign_file import load_campaign
from jobs.campaign_plan import plan_document, show_plan
from jobs.errors import user_errors
from jobs.options import StoreOptions, with_weights
from jobs.report import CONVENTIONS
from orchestrator.campaign import Campaign
from orchestrator.campaign_table import campaign_table
from orchestrator.chain import Chain
from orchestrator.costs import bill, measure, past_records
from orchestrator.planner import Planner
from orchestrator.prune import delete, leftovers
from orchestrator.resources import Request
from orchestrator.status import campaign_status, status_table
from orchestrator.store import DEFAULT_STORE, Store, check_writable, open_store
from orchestrator.survey import survey
from orchestrator.tables import to_csv, to_json, to_markdown, to_terminal
from orchestrator.tree import Tree, first_steps, grow
from training.config import InputError

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Part:
    """Which part of a campaign is meant; by default all of it."""

    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only chains whose name, or a word of it, matches: `alpha=0.5`, `wilson*`. Repeated, chains that match any."""
    until_step: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only steps 0 to N of each chain."""


def plan(
    campaign: tyro.conf.Positional[str],
    part: Annotated[Part, tyro.conf.arg(name="")] = Part(),
    options: Annotated[StoreOptions, tyro.conf.arg(name="")] = StoreOptions(),  # noqa: B008
    request: Annotated[Request, tyro.conf.arg(name="")] = Request(),  # noqa: B008
    images_per_second: float | None = None,
    as_json: Json = False,
) -> None:
    """Print the campaign's steps, which of them are published, and what the others cost; starts nothing.

    Args:
        campaign: Name of a campaign, or path of a file.
        images_per_second: What one worker trains on, where no past record of the store tells.
        as_json: Print one JSON document and nothing else.
    """
    store = open_store(options.store)
    wanted = load_campaign(campaign)
    tree = planned_tree(wanted, part, options, store)
    standings = survey(tree, store)
    costs = measure(past_records(store, standings), request, images_per_second)
    total = bill(tree, standings, costs)
    if as_json:
        print(json.dumps(plan_document(wanted, tree, standings, costs, total), ensure_ascii=False, indent=1))
    else:
        show_plan(wanted, tree, standings, costs, total, _console())


def status(
    campaign: tyro.conf.Positional[str],
    part: Annotated[Part, tyro.conf.arg(name="")] = Part(),
    options: Annotated[StoreOptions, tyro.conf.arg(name="")] = StoreOptions(),  # noqa: B008
    as_json: Json = False,
) -> None:
    """Print what is published, what is running where and how far, and what failed why, whoever runs the campaign.

    Args:
        campaign: Name of a campaign, or path of a file.
        as_json: Print one JSON document and nothing else.
    """
    store = open_store(options.store)
    tree = planned_tree(load_campaign(campaign), part, options, store)
    statuses = campaign_status(tree, survey(tree, store), store)
    if as_json:
        print(json.dumps([each._asdict() for each in statuses], ensure_ascii=False, indent=1))
    else:
        _console().print(status_table(statuses))


def table(
    campaign: tyro.conf.Positional[str],
    part: Annotated[Part, tyro.conf.arg(name="")] = Part(),
    options: Annotated[StoreOptions, tyro.conf.arg(name="")] = StoreOptions(),  # noqa: B008
    convention: Literal["wilson", "mib", "plop"] = "wilson",
    format: Literal["terminal", "markdown", "csv", "json"] = "terminal",
) -> None:
    """Print the scores so far: a row for each variant, its seeds averaged, with the papers' numbers beside it.

    Args:
        campaign: Name of a campaign, or path of a file.
        convention: Whose way of counting void, future classes and background.
        format: How to print it.
    """
    store = open_store(options.store)
    wanted = load_campaign(campaign)
    tree = planned_tree(wanted, part, options, store)
    scores = campaign_table(tree, survey(tree, store), store, wanted.paper, CONVENTIONS[convention]())
    console = _console()
    match format:
        case "terminal":
            console.print(*to_terminal(scores, console.width), scores.caption, sep="\n")
        case "markdown":
            print(to_markdown(scores))
        case "csv":
            print(to_csv(scores), end="")
        case "json":
            print(json.dumps(to_json(scores), ensure_ascii=False, indent=1))


def prune(
    store: str = DEFAULT_STORE,
    delete_them: Annotated[bool, tyro.conf.arg(name="delete"), tyro.conf.FlagCreatePairsOff] = False,
    unfinished: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    grace_hours: float = 24,
) -> None:
    """List what nobody needs any more: attempts that no record names, checkpoints of published steps. Deletes when asked to.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        delete_them: Delete what is listed.
        unfinished: Also the newest checkpoints of steps that are not published: what they cost must be trained again.
        grace_hours: Leave alone whatever was touched in the last hours.
    """
    opened, grace = open_store(store), timedelta(hours=grace_hours)
    found = leftovers(opened, unfinished=unfinished, grace=grace)
    if delete_them:
        check_writable(opened)
        found = tuple(delete(opened, found, unfinished=unfinished, grace=grace))
    for each in found:
        print(f"{each.folder}  {each.bytes / 1e6:,.1f} MB  {each.reason}")
    total = sum(each.bytes for each in found) / 1e6
    print(f"{len(found)} folders, {total:,.1f} MB {'deleted' if delete_them else 'can go; delete them with --delete'}")


def planned_tree(campaign: Campaign, part: Part, options: StoreOptions, store: Store) -> Tree:
    """The tree of the campaign's chains, or of the part that is meant; all that can be refused is refused here."""
    if part.until_step is not None and part.until_step < 0:
        raise InputError(f"--until-step counts from step 0, and {part.until_step} comes before it")
    planner = Planner(store)
    chains = with_weights(chosen(campaign, part.only), options.encoder_weights, store)
    return grow([first_steps(planner.plan(chain), part.until_step) for chain in chains])


def chosen(campaign: Campaign, patterns: Sequence[str]) -> tuple[Chain, ...]:
    """The chains whose name, or a word of it, matches one of the patterns; all of them when there are no patterns.

    Raises InputError for a pattern that matches nothing.
    """
    matching: dict[str, Chain] = {}
    for pattern in patterns:
        found = [chain for chain in campaign.chains if _matches(chain.name, pattern)]
        if not found:
            names = ", ".join(repr(chain.name) for chain in campaign.chains[:4])
            raise InputError(f"--only {pattern!r} matches no chain of {campaign.name!r}, whose chains are called {names} ...")
        matching |= {chain.name: chain for chain in found}
    return tuple(chain for chain in campaign.chains if chain.name in matching) if patterns else campaign.chains


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(text, pattern) for text in (name, *name.split()))


def _console() -> Console:
    return Console(highlight=False, markup=False)


COMMANDS = {"plan": plan, "status": status, "table": table, "prune": prune}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m jobs.campaign", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
