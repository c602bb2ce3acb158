"""Record in the store what a campaign asks for.

A chain's record does not name the campaigns that want the chain. A campaign's record holds its
question, the documents of its chains as they were planned, and which published numbers belong to
them. So its table, its page and its run in MLflow can be made again from the store, without the
campaign's file. The results are in the records of the chains' steps.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from orchestrator.planning.campaign import Campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.paper_numbers import Expected
from orchestrator.planning.planner import Planner
from orchestrator.planning.search import recorded_samples
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
    chains: tuple[dict[str, Any], ...]  # Chain documents; those of a search are in its samples
    paper: tuple[dict[str, Any], ...]  # fields of Expected
    created: str  # UTC, ISO 8601
    search: str = Field(default="", json_schema_extra={"legacy": ""})
    """Key of the list of samples of a searched campaign."""
    named_by: str = Field(default="", json_schema_extra={"legacy": ""})
    """The searcher and its search spaces, in words."""


def publish_campaign(store: Store, campaign: Campaign) -> CampaignRecord:
    """Write the record of a campaign unless it exists; return the one that was written first."""
    record = campaign_record(campaign)
    return publish_record(store, layout.campaign_record(record.key), record)


def campaign_record(campaign: Campaign) -> CampaignRecord:
    """Return the record of a campaign as of now. The time is no part of its key."""
    name = campaign.name
    question = campaign.question
    paper = [asdict(each) | {"where": dict(each.where)} for each in campaign.paper]
    # The chains of a search become more. Its record stays the same.
    search = campaign.search.key if campaign.search else ""
    chains = () if search else campaign.chains
    asked = {"search": search} if search else {"chains": list(chains)}
    return CampaignRecord(
        key=digest({"name": name, "question": question, "paper": paper, **asked})[:KEY_LENGTH],
        name=name,
        question=question,
        chains=tuple(chain.model_dump(mode="json") for chain in chains),
        paper=tuple(paper),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        search=search,
        named_by=campaign.named_by,
    )


def recorded_campaign(record: CampaignRecord, store: Store) -> Campaign:
    """Return the campaign as it was recorded, with the samples of a search so far.

    Raise InputError for published numbers that this version does not know.
    """
    documents = record.chains
    if record.search:
        samples = recorded_samples(store, record.search)
        documents = tuple(chain for sample in samples for chain in sample.chains)
    # A searcher may name a sample twice.
    chains = dict.fromkeys(Chain.model_validate(document) for document in documents)
    paper = tuple(Expected(**fields) for fields in record.paper)
    return Campaign(record.name, record.question, tuple(chains), paper, named_by=record.named_by)


def recorded_campaigns(store: Store) -> list[CampaignRecord]:
    """Return the records of all campaigns, the oldest first."""
    found = Repository(store).listed(store.list(layout.CAMPAIGNS), CampaignRecord)
    return sorted(found, key=lambda record: record.created)


def find_campaign(store: Store, wanted: str) -> CampaignRecord | None:
    """Return the newest record of that name, or the one with that key; None if there is none."""
    found = [record for record in recorded_campaigns(store) if wanted in (record.name, record.key)]
    return found[-1] if found else None


def campaign_tree(campaign: Campaign, store: Store) -> StepTree:
    """Return the steps of a recorded campaign, planned over the datasets of the store.

    They have the recipes of the record, not those of today's code.

    Raise InputError if a dataset does not exist.
    """
    planner = Planner(store, recorded=True)
    return build_tree([planner.plan(chain) for chain in campaign.chains])
