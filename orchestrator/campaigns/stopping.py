"""Decide by the scores of steps which chains of a campaign are not continued."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from orchestrator.campaigns.limits import Limits
from orchestrator.planning.step_tree import Node
from orchestrator.planning.store_state import StoredStep
from orchestrator.records.repository import Repository
from orchestrator.records.verdicts import Verdict, find_verdicts, publish_verdict

if TYPE_CHECKING:
    from orchestrator.cluster.tune_halving import Halving


class StoppingRule(Protocol):
    """Judges chains, each by the scores that were judged before."""

    @property
    def name(self) -> str:
        """Return the rule and its number. Verdicts are kept under it."""
        ...

    def reason_to_stop(self, node: Node, score: float) -> str:
        """Return why the chain of a published step is not continued, or "" if it is."""
        ...


class Stopping:
    """The verdicts on a campaign's chains: those in the store, then new ones of the rule."""

    def __init__(
        self,
        rule: StoppingRule,
        campaign: str,
        repository: Repository,
        score: Callable[[Node], float | None],
    ) -> None:
        """Read the verdicts so far.

        Args:
            rule: Judges the chains that have none.
            campaign: Name of the campaign.
            repository: The records.
            score: Returns the mIoU of a published step, 0 to 1.

        Raises:
            StoreError: The store does not answer.
        """
        self._rule = rule
        self._campaign = campaign
        self._repository = repository
        self._score = score
        self._known = dict(find_verdicts(repository, campaign, rule.name))

    def reason(self, node: Node) -> str:
        """Return why the chain of a published step is not continued, or "" if it is.

        Raises:
            StoreError: The score cannot be read, or the verdict cannot be written.
        """
        if not node.children:
            return ""
        verdict = self._known.get(node.key)
        score = verdict.score if verdict else self._score(node)
        if score is None:
            return ""
        # The rule learns from scores that were judged before, too.
        reason = self._rule.reason_to_stop(node, score)
        if verdict is None:
            verdict = Verdict(
                campaign=self._campaign,
                rule=self._rule.name,
                step=node.key,
                chain=node.plan.chain.name,
                score=score,
                reason=reason,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            verdict = publish_verdict(self._repository.store, verdict)
            self._known[node.key] = verdict
        return verdict.reason


def in_order_of_publication(nodes: Iterable[Node], stored: Mapping[str, StoredStep]) -> list[Node]:
    """Return the published ones of some nodes as a run saw them that trained all of them."""
    published = []
    for node in nodes:
        if record := stored[node.key].record:
            published.append((record.provenance.created, node))
    return [node for _, node in sorted(published, key=lambda each: each[0])]


def stopping_rule(limits: Limits) -> StoppingRule | None:
    """Return the rule that the limits ask for, None if they ask for none."""
    if limits.asha is not None:
        return SuccessiveHalving(limits.asha)
    return None if limits.stop_behind is None else BestScores(limits.stop_behind)


class SuccessiveHalving:
    """Continues the best share of the chains that have come as far, as ASHA does."""

    def __init__(self, factor: float) -> None:
        """Begin without scores. `factor`: one in so many chains is continued."""
        self._factor = factor
        # By what makes scores comparable.
        self._halvings: dict[object, Halving] = {}

    @property
    def name(self) -> str:
        """Return the rule and its factor."""
        return f"asha {self._factor:g}"

    def reason_to_stop(self, node: Node, score: float) -> str:
        """Return why the chain of a published step is not continued, or "" if it is."""
        # Only those who ask for it wait for Ray Tune's import.
        from orchestrator.cluster.tune_halving import Halving

        chain = node.plan.chain
        comparable = chain.scenario, node.plan.manifest_digest, chain.evaluation
        halving = self._halvings.setdefault(comparable, Halving(self._factor))
        if not halving.stops(str(node.chains[0]), node.planned.index, score):
            return ""
        return (
            f"not among the best 1 in {self._factor:g} chains that came as far "
            f"({100 * score:.1f} mIoU after step {node.planned.index})"
        )


class BestScores:
    """The best score after each step, and which chains are too far behind it."""

    def __init__(self, margin: float) -> None:
        """Begin without scores. `margin`: mIoU, 0 to 1, that a chain may be behind."""
        self._margin = margin
        # The best score and the name of its chain, by what makes scores comparable.
        self._best: dict[object, tuple[float, str]] = {}

    @property
    def name(self) -> str:
        """Return the rule and its margin in points of mIoU."""
        return f"stop-behind {100 * self._margin:g}"

    def reason_to_stop(self, node: Node, score: float) -> str:
        """Compare a published step with the best one.

        Return why its chain is not continued, or "" if it is.
        """
        config = node.plan.chain.evaluation
        comparable = (node.planned.step.task.groups, node.plan.manifest_digest, config)
        best, name = self._best.get(comparable, (score, ""))
        if score >= best:
            self._best[comparable] = score, node.plan.chain.name
            return ""
        if best - score <= self._margin:
            return ""
        behind = f"{100 * (best - score):.1f} points of mIoU behind {name!r}"
        return f"{behind} after step {node.planned.index}"
