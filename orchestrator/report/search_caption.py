"""Say in words what a searched campaign has found, and what its numbers do not say."""

from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.variant_results import VariantResult


def best_sample(result: CampaignResult) -> VariantResult | None:
    """Return the sample with the best mean mIoU over all its seeds, None while there is none."""
    scored = [variant for variant in result.variants if _score(variant) is not None]
    return max(scored, key=lambda variant: _score(variant) or 0.0, default=None)


def search_caption(result: CampaignResult) -> str:
    """Return how many samples there are, and the best; nothing unless the campaign is searched."""
    if not result.named_by:
        return ""
    scored = sum(_score(variant) is not None for variant in result.variants)
    sentences = [f"Samples named by {result.named_by}."]
    best = best_sample(result)
    if best is not None:
        sentences.append(
            f"Best of {scored} by mean mIoU over its seeds: {best.name}, "
            f"{100 * (_score(best) or 0.0):.1f}. It was chosen by this number, which flatters it: "
            "confirm it with other seeds."
        )
    return " ".join(sentences)


def _score(variant: VariantResult) -> float | None:
    """Return the mean mIoU of all classes if every seed of the sample is published."""
    if len(variant.seeds) < len(variant.variant.chains) or variant.means.all is None:
        return None
    return variant.means.all.mean
