"""The tables of an analysis hold its numbers."""

from pathlib import Path

import pytest

from jobs.analyze import print_analysis
from jobs.console import open_console
from orchestrator.analysis.diagnosis import analyse
from orchestrator.analysis.page import write_page
from orchestrator.analysis.tables import breakdown_table, layer_table, overview, remedy_table
from orchestrator.records.results import ChainResult
from orchestrator.report.table import Measured
from tests.support.analyses import answers


def test_columns_of_a_breakdown_add_up(chain: ChainResult):
    table = breakdown_table(analyse(chain, chain.steps[0], chain.steps[1], answers(1.0)))
    for column in zip(*(row.values for row in table.rows), strict=True):
        assert sum(column) == pytest.approx(1)


def test_layers_are_relative_to_the_earlier_model(chain: ChainResult):
    table = layer_table(analyse(chain, chain.steps[0], chain.steps[1], answers(0.5)))
    assert table is not None
    trained = {row.name: row.values[2] for row in table.rows}
    assert trained == pytest.approx({"stem": 0.5, "head": 0.485, "classifier": 0.2})
    assert next(row for row in table.rows if row.name == "head").values[3] == 0.5


def test_remedies_are_listed_after_before_and_after(chain: ChainResult):
    analysis = analyse(
        chain, chain.steps[0], chain.steps[1], answers(1.0), {"classifier": chain.steps[0]}
    )
    table = remedy_table(analysis)
    assert [row.name for row in table.rows] == [
        "after step 0",
        "after step 1",
        "new classes' logits lowered",
        "background's logit lowered, too",
        "classifier retrained",
    ]
    assert [row.values[0] for row in table.rows] == pytest.approx([1.0, 0.3, 0.25, 0.45, 1.0])
    assert [row.values[1] for row in table.rows][:4] == [None, pytest.approx(20 / 45), 0.4, 0.4]


def test_at_a_glance_seeds_are_averaged(seeds: tuple[ChainResult, ...]):
    analyses = [
        analyse(chain, chain.steps[0], chain.steps[1], answers(1.0)[:-1]) for chain in seeds
    ]
    causes, kept, _, similar = overview(analyses)
    assert [row.name for row in causes.rows] == ["mib", "lwf"]
    column = [(each.group, each.name) for each in causes.columns].index(("mean IoU", "after"))
    both = [row.values[column] for row in causes.rows]
    assert both[0] == pytest.approx(Measured(0.7, 2**-0.5 / 5))
    assert both[1] == 1.0
    assert [row.name for row in kept.rows] == ["mib", "lwf"]
    head = [each.name for each in kept.columns].index("head")
    assert kept.rows[0].values[head] == pytest.approx(Measured(0.97, 0.0))
    assert kept.rows[1].values[head] == 0.97
    assert similar.rows[1].values[head] == 0.5


def test_an_analysis_without_probes_of_layers_has_no_table_of_them(
    chain: ChainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    retrained = {"classifier": chain.steps[0]}
    analysis = analyse(chain, chain.steps[0], chain.steps[1], [], retrained)
    assert layer_table(analysis) is None
    assert len(overview([analysis, analysis])) == 1
    print_analysis(analysis, open_console())
    shown = capsys.readouterr().out
    assert "What would have helped" in shown
    assert "Layer by layer" not in shown
    page = write_page([analysis], tmp_path)
    assert "Layer by layer" not in page.read_text(encoding="utf-8")
