"""Define what another attempt at a published step found: is it reproducible on this hardware?

The object lies beside the step's record and is never overwritten. It changes nothing: the step
stays what its record says, and no chain, table or key uses the other attempt.
"""

from typing import Any

from orchestrator.records import layout
from orchestrator.records.publish import publish_record
from orchestrator.records.repository import Repository
from orchestrator.records.schema import File, Provenance
from orchestrator.store.base import Store
from training.config import Document
from training.metrics import Scores

SCORES = {"miou_all": "all", "miou_old": "old", "miou_new": "new"}


class WeightDifference(Document):
    """How the weight tensors of two attempts at one step differ."""

    tensors: int  # in all weight files
    differing: int  # that are not the same in every bit
    largest: float  # largest absolute difference of two values; 0 where only signs of zero differ
    where: str | None  # name of the tensor that has it; None if all are the same
    scale: float  # root mean square of that tensor's values in the published attempt

    @property
    def identical(self) -> bool:
        """Return whether every bit is the same."""
        return self.differing == 0


class Reproduction(Document):
    """A published step, another attempt at it, and how they differ."""

    format: int = 1
    step: str
    published_attempt: str
    attempt: str
    files: dict[str, File]  # of the other attempt
    weights: WeightDifference
    same_counts: bool  # whether every image has the same confusion counts
    published_scores: Scores
    scores: Scores
    convention: str  # of the scores
    published_device: str
    seconds: dict[str, float]
    resources: dict[str, Any]
    provenance: Provenance  # of the other attempt

    @property
    def identical(self) -> bool:
        """Return whether the weights are the same in every bit, and the counts are the same."""
        return self.weights.identical and self.same_counts

    def __str__(self) -> str:
        """Return the finding in a sentence."""
        device = self.provenance.device
        before = "as before"
        if device != self.published_device:
            before = f"before on {self.published_device}"
        again = f"trained again on {device} ({before}) as attempt {self.attempt}"
        if self.weights.identical:
            weights = "the weights are bit-identical"
        else:
            found = self.weights
            weights = (
                f"{found.differing} of {found.tensors} weight tensors differ, by "
                f"{found.largest:.2g} at most ({found.where}, whose values are about "
                f"{found.scale:.2g})"
            )
        return f"{again}: {weights}, and {self._scores()}"

    def _scores(self) -> str:
        if self.same_counts:
            return "every image is predicted with the same counts"
        moved = []
        for field, name in SCORES.items():
            before, after = getattr(self.published_scores, field), getattr(self.scores, field)
            if before is not None and after is not None:
                moved.append(f"{name} {100 * before:.2f} to {100 * after:.2f}")
        return f"mIoU changed from {', '.join(moved)}"


def publish_reproduction(store: Store, found: Reproduction) -> Reproduction:
    """Write what another attempt found. Return the object that was written first."""
    return publish_record(store, layout.reproduction(found.step, found.attempt), found)


def reproductions(repository: Repository, step: str) -> list[Reproduction]:
    """Return what other attempts at a step found, the oldest first."""
    names = repository.store.list(layout.reproductions_folder(step))
    return repository.listed(names, Reproduction)
