"""Record in the store what a campaign asks for.

A chain's record does not name the campaigns that want the chain. A campaign's record holds its
question, the documents of its chains as they were planned, and which published numbers belong to
them. So its table, its page and its run in MLflow can be made again from the store, without the
campaign's file. The results are in the records of the chains' steps.
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
        """Return the campaign as it was recorded.

        Raise InputError for published numbers that this version does not know.
        """
        chains = tuple(Chain.model_validate(chain) for chain in self.chains)
        return Campaign(
            self.name, self.question, chains, tuple(Expected(**fields) for fields in self.paper)
        )


def publish_campaign(store: Store, campaign: Campaign) -> CampaignRecord:
    """Write the record of a campaign unless it exists; return the one that was written first."""
    record = campaign_record(campaign)
    return publish_record(store, layout.campaign_record(record.key), record)


def campaign_record(campaign: Campaign) -> CampaignRecord:
    """Return the record of a campaign as of now. The time is no part of its key."""
    name = campaign.name
    question = campaign.question
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
    """Return the records of all campaigns, the oldest first."""
    found = Repository(store).documents(store.list(layout.CAMPAIGNS), CampaignRecord)
    return sorted(found, key=lambda record: record.created)


def find_campaign(store: Store, wanted: str) -> CampaignRecord | None:
    """Return the newest record of that name, or the one with that key; None if there is none."""
    found = [record for record in recorded_campaigns(store) if wanted in (record.name, record.key)]
    return found[-1] if found else None


def campaign_tree(campaign: Campaign, store: Store) -> StepTree:
    """Return the campaign's steps, planned over the datasets of the store.

    Raise InputError if a dataset does not exist.
    """
    planner = Planner(store)
    return build_tree([planner.plan(chain) for chain in campaign.chains])
