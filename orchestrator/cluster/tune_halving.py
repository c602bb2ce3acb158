"""Stop chains by ASHA, Ray Tune's asynchronous successive halving, after the steps' scores.

Tune's scheduler sees one trial for each chain, whose results are the scores of its steps. The
trials that Tune runs are single steps (`ray_tune`), so the scheduler is asked here, not by Tune.
"""

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler


class Halving:
    """Decides after a step whether a chain is among the best share of those that came as far."""

    def __init__(self, factor: float) -> None:
        """Begin without scores. `factor`: one in so many chains is continued at each rung."""
        self._scheduler = ASHAScheduler(
            time_attr="step",
            metric="miou",
            mode="max",
            max_t=10**6,  # of steps, which no chain has
            grace_period=1,  # chains share step 0, so their first scores of their own are after 1
            reduction_factor=factor,
        )
        self._known: set[str] = set()

    def stops(self, chain: str, step: int, score: float) -> bool:
        """Return whether a chain is stopped after a step with this mIoU, 0 to 1.

        The rungs are steps 1, `factor`, `factor`² and so on.
        """
        # ASHA reads nothing of a trial but its id, and nothing of Tune's controller.
        trial: Any = SimpleNamespace(trial_id=chain)
        controller: Any = None
        if chain not in self._known:
            self._known.add(chain)
            self._scheduler.on_trial_add(controller, trial)
        result = {"step": step, "miou": score}
        decision = self._scheduler.on_trial_result(controller, trial, result)
        return decision == TrialScheduler.STOP
