"""Refuse methods that need what a chain does not give them, or are given what they do not use."""

from orchestrator.planning.chain import Chain
from orchestrator.planning.validation import PlanError
from training.config import MethodConfig, flatten_groups


def check_fields(method: MethodConfig, place: str) -> None:
    """Raise PlanError if a field was set that another field of the method switches off.

    Two such documents would train the same step twice.

    Args:
        method: Of a step.
        place: Where the chain has it: `method` or `base.method`.
    """
    for name, reason in method.unused_fields.items():
        value = getattr(method, name)
        usual = type(method).model_fields[name].default
        if value != usual:
            raise PlanError(
                f"{place}.{name} is {value!r}, and {method.name!r} does not use it, because "
                f"{reason}: leave it out (it is {usual!r} then), or change that"
            )
    for name, value in method:
        if isinstance(value, MethodConfig):
            check_fields(value, f"{place}.{name}")


def check_later_steps(chain: Chain) -> None:
    """Raise PlanError if the method of the later steps cannot work in this chain."""
    _check_importance(chain)
    _check_old_labels(chain)
    _check_reserved(chain)


def _check_importance(chain: Chain) -> None:
    """Raise PlanError if the method needs importance weights that step 0 does not record."""
    if chain.method.needs_importance and not chain.base.method.trains:
        raise PlanError(
            f"{chain.method.name!r} holds on to the weights that mattered before, and an adopted "
            "step does not record which they are: take a method that does without"
        )
    if chain.method.needs_importance and not chain.base.method.records_importance:
        raise PlanError(
            f"{chain.method.name!r} holds on to the weights that mattered before, and step 0 does "
            "not record which they are: set base.method.importance, which changes nothing else "
            "of step 0"
        )


def _check_old_labels(chain: Chain) -> None:
    """Raise PlanError if the scenario offers labels of previous classes and the method is blind."""
    reason = chain.method.blind_to_old_labels
    settings = {
        f"scenario.memory {chain.scenario.memory} brings labels": chain.scenario.memory > 0,
        "scenario.labels seen gives masks": chain.scenario.labels == "seen",
    }
    for offer, given in settings.items():
        if reason and given:
            raise PlanError(
                f"{offer} of previous classes, and {chain.method.name!r} learns nothing from "
                f"them, because {reason}, or leave that field of the scenario as it was"
            )


def _check_reserved(chain: Chain) -> None:
    """Raise PlanError if step 0 does not train the channels that later steps take from it."""
    later = len(flatten_groups(chain.scenario.groups[1:]))
    reserved = chain.base.method.channels_for_later
    if chain.method.needs_reserved and reserved < later:
        advice = (
            "an adopted step has none, so train step 0"
            if not chain.base.method.trains
            else f"set base.method.reserved_channels {later}"
        )
        raise PlanError(
            f"{chain.method.name!r} takes the classifiers of its {later} classes from step 0, "
            f"which trains {reserved} channels for later classes: {advice}"
        )
