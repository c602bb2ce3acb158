"""Open a campaign by its name or path, with pretrained weights for its encoders."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from jobs.adopted import find_adopted
from jobs.campaigns import SHIPPED
from jobs.options import ChainOptions
from orchestrator.planning.campaign import (
    Campaign,
    searched,
    with_adopted,
    with_encoder_weights,
)
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.planner import Planner
from orchestrator.store.base import Store
from training.config import InputError

if TYPE_CHECKING:
    from orchestrator.datasets.pretrained import PretrainedWeights


class OpenCampaign(NamedTuple):
    """A campaign whose chains are complete, and what it takes to plan and to run it."""

    campaign: Campaign
    planner: Planner
    weights: "PretrainedWeights | None"  # fetched and checked, but not stored yet


@contextmanager
def open_campaign(
    wanted: str, options: ChainOptions, store: Store, *, allow_overlap: bool = True
) -> Iterator[OpenCampaign]:
    """Load a campaign and put what its chains start from into them.

    A searched campaign has the chains of its samples so far. Nothing is stored.
    A job that trains publishes the weights before it starts.

    Args:
        wanted: Name of a campaign that ships with the product, or the path of a file.
        options: They may name pretrained weights of the encoders, or an adopted model.
        store: Where the datasets are.
        allow_overlap: Whether chains may be scored on images that they train on. A job that trains
            asks; one that shows what there is does not.

    Raises:
        InputError: There is no such campaign, its file fails, or the weights do not fit.
    """
    campaign = load_campaign(wanted, SHIPPED)
    encoder_weights = options.encoder_weights
    if options.adopted:
        if encoder_weights:
            raise InputError("give either --encoder-weights or --adopted, whose encoder is trained")
        record = find_adopted(store, options.adopted)
        campaign = campaign.changed(lambda chain: with_adopted(chain, record))
    if not encoder_weights:
        campaign = searched(campaign, store)
        yield OpenCampaign(campaign, Planner(store, allow_overlap=allow_overlap), None)
        return
    # Checking weights imports torch. Most plans do without it.
    from orchestrator.datasets.pretrained import PretrainedWeights

    with PretrainedWeights(*encoder_weights) as weights:
        campaign = searched(with_encoder_weights(campaign, weights.complete), store)
        planner = Planner(store, weights.digests, allow_overlap=allow_overlap)
        yield OpenCampaign(campaign, planner, weights)
