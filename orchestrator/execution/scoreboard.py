"""Score published steps for people, and report what is published to the tracker.

A job that trains one chain and a campaign that trains many do both alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestrator.execution.context import Tracker
from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_step
from orchestrator.records.schema import EvaluationRecord, StepRecord
from orchestrator.store.base import NotFound
from training.config import EvaluationConfig
from training.metrics import Convention, Scores


class ScoredStep(NamedTuple):
    """A published step with its evaluation and scores."""

    record: StepRecord
    evaluation: EvaluationRecord
    scores: Scores


class Scoreboard:
    """Scores published steps under one convention, each once."""

    def __init__(self, repository: Repository, convention: Convention) -> None:
        self.repository = repository
        self.convention = convention
        self._found: dict[
            tuple[str, str, EvaluationConfig, tuple[tuple[str, ...], ...]], ScoredStep
        ] = {}

    def find(self, plan: PlannedChain, key: str) -> ScoredStep:
        """Return how a step of this chain scored.

        Raises:
            NotFound: The step is not published, or not scored yet.
            StoreError: The store does not answer.
        """
        groups = plan.chain.scenario.groups
        asked = key, plan.manifest_digest, plan.chain.evaluation, groups
        if asked not in self._found:
            record = self.repository.step(key)
            evaluation = self.repository.find_evaluation(record, plan.scoring)
            if evaluation is None:
                raise NotFound(layout.evaluations_folder(key), self.repository.store.uri)
            step = load_step(self.repository, groups, key, evaluation.key, with_curves=False)
            self._found[asked] = ScoredStep(record, evaluation, step.scores(self.convention))
        return self._found[asked]


class Reporter:
    """Reports steps and chains to the tracker. Without a tracker it does nothing."""

    def __init__(self, tracker: Tracker[Any] | None, scoreboard: Scoreboard) -> None:
        self._tracker = tracker
        self._scoreboard = scoreboard
        self._runs: dict[Chain, Any] = {}  # the tracker's handles of chains that were started
        self._reported: set[str] = set()  # published steps

    def chain_run(self, plan: PlannedChain) -> Any:
        """Return the tracker's handle of a chain, which is started when first asked for."""
        if self._tracker and plan.chain not in self._runs:
            self._runs[plan.chain] = self._tracker.chain_started(plan.chain, plan.steps)
        return self._runs.get(plan.chain)

    def step_started(self, plan: PlannedChain, step: PlannedStep) -> None:
        """Report that a step of the chain is about to be trained."""
        if self._tracker:
            self._tracker.step_started(step, plan.source("train"), self.chain_run(plan))

    def step_published(self, plan: PlannedChain, key: str) -> None:
        """Report a published step with its scores and curves, once."""
        if self._tracker is None or key in self._reported:
            return
        record, evaluation, scores = self._scoreboard.find(plan, key)
        curves = self._scoreboard.repository.curves(record)
        run = self.chain_run(plan)
        self._tracker.step_finished(record, scores, evaluation.class_names, curves, run)
        self._reported.add(key)

    def step_failed(self, key: str) -> None:
        """Report that the attempt at a step is over."""
        if self._tracker:
            self._tracker.step_failed(key)

    def chain_progressed(self, plan: PlannedChain, published: Sequence[str]) -> None:
        """Report the scores of a started chain. `published`: its steps so far, in order."""
        if self._tracker and plan.chain in self._runs and published:
            steps = [self._scoreboard.find(plan, key) for key in published]
            self._tracker.chain_progressed(
                self._runs[plan.chain],
                [step.record for step in steps],
                [step.scores for step in steps],
                steps[-1].evaluation.class_names,
            )

    def chain_published(self, plan: PlannedChain, result: ChainResult) -> None:
        """Report a whole chain, and those of its steps that were not reported before."""
        if self._tracker:
            for step in plan.steps:
                self.step_published(plan, step.key)
            self._tracker.chain_finished(result, self._scoreboard.convention)

    def chain_stopped(self, plan: PlannedChain) -> None:
        """Report that a rule does not continue a chain, if it was started."""
        if self._tracker and plan.chain in self._runs:
            self._tracker.chain_stopped(self._runs.pop(plan.chain))

    def chain_failed(self, plan: PlannedChain) -> None:
        """Report that a chain will not be finished, if it was started."""
        if self._tracker and plan.chain in self._runs:
            self._tracker.chain_failed(self._runs.pop(plan.chain))
