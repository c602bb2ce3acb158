"""Test that a campaign's page, tables and files show the numbers of its records."""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from statistics import fmean, stdev
from typing import cast

import pandas
import pytest
from rich.console import Console

from jobs.campaigns import SHIPPED
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.campaign_record import (
    campaign_record,
    campaign_tree,
    find_campaign,
    publish_campaign,
    recorded_campaign,
)
from orchestrator.planning.paper_numbers import Expected
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report import shown_variants
from orchestrator.report.campaign_page import (
    CampaignReport,
    build_campaign_report,
    to_files,
    write_campaign_report,
)
from orchestrator.report.campaign_results import CampaignResult, load_campaign_results
from orchestrator.report.campaign_tables import paired
from orchestrator.report.render import to_terminal
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from training.metrics import wilson


def load(campaign: Campaign, store: Store) -> CampaignResult:
    return load_campaign_results(
        campaign, campaign_tree(campaign, store), Repository(store), wilson()
    )


@pytest.fixture(scope="module")
def result(finished_campaign: tuple[Campaign, Store]) -> CampaignResult:
    return load(*finished_campaign)


@pytest.fixture(scope="module")
def report(result: CampaignResult) -> CampaignReport:
    return build_campaign_report(result)


@pytest.fixture(scope="module")
def truth(finished_campaign: tuple[Campaign, Store]) -> Mapping[str, tuple[str, str, str]]:
    """Return `71.2 ± 0.4` of old, new and all for each variant, computed in another way."""
    repository = Repository(finished_campaign[1])
    found = {}
    for prior in ("bce", "fixed"):
        for alpha in ("0", "0.5", "1"):
            names = [f"hardness prior={prior} alpha={alpha} seed={seed}" for seed in (1, 2)]
            records = [repository.chain_by_name(name) for name in names]
            last = [chain.scores(wilson())[-1] for chain in load_chains(repository, records)]
            texts = []
            for field in ("miou_old", "miou_new", "miou_all"):
                numbers = [getattr(scores, field) for scores in last]
                texts.append(f"{100 * fmean(numbers):.1f} ± {100 * stdev(numbers):.1f}")
            found[f"alpha={alpha} prior={prior}"] = tuple(texts)
    return found


def test_every_rendering_shows_the_records_numbers(report, truth) -> None:
    files = to_files(report)
    page = re.sub(r"<[^>]+>", " ", files["report.html"])
    console = Console(width=300, file=StringIO())
    console.print(*to_terminal(paired(report.scores), 300))
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    rows = {row["variant"]: row for row in csv.DictReader(StringIO(files["scores.csv"]))}
    assert rows.keys() == truth.keys()
    for variant, numbers in truth.items():
        between = r"[^\n]*?"
        assert re.search(between.join(map(re.escape, (variant, *numbers))), printed)
        assert re.search(
            between.join(map(re.escape, (variant, *numbers))), files["tables.md"].replace("*", "")
        )
        latex = files["tables.tex"].replace(r"\textbf", "").replace("{", "").replace("}", "")
        assert re.search(
            between.join(re.escape(text.replace("±", r"$\pm$")) for text in (variant, *numbers)),
            latex,
        )
        assert re.search(r"[^ƒ]{1,90}?".join(map(re.escape, (variant, *numbers))), page)
        row = rows[variant]
        assert (
            tuple(f"{row[f'{part} mean']} ± {row[f'{part} std']}" for part in ("old", "new", "all"))
            == numbers
        )


def test_the_parquet_file_holds_them_unrounded(report, truth, tmp_path) -> None:
    write_campaign_report(report, tmp_path)
    scores = pandas.read_parquet(tmp_path / "scores.parquet").query("last and metric == 'miou_all'")
    assert len(scores) == 12
    for variant, values in scores.groupby(["method.alpha", "method.prior"])["value"]:
        alpha, prior = cast(tuple[float, str], variant)
        assert (
            f"{100 * values.mean():.1f} ± {100 * values.std():.1f}"
            == truth[f"alpha={alpha:g} prior={prior}"][2]
        )
    exact = {seed.scores[-1].miou_all for seed in report.result.published}
    assert set(scores["value"]) == exact


def test_the_best_are_marked_among_what_compares(report, truth) -> None:
    table = paired(report.scores)
    columns = [column.group for column in table.columns]
    for position, part in enumerate(("old", "new", "all")):
        best = max(truth, key=lambda variant: float(truth[variant][position].split()[0]))
        marked = [row.name for row in table.rows if columns.index(part) in row.best]
        assert marked == [best]
    assert report.forgetting is not None
    first = [float(row.values[0].mean) for row in report.forgetting.rows]
    assert [row.name for row in report.forgetting.rows if 0 in row.best] == [
        report.forgetting.rows[first.index(min(first))].name
    ]


