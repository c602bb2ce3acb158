"""Read what each kind of work is given: `increment:gpus=0.25,memory=8`.

Base steps, increments, evaluations and probes need different machines. What a person gives a kind
is part of no key. Steps are trained from what they are given; evaluations and probes that nobody
gave anything to take what docs/cluster.md says.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from training.config import Document, InputError

Kind = Literal["base", "increment", "evaluation", "probe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# How Ray places several workers: on few machines, on many, or only so.
Placement = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
# A custom resource is named resource.NAME.
CUSTOM = "resource."
EXAMPLE = "increment:gpus=0.25,memory=8"


class Give(Document):
    """What one kind of work is given. None: what every kind is given."""

    kind: Kind
    workers: int | None = Field(default=None, ge=1)
    cpus: int | None = Field(default=None, ge=1)  # of each worker, as all below
    gpus: float | None = Field(default=None, ge=0)
    loaders: int | None = Field(default=None, ge=0)
    memory: float | None = Field(default=None, gt=0)  # gigabytes
    accelerator: str | None = None  # Ray's name of a type of GPU, such as A100
    placement: Placement | None = None
    custom: tuple[str, ...] = ()  # NAME=AMOUNT


# What may be given by its name, without those that have a form of their own.
GIFTS = tuple(name for name in Give.model_fields if name not in ("kind", "custom"))


def step_kind(index: int) -> Kind:
    """Return the kind of the step with this number in its chain."""
    return "increment" if index else "base"


def parse_give(text: str) -> Give:
    """Read one kind's gifts, such as `increment:gpus=0.25,memory=8`.

    Raises:
        InputError: There is no such kind or field, or the field cannot have the value.
    """
    kind, colon, rest = text.partition(":")
    given = _given(rest, text)
    if not colon or kind.strip() not in KINDS or not given:
        raise InputError(
            f"{text!r} does not say what a kind of work is given: write {EXAMPLE}, for "
            f"{', '.join(KINDS)}"
        )
    fields: dict[str, Any] = {name: given[name] for name in given if name in GIFTS}
    custom = [f"{name.removeprefix(CUSTOM)}={given[name]}" for name in given if name not in GIFTS]
    parse_custom(custom)
    try:
        return Give.model_validate({"kind": kind.strip(), "custom": custom, **fields})
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{text!r}: {problem['loc'][0]}: {problem['msg']}") from error


def _given(items: str, text: str) -> dict[str, str]:
    """Return the values by name of NAME=VALUE,... of this text. Raise InputError for others."""
    found: dict[str, str] = {}
    for item in filter(None, (each.strip() for each in items.split(","))):
        name, _, value = (part.strip() for part in item.partition("="))
        if not value:
            raise InputError(f"{item!r} of {text!r} has no value: write it as in {EXAMPLE}")
        if name in found:
            raise InputError(f"{text!r} gives {name!r} twice: write it as in {EXAMPLE}")
        if name not in GIFTS and not name.startswith(CUSTOM):
            raise InputError(
                f"{text!r} gives {name!r}, which is none of {', '.join(GIFTS)}; a custom resource "
                f"of Ray is given as {CUSTOM}{name}"
            )
        found[name] = value
    return found


def parse_custom(items: Iterable[str]) -> dict[str, float]:
    """Return custom resources, given as NAME=AMOUNT, by name.

    Raise InputError for one that is none.
    """
    found = {}
    for item in items:
        name, _, amount = item.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            found[name] = 0.0
        if not name or not found[name] > 0:
            raise InputError(
                f"{item!r} is no custom resource of Ray: write its name and an amount above 0, "
                "such as fast_disk=1"
            )
    return found


def gives_of_file(value: object) -> tuple[str, ...]:
    """Return the RESOURCES of a campaign file as texts, as --give takes them.

    Args:
        value: What is given by kind: `{"increment": {"gpus": 0.25, "memory": 8}}`.

    Raises:
        InputError: It is something else, or a gift is none.
    """
    if not isinstance(value, Mapping):
        raise InputError(
            "RESOURCES must say what is given by kind of work, such as "
            f'{{"increment": {{"gpus": 0.25}}}}; it is {value!r:.80}'
        )
    texts = []
    for kind, gifts in value.items():
        if not isinstance(gifts, Mapping):
            raise InputError(f"RESOURCES[{kind!r}] must be a dict, and is {gifts!r:.80}")
        texts.append(f"{kind}:" + ",".join(f"{name}={gift}" for name, gift in gifts.items()))
        parse_give(texts[-1])
    return tuple(texts)
