"""Keep the scores of a campaign in one small file that needs no store: what a page's tables show.

The file holds what was counted: for each published step its confusion counts, summed over images.
Scores follow from them as from the records (`training.metrics`). Conventions that leave images out
need the counts of each image, so only the convention wilson is at hand here.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.records.results import StepResult
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.variant_results import Means, VariantResult, printed_means
from training.config import BACKGROUND, Document, InputError, flatten_groups
from training.metrics import Confusion, Groups, Scores, confusion_matrix, score, wilson
from training.prediction_breakdown import PredictionBreakdown, break_down_old_classes

CONVENTION = wilson()


class KeptStep(Document):
    """A published step: where it came from and what was counted."""

    key: str
    index: int  # 0 for the base step
    commit: str | None  # of the code that trained it
    iterations: int
    train_seconds: float
    groups: Groups  # dataset class ids learned so far
    # By the id of the true class, 255 for void: pixels that were predicted as background and as
    # each class of the groups, in their order.
    pixels: dict[int, tuple[int, ...]]

    @property
    def confusion(self) -> Confusion:
        """Return the counts as those of one image."""
        predicted = np.array((BACKGROUND, *flatten_groups(self.groups)), np.uint8)
        truth = np.array(list(self.pixels), np.uint8).repeat(len(predicted))
        counts = np.array(list(self.pixels.values()), np.uint32).ravel()
        columns = np.tile(predicted, len(self.pixels))
        return Confusion(np.zeros(len(truth), np.int64), truth, columns, counts)

    @property
    def scores(self) -> Scores:
        return score(self.confusion, self.groups, CONVENTION)

    @property
    def breakdown(self) -> PredictionBreakdown | None:
        """Return what the pixels of old classes were predicted as, None when nothing is old."""
        matrix, _ = confusion_matrix(self.confusion, self.groups, CONVENTION)
        return break_down_old_classes(matrix, self.groups).pooled


class KeptVariant(Document):
    """A variant: the seeds asked for, and the keys of the steps of each published chain."""

    name: str
    asked: tuple[int, ...]
    chains: dict[int, tuple[str, ...]]  # by seed


class KeptCampaign(Document):
    """The scores of a campaign, as far as it is published."""

    format: int = 1
    campaign: str
    scored_on: str  # in words
    variants: tuple[KeptVariant, ...]
    steps: tuple[KeptStep, ...]

    @property
    def published(self) -> int:
        """Return the number of published chains."""
        return sum(len(variant.chains) for variant in self.variants)

    def seeds(self, variant: KeptVariant) -> dict[int, "SeedScores"]:
        """Return the scores of the variant's published chains by seed."""
        by_key = {step.key: step for step in self.steps}
        scores = {}
        for seed, keys in variant.chains.items():
            scores[seed] = _score_chain([by_key[key] for key in keys])
        return scores


class SeedScores(NamedTuple):
    """The scores of one chain; None for what does not exist."""

    base: float | None  # mean IoU of the classes of step 0, right after it
    means: Means  # after the last step
    breakdown: PredictionBreakdown | None  # of all old classes after the last step


def keep(result: CampaignResult, before: KeptCampaign | None = None) -> KeptCampaign:
    """Return what is published of a campaign in the form that is kept.

    Args:
        result: What a store has.
        before: What is kept already. A chain that the store lacks is taken from it, if the campaign
            still has the chain's steps.
    """
    known = {step.key: step for step in before.steps} if before else {}
    for seed in result.published:
        for step in seed.chain.steps:
            known[step.record.key] = _keep_step(step)
    variants = tuple(_keep_variant(variant, result, known) for variant in result.variants)
    chains = (keys for variant in variants for keys in variant.chains.values())
    views = dict.fromkeys(variant.scored_on for variant in result.variants)
    return KeptCampaign(
        campaign=result.name,
        scored_on=" ".join(views),
        variants=variants,
        steps=tuple(known[key] for key in dict.fromkeys(chain.from_iterable(chains))),
    )


def write_kept(kept: KeptCampaign, folder: Path) -> Path:
    """Write a campaign's file, one variant and one step a line; return its path."""
    fields = kept.model_dump(mode="json")
    parts = []
    for name, value in fields.items():
        if isinstance(value, list):
            lines = ",\n".join(f" {json.dumps(each)}" for each in value)
            parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
    path = kept_path(kept.campaign, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    return path


def read_kept(campaign: str, folder: Path) -> KeptCampaign:
    """Read a campaign's file. Raise InputError if there is none or it cannot be used."""
    path = kept_path(campaign, folder)
    try:
        return KeptCampaign.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"there are no scores of {campaign!r} at {path}: name the store that has them, --store"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no file of kept scores: {error}") from error


def kept_path(campaign: str, folder: Path) -> Path:
    return folder / f"{campaign}.json"


def _keep_variant(
    variant: VariantResult, result: CampaignResult, known: Mapping[str, KeptStep]
) -> KeptVariant:
    chains = {}
    plans = [result.chains[index] for index in variant.variant.chains]
    for plan in plans:
        keys = tuple(step.key for step in plan.steps)
        if all(key in known for key in keys):
            chains[plan.chain.seed] = keys
    return KeptVariant(
        name=variant.name, asked=tuple(plan.chain.seed for plan in plans), chains=chains
    )


def _keep_step(step: StepResult) -> KeptStep:
    record = step.record
    columns = {c: i for i, c in enumerate((BACKGROUND, *flatten_groups(step.groups)))}
    pixels: dict[int, list[int]] = {}
    counts = step.confusion
    for truth, predicted, count in zip(
        counts.truth.tolist(), counts.predicted.tolist(), counts.pixels.tolist(), strict=True
    ):
        row = pixels.setdefault(truth, [0] * len(columns))
        row[columns[predicted]] += count
    return KeptStep(
        key=record.key,
        index=record.index,
        commit=record.provenance.commit,
        iterations=record.iterations,
        train_seconds=round(record.seconds["train"], 1),
        groups=step.groups,
        pixels={truth: tuple(pixels[truth]) for truth in sorted(pixels)},
    )


def _score_chain(steps: Sequence[KeptStep]) -> SeedScores:
    last = steps[-1]
    return SeedScores(
        base=steps[0].scores.miou_new if len(steps) > 1 else None,
        means=printed_means(last.scores, len(last.groups), CONVENTION),
        breakdown=last.breakdown,
    )
