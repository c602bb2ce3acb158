"""Define the options of the campaign commands."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from jobs.options import check_number
from training.config import InputError

if TYPE_CHECKING:
    from orchestrator.campaigns.limits import Limits


@dataclass(frozen=True)
class ChainFilter:
    """The chains and steps of a campaign that a command is about; by default all of them."""

    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only chains whose name, or a word of it, matches: `alpha=0.5`, `wilson*`. Given several
    times, chains that match any of the patterns."""
    until_step: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only steps 0 to N of each chain."""


@dataclass(frozen=True)
class Spending:
    """How much a run may do."""

    max_gpu_hours: float | None = None
    """Begin no step that would take this run beyond. Without GPUs, count hours of workers. Another
    run continues the campaign."""
    max_concurrent: int | None = None
    """Train at most this many steps at once; by default as many as the cluster holds."""
    retries: int = 1
    """How often a step that fails is tried again. Then only the steps that depend on it are left
    out."""
    stop_behind: float | None = None
    """Do not continue a chain that is this many points of mIoU behind the best at the same step.
    It biases an ablation's table, because a variant that learns slowly never catches up. So it is
    off by default."""
    asha: float | None = None
    """Continue only one in so many chains, the best after steps 1, ASHA, ASHA² and so on (Ray
    Tune's asynchronous successive halving). Stopped chains have no last score, so the table shows
    those that learn fast, and its means are over fewer seeds. So it is off by default."""

    def limits(self) -> "Limits":
        """Return the limits of a run. Raise InputError for a value that makes no sense."""
        from orchestrator.campaigns.limits import Limits

        check_number("max-gpu-hours", self.max_gpu_hours, 0)
        check_number("max-concurrent", self.max_concurrent, 1)
        check_number("retries", self.retries, 0)
        check_number("stop-behind", self.stop_behind, 0)
        check_number("asha", self.asha, 1.01)
        if self.asha is not None and self.stop_behind is not None:
            raise InputError("give either --asha or --stop-behind: one rule stops chains")
        behind = None if self.stop_behind is None else self.stop_behind / 100
        return Limits(self.max_gpu_hours, self.max_concurrent, self.retries, behind, self.asha)
