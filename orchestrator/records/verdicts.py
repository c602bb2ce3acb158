"""Record which chains of a campaign its stopping rule continues, and which it does not.

A rule judges a chain by the scores that it has seen, so another order of the same scores gives
other verdicts. Each verdict is therefore written before it has an effect, and the first one counts:
for the same run after an interruption, for another run at the same time, and for tables.
"""

from collections.abc import Mapping

from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.publish import publish_record
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.canonical import digest
from training.config import Document


class Verdict(Document):
    """Whether the chain of a published step is continued."""

    format: int = 1
    campaign: str  # its name
    rule: str  # asha 3
    step: str  # key of the step after which the chain was judged
    chain: str  # name of the first chain that wants the step
    score: float  # mIoU of all classes after the step, 0 to 1
    reason: str  # why the chain is not continued, "" if it is
    created: str  # UTC, ISO 8601


def publish_verdict(store: Store, verdict: Verdict) -> Verdict:
    """Write a verdict unless there is one; return the one that was written first."""
    name = layout.verdict(_folder(verdict.campaign), verdict.rule, verdict.step)
    return publish_record(store, name, verdict)


def find_verdicts(repository: Repository, campaign: str, rule: str = "") -> Mapping[str, Verdict]:
    """Return the verdicts of a campaign by step: of a rule, or those of any rule that stop chains.

    Args:
        repository: The records.
        campaign: The campaign's name.
        rule: The rule's name; "" means every rule.
    """
    names = repository.store.list(layout.verdict(_folder(campaign), rule))
    found = repository.listed(names, Verdict)
    return {verdict.step: verdict for verdict in found if rule or verdict.reason}


def _folder(campaign: str) -> str:
    """Return what stands for a campaign's name, which may have any characters, in a key."""
    return digest(campaign)[:KEY_LENGTH]
