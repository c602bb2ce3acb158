"""Open a campaign by its name or path, with pretrained weights for its encoders."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from jobs.campaigns import SHIPPED
from orchestrator.planning.campaign import Campaign, with_encoder_weights
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.planner import Planner
from orchestrator.store.base import Store

if TYPE_CHECKING:
    from orchestrator.datasets.pretrained import PretrainedWeights


class OpenCampaign(NamedTuple):
    """A campaign whose chains are complete, and what it takes to plan and to run it."""

    campaign: Campaign
    planner: Planner
    weights: "PretrainedWeights | None"  # fetched and checked, but not stored yet


@contextmanager
def open_campaign(wanted: str, encoder_weights: str | None, store: Store) -> Iterator[OpenCampaign]:
    """Load a campaign and put the digests of the encoder's weights into its chains.

    Nothing is stored. A job that trains publishes the weights before it starts.

    Args:
        wanted: Name of a campaign that ships with the product, or the path of a file.
        encoder_weights: Path or URI of pretrained weights; None leaves the chains as they are.
        store: Where the datasets are.

    Raises:
        InputError: There is no such campaign, its file fails, or the weights do not fit.
    """
    campaign = load_campaign(wanted, SHIPPED)
    if encoder_weights is None:
        yield OpenCampaign(campaign, Planner(store), None)
        return
    # Checking weights imports torch. Most plans do without it.
    from orchestrator.datasets.pretrained import PretrainedWeights

    with PretrainedWeights(encoder_weights) as weights:
        campaign = with_encoder_weights(campaign, weights.digest)
        yield OpenCampaign(campaign, Planner(store, weights.digests), weights)
