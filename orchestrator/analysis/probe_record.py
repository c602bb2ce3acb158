"""Define the record of an answer to a probe, and the question whose digest is its key.

A question names two attempts (the files themselves), the content of two splits, how images are
viewed, and the probe's document. These decide the answer.
"""

from typing import Any

from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.schema import Provenance
from orchestrator.store.canonical import digest
from training.config import Document
from training.probes.questions import Answer, Probe


class ProbeRecord(Document):
    """The answer to a probe."""

    format: int = 1
    key: str
    probe: Probe
    earlier: str  # step key
    earlier_attempt: str
    later: str  # step key
    later_attempt: str
    answer: Answer
    seconds: float
    provenance: Provenance

    @property
    def name(self) -> str:
        """Return the key of the record in the store."""
        return layout.probe_record(self.later, self.key)


class Question(Document):
    """A probe of two published steps."""

    probe: Probe
    earlier: str  # step key
    earlier_attempt: str
    later: str  # step key
    later_attempt: str
    content: tuple[str, str]  # of the training split and of the split that is scored
    config: dict[str, Any]  # how images are viewed

    @property
    def key(self) -> str:
        """Return the key of the answer's record."""
        return digest(self)[:KEY_LENGTH]

    @property
    def name(self) -> str:
        """Return the key of the answer's record in the store."""
        return layout.probe_record(self.later, self.key)
