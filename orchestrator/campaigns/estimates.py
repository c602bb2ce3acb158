"""Weigh the steps of a running campaign by the time that they are expected to take."""

from collections.abc import Callable, Mapping

from orchestrator.campaigns.outcome import StepOutcome
from orchestrator.campaigns.priority import Job, Schedule, expected_seconds
from orchestrator.planning.cost import Costs, images
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, StoredStep

Estimates = Mapping[str, float | None]  # seconds by step, None where nothing is known


def estimate_steps(
    tree: StepTree,
    stored: Mapping[str, StoredStep],
    outcomes: Mapping[str, StepOutcome],
    costs: Costs,
) -> dict[str, float | None]:
    """Return the seconds that those of the stored steps will take that are left to do."""
    found: dict[str, float | None] = {}
    for key, step in stored.items():
        if step.state == StepState.TO_SCORE:
            found[key] = costs.overhead
        elif not outcomes[key].state.exists:
            found[key] = costs.seconds(tree.nodes[key].planned)
    return found


def to_jobs(tree: StepTree, new: Estimates, estimates: Estimates) -> list[Job]:
    """Return new steps as jobs, weighed by their images if the time of one step is not known.

    Args:
        tree: The steps.
        new: Those that become jobs.
        estimates: All steps that are jobs, the new ones too.
    """
    known = None not in estimates.values()
    jobs = []
    for key, seconds in new.items():
        node = tree.nodes[key]
        weight = seconds if known and seconds is not None else images(node.planned)
        parent = node.parent if node.parent in estimates else None
        jobs.append(Job(key, parent, float(weight)))
    return jobs


def seconds_left(
    schedule: Schedule,
    estimates: Estimates,
    outcomes: Mapping[str, StepOutcome],
    elapsed: Callable[[str], float],
    at_once: int,
) -> float | None:
    """Return the expected time to the end, or None if a step's time is not known.

    Args:
        schedule: The steps to train, which may grow meanwhile.
        estimates: Their expected seconds.
        outcomes: Of all steps.
        elapsed: Returns the seconds since the attempt at a step began.
        at_once: How many steps train at once.
    """
    known = dict(estimates)
    left = (known.keys() & dict(schedule.jobs)) - schedule.done - schedule.dropped
    jobs = []
    for key, seconds in known.items():
        if key not in left:
            continue
        if seconds is None:
            return None
        if outcomes[key].state == StepState.RUNNING:
            seconds = max(0.0, seconds - elapsed(key))
        parent = schedule.jobs[key].parent
        jobs.append(Job(key, parent if parent in left else None, seconds))
    return expected_seconds(Schedule(jobs), at_once)
