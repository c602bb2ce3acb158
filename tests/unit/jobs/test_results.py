"""The page of results has the numbers of the scores kept beside it, and a store refreshes them."""

import shutil
from pathlib import Path

import pytest

from jobs.campaigns import SHIPPED
from jobs.results import main
from orchestrator.datasets.catalog import publish
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.planner import Planner
from orchestrator.report.kept_scores import read_kept
from orchestrator.report.results_page import campaigns_of, fill, loose_numbers
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.campaigns import publish_made_up_chain
from tests.support.datasets import build_dataset
from tests.support.paths import ROOT
from training.data.digits import Digits

PAGE = ROOT / "docs" / "results.md"
KEPT = ROOT / "docs" / "results"
TEXT = "# Mine\n\n## Alpha\n\n<!-- table: digits_wilson_alpha -->\n<!-- end -->\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with the first six of the 25 chains of the campaign on alpha."""
    folder = tmp_path_factory.mktemp("alpha")
    store = open_store(str(folder / "store"))
    manifest, _ = build_dataset(Digits(train=60, val=8), folder / "built")
    publish(store, "digits", folder / "built", manifest)
    planner = Planner(store)
    for chain in load_campaign("digits_wilson_alpha", SHIPPED).chains[:6]:
        publish_made_up_chain(store, planner.plan(chain))
    return store


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return a page with one table that was not made yet."""
    path = tmp_path / "mine.md"
    path.write_text(TEXT)
    return path


def test_docs_results_md_is_what_the_kept_scores_give() -> None:
    """When this fails: `make results`, and mend the numbers that the text quotes."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == fill(text, lambda campaign: read_kept(campaign, KEPT))
    assert loose_numbers(text) == []


def test_every_file_of_scores_has_a_table() -> None:
    files = {path.stem for path in KEPT.glob("*.json")}
    assert "digits_methods" in files
    assert files == set(campaigns_of(PAGE.read_text(encoding="utf-8")))


def test_a_store_refreshes_scores_and_page(store, page, tmp_path, capsys) -> None:
    folder = tmp_path / "scores"
    main(["--store", store.uri, "--page", str(page), "--scores", str(folder)])
    assert "digits_wilson_alpha: 6 chains to " in capsys.readouterr().out
    made = page.read_text()
    assert "\n| alpha=0 | " in made
    assert "\n| alpha=0.3 (1 of 5 seeds) | " in made
    assert "\n6 of 25 chains; their 11 different steps " in made
    page.write_text(TEXT)
    main(["--page", str(page), "--scores", str(folder)])
    assert page.read_text() == made, "without a store"


def test_chains_that_a_store_lacks_stay_as_the_file_has_them(store, page, tmp_path, capsys) -> None:
    folder = tmp_path / "scores"
    main(["--store", store.uri, "--page", str(page), "--scores", str(folder)])
    before = read_kept("digits_wilson_alpha", folder)
    emptier = open_store(str(tmp_path / "emptier"))
    shutil.copytree(store.local_path("datasets"), tmp_path / "emptier" / "datasets")
    planner = Planner(emptier)
    for chain in load_campaign("digits_wilson_alpha", SHIPPED).chains[5:7]:
        publish_made_up_chain(emptier, planner.plan(chain))
    main(["--store", emptier.uri, "--page", str(page), "--scores", str(folder)])
    assert "digits_wilson_alpha: 7 chains to " in capsys.readouterr().out
    after = read_kept("digits_wilson_alpha", folder)
    assert {step.key for step in before.steps} < {step.key for step in after.steps}


def test_chains_of_other_data_do_not_replace_a_file(store, page, tmp_path, capsys) -> None:
    folder = tmp_path / "scores"
    main(["--store", store.uri, "--page", str(page), "--scores", str(folder)])
    other = open_store(str(tmp_path / "other"))
    manifest, _ = build_dataset(Digits(train=50, val=8), tmp_path / "built")
    publish(other, "digits", tmp_path / "built", manifest)
    main(["--store", other.uri, "--page", str(page), "--scores", str(folder)])
    assert "left as it is, for the file has 6 chains, and" in capsys.readouterr().out
    assert read_kept("digits_wilson_alpha", folder).published == 6


def test_a_number_that_no_table_has_fails(store, page, tmp_path, capsys) -> None:
    page.write_text(f"{TEXT}\nAll: 101.5.\n")
    with pytest.raises(SystemExit) as ended:
        main(["--store", store.uri, "--page", str(page), "--scores", str(tmp_path)])
    assert ended.value.code == 1
    assert "## Alpha: 101.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "error: there is no page "),
        (TEXT, "error: there are no scores of 'digits_wilson_alpha'"),
        (TEXT.replace("alpha", "beta"), "error: there are no scores of 'digits_wilson_beta'"),
        (TEXT.replace("<!-- end -->", ""), "error: cannot read '<!-- table:"),
    ],
)
def test_one_clear_error(text: str | None, sentence: str, page, tmp_path, capsys) -> None:
    if text is None:
        page.unlink()
    else:
        page.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["--page", str(page), "--scores", str(tmp_path / "scores")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(sentence)
    if text is not None:
        assert page.read_text() == text
