"""What an analysis says of made-up chains whose causes of forgetting are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.diagnosis import Layer, analyse
from orchestrator.analysis.page import write_page
from orchestrator.analysis.probe_record import ProbeRecord
from orchestrator.analysis.record import load_analysis, publish_analysis, recorded_analyses
from orchestrator.analysis.sentences import describe_analysis
from orchestrator.analysis.tables import breakdown_table, layer_table, overview, remedy_table
from orchestrator.planning.chain import Chain
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import Provenance
from orchestrator.report.table import Measured
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from orchestrator.tracking.analysis_runs import analysis_runs
from orchestrator.tracking.runs import build_chain_run
from training.methods import lwf, mib
from training.metrics import Confusion
from training.probes.questions import Bias, Similarity, Stitching

GROUPS = ((1, 2), (3,))
MADE = Provenance(
    commit=None,
    dirty=None,
    versions={},
    user="ada",
    host="node",
    device="cpu",
    created="2026-01-02T03:04:05Z",
)


def counts(*entries: tuple[int, int, int]) -> Confusion:
    """One image; entries are truth, predicted, pixels."""
    truth, predicted, pixels = np.array(entries).T
    return Confusion(np.zeros(len(entries), int), truth, predicted, pixels)


@pytest.fixture
def chain(store: Store, publish_chain: Any) -> ChainResult:
    """Two earlier classes of 100 pixels: all right before; then 30 are right, 50 background, 15 new, 5 the other class."""
    before = counts((0, 0, 100), (1, 1, 50), (2, 2, 50), (3, 0, 20))
    after = counts(
        (0, 0, 90), (0, 3, 10), (1, 1, 30), (1, 2, 5), (1, 3, 15), (2, 0, 50), (3, 3, 20)
    )
    record = publish_chain(
        store,
        "made_up",
        method=mib.Config(),
        groups=GROUPS,
        names=("cat", "dog", "cow"),
        confusions=[before, after],
    )
    return load_chains(Repository(store), [record])[0]


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
        *(
            answer(Stitching(cut=cut, joint="trained"), miou=kept * before)
            for cut, kept in stitched.items()
        ),
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
    assert told.breakdown_after is not None
    assert told.breakdown_after.model_dump() == pytest.approx(
        {"right": 0.3, "background": 0.5, "new": 0.15, "other_old": 0.05}
    )
    assert told.background_taken == pytest.approx(0.1)
    for column in zip(*(row.values for row in breakdown_table(told).rows), strict=True):
        assert sum(column) == pytest.approx(1)  # pyright: ignore[reportArgumentType]


def test_iou_of_the_earlier_classes_before_and_after(chain: ChainResult):
    told = analyse(chain, *chain.steps, answers(1.0))
    assert told.before.earlier == pytest.approx(1.0)
    assert told.before.new is None
    assert told.after.earlier == pytest.approx((30 / 50 + 0 / 55) / 2)
    assert told.after.new == pytest.approx(20 / 45)


def test_it_says_where_why_and_what_would_have_helped(chain: ChainResult):
    said = "\n".join(
        describe_analysis(
            analyse(chain, *chain.steps, answers(1.0), {"classifier": chain.steps[0]})
        )
    )
    assert "had a mean IoU of 100.0 % then, and have 30.0 % after step 1" in said
    assert (
        "50.0 points more became background (background shift), 15.0 points more became a new class"
        in said
    ), "largest first"
    assert "Up to the head nothing of it is lost" in said
    assert "57.0 points, is in the classifier" in said
    assert (
        "is 3.2 above the highest of an earlier one on average, background's 1.5 above it" in said
    )
    assert "from 10.0 % to 25.0 %, with background's, too, to 45.0 %" in said
    assert "With the classifier retrained" in said


def test_classes_that_lead_need_no_correction(chain: ChainResult):
    gap = {"new_minus_previous": -2.0, "background_minus_previous": -0.5, "pixels": 100}
    (bias,) = [
        each.model_copy(update={"answer": each.answer | {"gap": gap}}) for each in answers(1.0)[-1:]
    ]
    said = "\n".join(describe_analysis(analyse(chain, *chain.steps, [bias])))
    assert (
        "2.0 below the highest of an earlier one on average, background's 0.5 below it. There is nothing to correct."
        in said
    )


def test_a_chain_that_forgot_nothing_is_not_blamed_on_a_layer(chain: ChainResult):
    kept = [answer(Stitching(cut=cut, joint="trained"), miou=0.99) for cut in ("stem", "head")]
    assert any(
        "No layer loses much" in told
        for told in describe_analysis(analyse(chain, *chain.steps, kept))
    )


def test_layers_are_relative_to_the_earlier_model(chain: ChainResult):
    table = layer_table(analyse(chain, *chain.steps, answers(0.5)))
    assert {row.name: row.values[2] for row in table.rows} == pytest.approx(
        {"stem": 0.5, "head": 0.485, "classifier": 0.2}
    )
    assert next(row for row in table.rows if row.name == "head").values[3] == 0.5


def test_the_page_stands_alone_and_says_the_describe_analysis(chain: ChainResult, tmp_path: Path):
    told = analyse(chain, *chain.steps, answers(1.0))
    page = write_page([told], tmp_path).read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "50.0 points more became background" in page
    assert (tmp_path / "layers.csv").read_text().count("\n") >= 4
    assert "50.0 points more became background" in (tmp_path / "analysis.md").read_text()


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        # What a later joint recovers was there before it: the dip at stage 1 is a joint that fits badly.
        (
            {"stem": 0.99, "stage 1": 0.6, "head": 0.96, "classifier": 0.5},
            "Up to the head nothing of it is lost",
        ),
        (
            {"stem": 0.99, "stage 1": 0.6, "head": 0.96, "classifier": 0.5},
            "the largest loss, 46.0 points, is in the classifier",
        ),
        (
            {"stem": 0.9, "stage 1": 0.5, "head": 0.4, "classifier": 0.3},
            "lost from the first layers on; the largest loss, 40.0",
        ),
        ({"stem": 0.9, "stage 1": 0.5, "head": 0.4, "classifier": 0.3}, "is in stage 1"),
    ],
)
def test_the_layer_that_loses_most_is_named(chain: ChainResult, kept: dict[str, float], words: str):
    stitched = [
        answer(Stitching(cut=cut, joint="trained"), miou=miou) for cut, miou in kept.items()
    ]
    assert any(words in told for told in describe_analysis(analyse(chain, *chain.steps, stitched)))


def test_remedies_stand_beside_before_and_after(chain: ChainResult):
    told = analyse(chain, *chain.steps, answers(1.0), {"classifier": chain.steps[0]})
    table = remedy_table(told)
    assert [row.name for row in table.rows] == [
        "after step 0",
        "after step 1",
        "new classes' logits lowered",
        "background's logit lowered, too",
        "classifier retrained",
    ]
    assert [row.values[0] for row in table.rows] == pytest.approx([1.0, 0.3, 0.25, 0.45, 1.0])
    assert [row.values[1] for row in table.rows][:4] == [None, pytest.approx(20 / 45), 0.4, 0.4]


@pytest.mark.parametrize("kinds", [(), (Similarity,), (Bias,), (Stitching, Bias)])
def test_the_page_shows_what_was_asked_and_no_more(
    chain: ChainResult, tmp_path: Path, kinds: tuple[type, ...]
):
    asked = [each for each in answers(1.0) if isinstance(each.probe, kinds)]
    page = write_page([analyse(chain, *chain.steps, asked)], tmp_path).read_text()
    assert ("What is left behind each layer" in page) == bool({Similarity, Stitching} & {*kinds})
    assert ("the largest loss" in page) == (Stitching in kinds)
    assert ("Classifier weights" in page) == (Bias in kinds)
    assert "50.0 points more became background" in page, "the counts are always there"


@pytest.fixture
def seeds(store: Store, publish_chain: Any) -> tuple[ChainResult, ...]:
    """Two seeds of one chain, and another chain, after which 30, 40 and 50 of the only earlier class's 50 pixels are right."""
    records = []
    for name, seed, right, method in (
        ("mib", 1, 30, mib.Config()),
        ("mib", 2, 40, mib.Config()),
        ("lwf", 1, 50, lwf.Config()),
    ):
        before = counts((0, 0, 100), (1, 1, 50))
        after = counts(
            (0, 0, 100), (1, 1, right), (2, 2, 20), *([(1, 0, 50 - right)] if right < 50 else [])
        )
        made = publish_chain(
            store,
            f"{name} seed={seed}",
            method=method,
            groups=((1,), (2,)),
            names=("cat", "dog"),
            seed=seed,
            confusions=[before, after],
        )
        records.append(made)
    return load_chains(Repository(store), records)


