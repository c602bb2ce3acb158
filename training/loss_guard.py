"""Find a loss that is not finite before anything is saved, without waiting for a GPU."""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.runtime import Runtime


class LossGuard:
    """Watches the losses of every iteration.

    On a CPU a loss that is not finite raises at once. On a GPU, reading a value would make the host
    wait for the device. The result therefore stays on the device until `check` reads it, which must
    be called before anything is saved. What was trained since the last check is lost then.
    """

    def __init__(self, runtime: Runtime, total: int) -> None:
        self._runtime = runtime
        self._total = total
        self._reads_at_once = runtime.device.type == "cpu"
        # The first iteration with a bad loss, counted from 1; 0 while there is none.
        self._first_bad = torch.zeros((), dtype=torch.long, device=runtime.device)

    def watch(self, losses: Mapping[str, Tensor], iteration: int) -> None:
        """Check the losses of an iteration on all workers.

        Raise FloatingPointError at once on a CPU.
        """
        values = self._runtime.all_sum(torch.stack(list(losses.values())).detach())
        bad = ~values.isfinite().all() & (self._first_bad == 0)
        self._first_bad = torch.where(bad, iteration, self._first_bad)
        if self._reads_at_once and self._first_bad.item():
            self.check({name: loss.item() for name, loss in losses.items()})

    def check(self, losses: Mapping[str, float]) -> None:
        """Raise FloatingPointError if a loss was not finite at any iteration so far.

        The message shows `losses`.
        """
        first = int(self._first_bad.item())
        if first:
            raise FloatingPointError(
                f"the loss is {dict(losses)} at iteration {first} of {self._total}: "
                "lower the learning rates"
            )
