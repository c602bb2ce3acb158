"""What an analysis says of made-up chains whose causes of forgetting are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.analysis import analyse, flow_before_after, layer_table, sentences
from orchestrator.analysis_page import write_page
from orchestrator.probes import ProbeRecord
from orchestrator.record import Provenance
from orchestrator.results import ChainResult, load_chains
from orchestrator.store import Store
from training.methods import mib
from training.metrics import Confusion
from training.probes.measure import Bias, Similarity, Stitching

GROUPS = ((1, 2), (3,))
MADE = Provenance(commit=None, dirty=None, versions={}, user="ada", host="node", device="cpu", created="2026-01-02T03:04:05Z")


def counts(*entries: tuple[int, int, int]) -> Confusion:
    """One image; entries are truth, predicted, pixels."""
    truth, predicted, pixels = np.array(entries).T
    return Confusion(np.zeros(len(entries), int), truth, predicted, pixels)


@pytest.fixture
def chain(store: Store, publish_chain: Any) -> ChainResult:
    """Two earlier classes of 100 pixels: all right before; then 30 are right, 50 background, 15 new, 5 the other class."""
    before = counts((0, 0, 100), (1, 1, 50), (2, 2, 50), (3, 0, 20))
    after = counts((0, 0, 90), (0, 3, 10), (1, 1, 30), (1, 2, 5), (1, 3, 15), (2, 0, 50), (3, 3, 20))
    record = publish_chain(
        store, "made_up", method=mib.Config(), groups=GROUPS, names=("cat", "dog", "cow"), confusions=[before, after]
    )
    return load_chains(store, [record])[0]


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
        provenance=MADE,
    )


def answers(before: float) -> list[ProbeRecord]:
    stitched = {"stem": 1.0, "head": 0.97, "classifier": 0.4}
    return [
        *(answer(Stitching(cut=cut, joint="trained"), miou=kept * before) for cut, kept in stitched.items()),
        answer(Similarity(cut="head"), cka=0.5),
        answer(
            Bias(),
            classes=[0, 1, 2, 3],
            norms=[1.0, 1.0, 1.0, 2.0],
            biases=[0.0, 0.0, 0.0, 1.0],
            gap={"new_minus_previous": 3.25, "background_minus_previous": 1.5, "pixels": 100},
            as_it_is={"earlier": 0.1, "new": 0.5, "all": 0.3},
            new_corrected={"earlier": 0.25, "new": 0.4, "all": 0.3},
            both_corrected={"earlier": 0.45, "new": 0.4, "all": 0.3},
        ),
    ]


def test_flows_are_of_the_earlier_classes_and_add_up(chain: ChainResult):
    told = analyse(chain, *chain.steps, answers(1.0))
    assert told.flow_after is not None
    assert told.flow_after.model_dump() == pytest.approx({"right": 0.3, "background": 0.5, "new": 0.15, "other_old": 0.05})
    assert told.background_taken == pytest.approx(0.1)
    for column in zip(*(row.values for row in flow_before_after(told).rows), strict=True):
        assert sum(column) == pytest.approx(1)  # pyright: ignore[reportArgumentType]


def test_iou_of_the_earlier_classes_before_and_after(chain: ChainResult):
    told = analyse(chain, *chain.steps, answers(1.0))
    assert told.before == pytest.approx(1.0)
    assert told.after == pytest.approx((30 / 50 + 0 / 55) / 2)


def test_it_says_where_why_and_what_would_have_helped(chain: ChainResult):
    said = "\n".join(sentences(analyse(chain, *chain.steps, answers(1.0), {"classifier": chain.steps[0]})))
    assert "had a mean IoU of 100.0 % then, and have 30.0 % after step 1" in said
    assert "50.0 points to background" in said
    assert "15.0 points to new classes" in said
    assert "Up to the head nothing of it is lost" in said
    assert "57.0 points, is in the classifier" in said
    assert "exceeds the highest of an earlier one by 3.2" in said
    assert "from 10.0 % to 25.0 %, with both to 45.0 %" in said
    assert "With the classifier trained anew" in said


def test_a_chain_that_forgot_nothing_is_not_blamed_on_a_layer(chain: ChainResult):
    kept = [answer(Stitching(cut=cut, joint="trained"), miou=0.99) for cut in ("stem", "head")]
    assert any("No layer loses much" in told for told in sentences(analyse(chain, *chain.steps, kept)))


def test_layers_are_relative_to_the_earlier_model(chain: ChainResult):
    table = layer_table(analyse(chain, *chain.steps, answers(0.5)))
    assert {row.name: row.values[2] for row in table.rows} == pytest.approx({"stem": 0.5, "head": 0.485, "classifier": 0.2})
    assert next(row for row in table.rows if row.name == "head").values[3] == 0.5


def test_the_page_stands_alone_and_says_the_sentences(chain: ChainResult, tmp_path: Path):
    told = analyse(chain, *chain.steps, answers(1.0))
    page = write_page([told], tmp_path).read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "50.0 points to background" in page
    assert (tmp_path / "layers.csv").read_text().count("\n") >= 4
    assert "50.0 points to background" in (tmp_path / "analysis.md").read_text()