def test_at_a_glance_seeds_are_averaged(seeds: tuple[ChainResult, ...]):
    told = [analyse(chain, *chain.steps, answers(1.0)[:-1]) for chain in seeds]
    causes, kept, _, alike = overview(told)
    assert [row.name for row in causes.rows] == ["mib", "lwf"]
    column = [(each.group, each.name) for each in causes.columns].index(("mean IoU", "after"))
    both = [row.values[column] for row in causes.rows]
    assert both[0] == pytest.approx(Measured(0.7, 2**-0.5 / 5))
    assert both[1] == 1.0
    assert [row.name for row in kept.rows] == ["mib", "lwf"]
    head = [each.name for each in kept.columns].index("head")
    assert kept.rows[0].values[head] == pytest.approx(Measured(0.97, 0.0))
    assert kept.rows[1].values[head] == 0.97
    assert alike.rows[1].values[head] == 0.5


def test_several_chains_begin_with_a_glance_and_one_does_not(
    seeds: tuple[ChainResult, ...], tmp_path: Path
):
    told = [analyse(chain, *chain.steps, answers(1.0)[:-1]) for chain in seeds]
    assert "Causes at a glance" in write_page(told, tmp_path).read_text()
    assert "Causes at a glance" in (tmp_path / "analysis.md").read_text()
    assert "at a glance" not in write_page(told[:1], tmp_path).read_text()


