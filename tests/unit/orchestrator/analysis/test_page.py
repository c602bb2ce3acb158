"""The page of an analysis shows what was measured, and nothing else."""

from pathlib import Path

import pytest

from orchestrator.analysis.diagnosis import analyse
from orchestrator.analysis.page import write_page
from orchestrator.records.results import ChainResult
from tests.support.analyses import answers
from training.probes.questions import Bias, Similarity, Stitching


def test_the_page_needs_no_other_file_and_holds_the_sentences(chain: ChainResult, tmp_path: Path):
    analysis = analyse(chain, chain.steps[0], chain.steps[1], answers(1.0))
    page = write_page([analysis], tmp_path).read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "50.0 points more became background" in page
    assert (tmp_path / "layers.csv").read_text().count("\n") >= 4
    assert "50.0 points more became background" in (tmp_path / "analysis.md").read_text()


@pytest.mark.parametrize("kinds", [(), (Similarity,), (Bias,), (Stitching, Bias)])
def test_the_page_shows_what_was_asked_and_no_more(
    chain: ChainResult, tmp_path: Path, kinds: tuple[type, ...]
):
    asked = [each for each in answers(1.0) if isinstance(each.probe, kinds)]
    page = write_page([analyse(chain, chain.steps[0], chain.steps[1], asked)], tmp_path).read_text()
    assert ("What is left behind each layer" in page) == bool({Similarity, Stitching} & {*kinds})
    assert ("the largest loss" in page) == (Stitching in kinds)
    assert ("Classifier weights" in page) == (Bias in kinds)
    assert "50.0 points more became background" in page, "the counts are always there"


def test_several_chains_begin_with_an_overview_and_one_does_not(
    seeds: tuple[ChainResult, ...], tmp_path: Path
):
    analyses = [
        analyse(chain, chain.steps[0], chain.steps[1], answers(1.0)[:-1]) for chain in seeds
    ]
    assert "Causes at a glance" in write_page(analyses, tmp_path).read_text()
    assert "Causes at a glance" in (tmp_path / "analysis.md").read_text()
    assert "at a glance" not in write_page(analyses[:1], tmp_path).read_text()
