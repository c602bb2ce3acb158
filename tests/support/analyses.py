"""Make up chains and answers to probes whose causes of forgetting are known."""

from typing import Any

import numpy as np

from orchestrator.analysis.probe_record import ProbeRecord
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import Provenance
from orchestrator.store.base import Store
from tests.support.records import publish_chain
from training.methods import mib
from training.metrics import Confusion
from training.probes.questions import Bias, Similarity, Stitching

PROVENANCE = Provenance(
    commit=None,
    dirty=None,
    versions={},
    user="ada",
    host="node",
    device="cpu",
    created="2026-01-02T03:04:05Z",
)


def counts(*entries: tuple[int, int, int]) -> Confusion:
    """Return the counts of one image; entries are truth, prediction and pixels."""
    truth, predicted, pixels = np.array(entries).T
    return Confusion(np.zeros(len(entries), int), truth, predicted, pixels)


def answer(probe: Any, **values: Any) -> ProbeRecord:
    return ProbeRecord(
        key="0" * 16,
        probe=probe,
        earlier="a",
        earlier_attempt="a",
        later="b",
        later_attempt="b",
        answer=values,
        seconds=1,
        provenance=PROVENANCE,
    )


def answers(miou_before: float) -> list[ProbeRecord]:
    """Return answers of each kind: most is lost in the classifier, which prefers new classes."""
    stitched = {"stem": 1.0, "head": 0.97, "classifier": 0.4}
    stitching = [
        answer(Stitching(cut=cut, joint="trained"), miou=kept * miou_before)
        for cut, kept in stitched.items()
    ]
    bias = answer(
        Bias(),
        classes=[0, 1, 2, 3],
        norms=[1.0, 1.0, 1.0, 2.0],
        biases=[0.0, 0.0, 0.0, 1.0],
        gap={"new_minus_previous": 3.25, "background_minus_previous": 1.5, "pixels": 100},
        as_it_is={"earlier": 0.1, "new": 0.5, "all": 0.3},
        new_corrected={"earlier": 0.25, "new": 0.4, "all": 0.3},
        both_corrected={"earlier": 0.45, "new": 0.4, "all": 0.3},
    )
    return [*stitching, answer(Similarity(cut="head"), cka=0.5), bias]


def publish_forgetting_chain(store: Store) -> ChainResult:
    """Publish a chain with two earlier classes of 100 pixels in all.

    Before, all of them are right. After, 30 are right, 50 are background, 15 are a new class, and
    5 are the other earlier class.
    """
    before = counts((0, 0, 100), (1, 1, 50), (2, 2, 50), (3, 0, 20))
    after = counts(
        (0, 0, 90), (0, 3, 10), (1, 1, 30), (1, 2, 5), (1, 3, 15), (2, 0, 50), (3, 3, 20)
    )
    record = publish_chain(
        store,
        "made_up",
        method=mib.Config(),
        groups=((1, 2), (3,)),
        names=("cat", "dog", "cow"),
        confusions=[before, after],
    )
    (result,) = load_chains(Repository(store), [record])
    return result
