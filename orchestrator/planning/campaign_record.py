"""What a campaign asked for, kept in the store: `campaigns/<key>.json`.

Chains know nothing of the campaign that wants them. Its record holds the question, the chains' documents as they were planned
(with the encoder's weights by digest) and the papers' numbers that belong to them, so that its table, its page and its run in
MLflow can be made again by anybody who has the store and not the campaign's file. What came of it is in the chains' steps.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from orchestrator.planning.campaign import Campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.paper_numbers import Expected
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import StepTree, build_tree
from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.publish import publish_record
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.canonical import digest
from training.config import Document


class CampaignRecord(Document):
    """A question and the chains that answer it."""

    format: int = 1
    key: str
    name: str
    question: str
    chains: tuple[dict[str, Any], ...]  # Chain documents
    paper: tuple[dict[str, Any], ...]  # fields of Expected
    created: str  # UTC, ISO 8601

    @property
    def campaign(self) -> Campaign:
        """What was recorded. Raises InputError for published numbers that are not known any more."""
        chains = tuple(Chain.model_validate(chain) for chain in self.chains)
        return Campaign(
            self.name, self.question, chains, tuple(Expected(**fields) for fields in self.paper)
        )


def publish_campaign(store: Store, campaign: Campaign) -> CampaignRecord:
    """Record what is asked for, its chains as they are planned, with their encoder's weights. Again, nothing changes."""
    record = campaign_record(campaign)
    return publish_record(store, layout.campaign_record(record.key), record)


def campaign_record(campaign: Campaign) -> CampaignRecord:
    """The record of a campaign, as of now. When it was recorded is no part of its key."""
    name, question = campaign.name, campaign.question
    paper = [asdict(each) | {"where": dict(each.where)} for each in campaign.paper]
    return CampaignRecord(
        key=digest(
            {"name": name, "question": question, "chains": list(campaign.chains), "paper": paper}
        )[:KEY_LENGTH],
        name=name,
        question=question,
        chains=tuple(chain.model_dump(mode="json") for chain in campaign.chains),
        paper=tuple(paper),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def recorded_campaigns(store: Store) -> list[CampaignRecord]:
    """All that were recorded, the oldest first."""
    found = Repository(store).documents(store.list(layout.CAMPAIGNS), CampaignRecord)
    return sorted(found, key=lambda record: record.created)


def find_campaign(store: Store, wanted: str) -> CampaignRecord | None:
    """The newest record of that name, or the one with that key; None when there is none."""
    found = [record for record in recorded_campaigns(store) if wanted in (record.name, record.key)]
    return found[-1] if found else None


def campaign_tree(campaign: Campaign, store: Store) -> StepTree:
    """The campaign's steps, planned anew over the datasets of the store. Raises InputError when one is not there."""
    planner = Planner(store)
    return build_tree([planner.plan(chain) for chain in campaign.chains])
