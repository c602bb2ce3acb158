"""The sentences of an analysis name the known causes of forgetting."""

import pytest

from orchestrator.analysis.diagnosis import analyse
from orchestrator.analysis.sentences import describe_analysis
from orchestrator.records.results import ChainResult
from tests.support.analyses import answer, answers
from training.probes.questions import Stitching


def test_they_say_where_why_and_what_would_have_helped(chain: ChainResult):
    analysis = analyse(
        chain, chain.steps[0], chain.steps[1], answers(1.0), {"classifier": chain.steps[0]}
    )
    text = "\n".join(describe_analysis(analysis))
    assert "had a mean IoU of 100.0 % then, and have 30.0 % after step 1" in text
    shift = "50.0 points more became background (background shift)"
    assert f"{shift}, 15.0 points more became a new class" in text, "largest first"
    assert "Up to the head nothing of it is lost" in text
    assert "57.0 points, is in the classifier" in text
    gap = "is 3.2 above the highest of an earlier one on average, background's 1.5 above it"
    assert gap in text
    assert "from 10.0 % to 25.0 %, with background's, too, to 45.0 %" in text
    assert "With the classifier retrained" in text


def test_classes_that_lead_need_no_correction(chain: ChainResult):
    gap = {"new_minus_previous": -2.0, "background_minus_previous": -0.5, "pixels": 100}
    record = answers(1.0)[-1]
    bias = record.model_copy(update={"answer": record.answer | {"gap": gap}})
    text = "\n".join(describe_analysis(analyse(chain, chain.steps[0], chain.steps[1], [bias])))
    assert (
        "2.0 below the highest of an earlier one on average, background's 0.5 below it. "
        "There is nothing to correct." in text
    )


def test_a_chain_that_forgot_nothing_is_not_blamed_on_a_layer(chain: ChainResult):
    kept = [answer(Stitching(cut=cut, joint="trained"), miou=0.99) for cut in ("stem", "head")]
    sentences = describe_analysis(analyse(chain, chain.steps[0], chain.steps[1], kept))
    assert any("No layer loses much" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        # What a later joint recovers was there before it. The dip at stage 1 is a joint that fits
        # badly.
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
    sentences = describe_analysis(analyse(chain, chain.steps[0], chain.steps[1], stitched))
    assert any(words in sentence for sentence in sentences)