def test_classes_stand_by_variant_and_step(report) -> None:
    table = report.classes
    variant = report.result.variants[1]
    index = [(column.group, column.name) for column in table.columns].index(
        (variant.name, "step 1")
    )
    row = next(row for row in table.rows if row.name == "7")
    assert row.values[index - 1] == "x"
    ious = [seed.scores[1].iou[8] for seed in variant.seeds]
    assert tuple(row.values[index]) == (pytest.approx(fmean(ious)), pytest.approx(stdev(ious)))


def test_prediction_breakdowns_add_up(report) -> None:
    for row in report.breakdown.rows:
        assert sum(value.mean for value in row.values) == pytest.approx(1)


def test_the_time_of_a_step_that_chains_share_counts_once(report) -> None:
    assert [(row.name, row.values[2]) for row in report.tables["times"].rows] == [
        ("step 0 (2 trained)", "84.0"),
        ("step 1 (12 trained)", "504.0"),
        ("all steps", "588.0"),
    ]
    page = to_files(report)["report.html"]
    assert '<a href="#times">' in page
    assert "588.0" in page


def test_each_thing_that_was_varied_has_a_figure(report) -> None:
    assert list(report.axes) == ["method.alpha", "method.prior"]
    assert "prior=bce" in report.axes["method.alpha"].svg
    assert "fixed" in report.axes["method.prior"].svg


def test_the_page_needs_nothing_but_itself(report) -> None:
    page = to_files(report)["report.html"]
    asked = re.findall(r"""(?:src|href|srcset|action)=["']([^"']*)""", page)
    assert all(link.startswith(("#", "data:")) for link in asked)
    assert not re.search(r"@import|url\((?!#)|<script", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in asked if link.startswith("#")} <= set(ids)


def test_of_very_many_variants_the_page_shows_the_best(result, monkeypatch) -> None:
    monkeypatch.setattr(shown_variants, "MOST", 3)
    monkeypatch.setattr(shown_variants, "BEST", 2)
    report = build_campaign_report(result)
    ranked = sorted(result.variants, key=lambda each: each.means.all.mean, reverse=True)
    best = [each.name for each in result.variants if each in ranked[:2]]
    assert [each.name for each in report.shown.variants] == best
    tables = report.shown_tables
    for name in ("scores", "forgetting", "breakdown"):
        assert [row.name for row in tables[name].rows] == best
        assert len(report.tables[name].rows) == 6
    assert list(dict.fromkeys(column.group for column in tables["classes"].columns)) == best
    assert {row.name for row in tables["classes"].rows} == {
        row.name for row in report.tables["classes"].rows
    }
    (alpha,) = (each for each in report.differing_settings if each.name == "method.alpha")
    assert len(alpha.values) == 2
    files = to_files(report)
    assert "This page shows the 2 best of 6 variants" in files["report.html"]
    assert "The scores of all 6 variants" in files["report.html"]
    assert len(files["scores.csv"].splitlines()) == 7


def test_a_campaign_that_is_not_begun_has_a_page(finished_campaign, tmp_path) -> None:
    campaign, store = finished_campaign
    begun = open_store(str(tmp_path / "store"))
    for key in store.list("datasets/"):
        begun.write(key, store.read(key))
    report = build_campaign_report(load(campaign, begun))
    page = write_campaign_report(report, tmp_path / "out").read_text()
    assert "0 of 12 chains are published: the numbers are not final." in page
    assert report.forgetting is None
    assert not report.axes


def test_a_single_variant_has_no_best_and_no_axes(finished_campaign) -> None:
    campaign, store = finished_campaign
    report = build_campaign_report(load(replace(campaign, chains=campaign.chains[:2]), store))
    assert all(not row.best for row in report.scores.rows)
    assert not report.axes
    assert "2 of 2 chains are published." in to_files(report)["report.html"]


def test_a_record_gives_the_campaign_back(store) -> None:
    campaign = load_campaign("wilson_alpha", SHIPPED)
    record = publish_campaign(store, campaign)
    assert find_campaign(store, "wilson_alpha") == publish_campaign(store, campaign) == record
    assert recorded_campaign(record, store) == campaign
    assert recorded_campaign(record, store).paper[1] == Expected(
        "WILSON Figure 4", "WILSON alpha=0.3", {"method.alpha": 0.3}
    )
    assert find_campaign(store, record.key) == record
    assert find_campaign(store, "wilson_prior") is None
    other = campaign_record(replace(campaign, question="Another?"))
    assert other.key != record.key