def test_an_analysis_is_read_back_from_its_record(store: Store, chain: ChainResult):
    asked = answers(1.0)
    for number, each in enumerate(asked):
        asked[number] = each.model_copy(update={"key": f"{number:016x}"})
        store.write(asked[number].name, canonical_json(asked[number]))
    record = publish_analysis(store, chain, (0, 1), asked, {"classifier": chain.steps[0]})
    assert publish_analysis(store, chain, (0, 1), asked, {"classifier": chain.steps[0]}) == record
    assert list(recorded_analyses(Repository(store))) == [record]
    again, first = (
        load_analysis(Repository(store), record),
        analyse(chain, *chain.steps, asked, {"classifier": chain.steps[0]}),
    )
    assert describe_analysis(again) == describe_analysis(first)
    assert again.layers == first.layers
    assert isinstance(again.layers[0], Layer)
    other = publish_analysis(store, chain, (0, 1), asked, {})
    assert other.key != record.key


def test_mlflow_is_told_what_the_page_says(store: Store, chain: ChainResult):
    record = publish_analysis(store, chain, (0, 1), answers(1.0), {"classifier": chain.steps[0]})
    told = analyse(chain, *chain.steps, answers(1.0), {"classifier": chain.steps[0]})
    run, anew = analysis_runs(record, told)
    points = {(point.name, point.step): point.value for point in run.points}
    assert points["kept/trained", 0] == 1.0
    assert points["kept/trained", 1] == pytest.approx(0.97)
    assert points["cka", 1] == 0.5
    assert points["pixels after/background", 0] == pytest.approx(0.5)
    assert points["miou earlier/after", 0] == pytest.approx(0.3)
    assert points["miou earlier/both_corrected", 0] == pytest.approx(0.45)
    assert points["miou earlier/classifier anew", 0] == pytest.approx(1.0)
    assert points["gap/new_minus_previous", 0] == 3.25
    assert ("miou new/before", 0) not in points, "there was no new class then"
    assert run.params["layers"] == "stem, head, classifier"
    assert "50.0 points more became background" in run.texts["analysis.html"]
    assert (run.kind, run.status, anew.kind, anew.key) == (
        "analysis",
        "FINISHED",
        "step",
        chain.steps[0].record.key,
    )
    assert (
        run.nested_in
        == build_chain_run(Chain.model_validate(chain.record.chain), chain.record.steps, 0).key
    )
