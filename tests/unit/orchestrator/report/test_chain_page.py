"""Test that the page stands alone, is well-formed, and shows the numbers of the tables."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.chain_page import Report, build_report, to_html, write_report
from orchestrator.report.pictures import Picture, WeakView
from orchestrator.report.render import to_csv, to_latex, to_markdown
from orchestrator.report.table import percent
from training.metrics import wilson

VOID_TAGS = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """What a page is made of; raises when tags do not close in the order they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag at {self.getpos()}"

    def handle_data(self, data) -> None:
        if {"td", "th"} & set(self.open[-2:]):
            self.tables[-1][-1][-1] += data
        elif self.open[-1:] == ["caption"]:
            self.captions.append(data)

    def table(self, caption: str) -> list[list[str]]:
        return self.tables[self.captions.index(caption)]


def pictures(count: int) -> list[Picture]:
    rng = np.random.default_rng(0)
    labels = [rng.choice([0, 1, 7, 255], (16, 16)).astype(np.uint8) for _ in range(7)]
    weak = [None, WeakView(labels[2], labels[3]), None, None, None, None]
    return [
        Picture(
            f"scene-{i}", rng.integers(0, 256, (16, 16, 3), np.uint8), labels[0], labels[1:], weak
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def report(demo_chains) -> Report:
    return build_report(demo_chains, wilson(), pictures(2))


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(to_html(report))


def test_the_page_shows_the_tables_numbers(report, page) -> None:
    assert report.times in report.tables
    for table in report.tables:
        shown = [row for row in page.table(table.title) if len(row) == 1 + len(table.columns)][1:]
        if table.columns[0].group:
            assert shown[0][0] != table.corner
        assert shown == [[row.name, *map(percent, row.values)] for row in table.rows]


def test_the_page_needs_nothing_but_itself(report, page) -> None:
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert value.startswith(("#", "data:")), (
                f"<{tag} {name}={value[:60]}> asks for something"
            )
    text = to_html(report)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "<script" not in text


def test_links_within_the_page_have_targets_and_ids_stand_once(page) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {
        value[1:]
        for _, name, value in page.attributes
        if name.endswith("href") and value.startswith("#")
    } <= set(ids)


def test_everything_can_be_read_out_and_reached_by_keyboard(page) -> None:
    texts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(texts) == 20
    assert texts[9] == "fine-tuning after step 1: 0, 6"
    assert (
        sum(1 for tag, name, _ in page.attributes if (tag, name) == ("svg", "aria-label"))
        == 3 + 3 + 3
    )
    assert len(page.captions) == len(page.tables)
    scrolling = [
        value
        for tag, name, value in page.attributes
        if (tag, name, value) == ("div", "class", "scroll")
    ]
    assert len(scrolling) == sum(
        1 for tag, name, value in page.attributes if (tag, name) == ("div", "tabindex")
    )


def test_strips_hold_the_very_label_maps(report) -> None:
    shown = pictures(2)
    strip = report.strips[0]
    files = [base64.b64decode(thumbnail.uri.partition(",")[2]) for thumbnail in strip]
    maps = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    predictions = shown[0].predictions
    weak = shown[0].weak[1]
    assert weak
    expected = [shown[0].pixels, shown[0].truth, *predictions[:2], *weak, *predictions[2:]]
    for drawn, labels in zip(maps, expected, strict=True):
        assert np.array_equal(drawn, labels)
    assert [thumbnail.words.partition(":")[0] for thumbnail in strip[1:6]] == [
        "truth",
        "WILSON after step 0",
        "WILSON after step 1",
        "WILSON after step 1, its localizer",
        "WILSON after step 1, its pseudo-supervision",
    ]
    assert report.strip_headings == (
        ("WILSON", ("step 0", "step 1", "localizer", "pseudo-supervision")),
        ("MiB", ("step 0", "step 1")),
        ("fine-tuning", ("step 0", "step 1")),
    )


def test_without_pictures_there_is_no_empty_section(report) -> None:
    text = to_html(replace(report, strips=()))
    assert 'id="pictures"' not in text
    assert 'href="#pictures"' not in text


def test_names_from_outside_cannot_break_the_page(store, publish_chain) -> None:
    names = ("<b>cat</b>", "dog & co", 'a"b', "ordinary")
    chains = load_chains(
        Repository(store),
        [publish_chain(store, "<i>mine</i>", groups=((1, 2), (3, 4)), names=names)],
    )
    text = to_html(build_report(chains, wilson()))
    Page(text)
    assert "<b>cat" not in text
    assert "<i>mine" not in text


def test_a_chain_of_one_step_has_a_page(store, publish_chain) -> None:
    chains = load_chains(Repository(store), [publish_chain(store, "base", groups=((1, 2, 3),))])
    text = to_html(build_report(chains, wilson()))
    Page(text)
    assert 'id="forgetting"' not in text


def test_files_beside_the_page(report, tmp_path) -> None:
    page = write_report(report, tmp_path / "new" / "folder")
    assert page.read_text(encoding="utf-8") == to_html(report)
    assert (page.parent / "table.csv").read_text(encoding="utf-8") == to_csv(report.classes)
    markdown = (page.parent / "table.md").read_text(encoding="utf-8")
    assert all(to_markdown(table) in markdown for table in report.tables)
    latex = (page.parent / "table.tex").read_text(encoding="utf-8")
    assert all(to_latex(table) in latex for table in report.tables)
    assert (page.parent / "scores.parquet").exists()
