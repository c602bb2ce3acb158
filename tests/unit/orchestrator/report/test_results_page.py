"""Test that a page's tables are made from kept scores, and its text quotes them."""

import pytest

from orchestrator.report.kept_scores import KeptCampaign, KeptStep, KeptVariant
from orchestrator.report.results_page import campaigns_of, fill, loose_numbers
from training.config import InputError

PAGE = """# Results

On another machine it took 0.7 minutes.

## Alpha

<!-- table: alpha -->
whatever stood here
<!-- end -->

Old classes keep 75.0, in version 0.2.0 with `--alpha 0.3`.

## Speed

An iteration takes 12.5 ms.
"""


def read(campaign: str) -> KeptCampaign:
    pixels = {0: (90, 10), 1: (15, 75)}
    step = KeptStep(
        key="k",
        index=0,
        commit=None,
        iterations=1,
        train_seconds=60,
        groups=((1,),),
        pixels=pixels,
    )
    variant = KeptVariant(name="joint", asked=(42,), chains={42: ("k",)})
    return KeptCampaign(campaign=campaign, scored_on="", variants=(variant,), steps=(step,))


def test_a_table_replaces_what_stands_between_its_comments() -> None:
    filled = fill(PAGE, read)
    assert (
        "<!-- table: alpha -->\n"
        "| variant | step 0 | old | new | all |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| joint | – | – | 75.0 | 76.6 |\n"
        "\n"
        "1 of 1 chains; their 1 different steps trained for 0.0 hours.\n"
        "<!-- end -->\n"
    ) in filled
    assert "whatever" not in filled
    assert filled.partition("<!-- table")[0] == PAGE.partition("<!-- table")[0]
    assert fill(filled, read) == filled
    assert campaigns_of(filled) == ["alpha"]


def test_a_number_of_the_text_that_no_table_has_is_found() -> None:
    filled = fill(PAGE, read)
    assert loose_numbers(filled) == []
    assert loose_numbers(filled.replace("keep 75.0", "keep 74.9")) == ["## Alpha: 74.9"]
    by_hand = filled.replace(
        "Old classes keep", "| by hand | 74.9 |\n\nOld classes keep 74.9, then"
    )
    assert loose_numbers(by_hand) == []


def test_what_a_comment_asks_for_is_read() -> None:
    asked = PAGE.replace("table: alpha", "table: alpha with breakdown against joint")
    head = fill(asked, read).partition("-->\n")[2].partition("\n")[0]
    assert head.endswith("as other old | Δ old | Δ new | Δ all |")


@pytest.mark.parametrize(
    "wrong",
    [
        PAGE.replace("table: alpha", "table: alpha with breakdwn"),
        PAGE.replace("<!-- end -->", ""),
        PAGE.replace("<!-- end -->", "<!-- table: beta -->\n<!-- end -->"),
    ],
)
def test_a_comment_that_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="cannot read '<!-- table: alpha"):
        fill(wrong, read)
