"""Test that papers' numbers have conventions and are found for the paper's own scenario only."""

import pytest

from orchestrator.planning.chain import Chain
from orchestrator.planning.fields import with_field
from orchestrator.planning.paper_numbers import (
    Expected,
    PaperNumber,
    find_paper_number,
    paper_numbers,
)
from stepchain.presets import ade_mib, coco_voc_wilson, digits_wilson, voc_mib, voc_wilson
from tests.support.paths import SHARED
from training.config import InputError
from training.data.voc import VOC_CLASSES
from training.scenario import split_groups

# Number of old and new classes.
SIZES = {
    "19-1": (19, 1),
    "15-5": (15, 5),
    "15-1": (15, 5),
    "10-10": (10, 10),
    "100-50": (100, 50),
    "coco-voc": (60, 20),
}
# Rows of WILSON's Tables 1 and 2 that come from other papers. PLOP's in 15-5 are its own paper's.
COPIED = ("Joint", "FT", "LWF", "LWF-MC", "ILT", "CIL", "MiB", "SDR", "RECALL")
OF_TABLE = {"WILSON Table 1": COPIED, "WILSON Table 2": (*COPIED, "PLOP")}
WITHOUT_REFERENCE = ("WILSON Table 3", "MiB Table 2", "SSUL README")
WILSON = Expected("WILSON Table 1", "WILSON", {"method.name": "wilson"})


def voc_10_10(**fields: object) -> Chain:
    chain = with_field(voc_wilson(), "scenario.groups", split_groups("10-10", VOC_CLASSES))
    for name, value in fields.items():
        chain = with_field(chain, name.replace("__", "."), value)
    return chain


def test_what_the_papers_print():
    rows = {(row.source, row.task, row.setting, row.variant): row for row in paper_numbers()}
    assert len(rows) == len(paper_numbers()), "no row stands twice"
    mib = rows["MiB Table 1", "15-1", "overlap", "MiB"]
    assert (mib.old, mib.new, mib.all, mib.convention) == (
        pytest.approx(0.351),
        pytest.approx(0.135),
        pytest.approx(0.297),
        "mib",
    )
    figure = rows["WILSON Figure 4", "10-10", "overlap", "WILSON alpha=0.3"]
    assert (figure.old, figure.new, figure.all) == (None, None, pytest.approx(0.648))
    assert {row.convention for row in paper_numbers()} == {"wilson", "mib", "plop", "unknown"}


def test_numbers_add_up_under_their_convention():
    """To rounding, `all` is the mean over the classes that the convention counts.

    It leaves out the background, or counts it with some value from 0 to 1.
    """
    for row in paper_numbers():
        if (
            row.old is not None
            and row.new is not None
            and row.all is not None
            and row.convention in ("mib", "plop")
        ):
            old, new = SIZES[row.task]
            old += row.convention == "plop"  # counts background among the old classes
            assert (old * row.old + new * row.new) / (old + new) == pytest.approx(
                row.all, abs=0.0021
            ), row
        if (
            row.convention == "wilson"
            and row.old is not None
            and row.new is not None
            and row.all is not None
        ):
            old, new = SIZES[row.task]
            background = (old + new + 1) * row.all - old * row.old - new * row.new
            assert 0.7 < background < 1, row


@pytest.mark.shared
def test_the_data_are_the_reference_rows():
    file = SHARED / "reference" / "paper_results.csv"
    if not file.exists():
        pytest.skip(f"no {file}: set STEPCHAIN_SHARED to the folder that has it")
    numbers = [line for line in file.read_text(encoding="utf-8").splitlines()[1:] if line]
    assert len(numbers) == sum(row.source not in WITHOUT_REFERENCE for row in paper_numbers())


def _adds_up(row: PaperNumber, background: int) -> bool:
    """Return whether old, with this many classes for background, and new make up all."""
    assert row.old is not None
    assert row.new is not None
    assert row.all is not None
    old, new = SIZES[row.task]
    old += background
    # Three roundings add up to 0.001 at most, and to 0.0008 in no row.
    return abs((old * row.old + new * row.new) / (old + new) - row.all) < 0.0008


@pytest.mark.parametrize("source", ["WILSON Table 1", "WILSON Table 2"])
def test_the_convention_of_copied_numbers_follows_from_arithmetic(source: str):
    variants = OF_TABLE[source]
    copied = [r for r in paper_numbers() if r.source == source and r.variant in variants]
    assert len(copied) == 2 * len(variants)
    for row in copied:
        found = {(True, False): "plop", (False, True): "mib", (False, False): "unknown"}
        assert found[_adds_up(row, 1), _adds_up(row, 0)] == row.convention, row
    unknown = {row.variant for row in copied if row.convention == "unknown"}
    last = {"Joint"} if source == "WILSON Table 1" else {"CIL", "PLOP"}
    assert unknown == {"RECALL"} | last


def test_numbers_on_coco_and_ade():
    rows = {(row.source, row.task, row.variant): row for row in paper_numbers()}
    wilson = rows["WILSON Table 3", "coco-voc", "WILSON"]
    assert (wilson.old, wilson.new, wilson.all) == pytest.approx((0.398, 0.41, 0.406))
    mib = rows["MiB Table 2", "100-50", "MiB"]
    assert (mib.old, mib.new, mib.all) == pytest.approx((0.379, 0.279, 0.346))
    assert rows["MiB Table 2", "50-50", "MiB"].new is None


def test_numbers_on_coco_and_ade_stand_beside_their_scenarios():
    weak = Expected("WILSON Table 3", "WILSON", {"method.name": "wilson"})
    number = find_paper_number(coco_voc_wilson(), [weak], "wilson")
    assert number is not None
    assert number.all == pytest.approx(0.406)
    masks = Expected("MiB Table 2", "MiB", {"method.name": "mib"})
    listed = with_field(ade_mib(), "scenario.selections", "0" * 64)
    number = find_paper_number(listed, [masks], "mib")
    assert number is not None
    assert number.all == pytest.approx(0.346)
    assert find_paper_number(ade_mib(), [masks], "mib") is None


def test_a_reconstruction_is_said_to_be_one():
    plain = find_paper_number(voc_wilson(), [WILSON], "wilson")
    ours = Expected("WILSON Table 1", "WILSON", {"method.name": "wilson"}, reconstruction=True)
    reconstructed = find_paper_number(voc_wilson(), [ours], "wilson")
    assert plain is not None
    assert reconstructed is not None
    assert (plain.reconstruction, reconstructed.reconstruction) == (False, True)
    assert reconstructed.all == plain.all


def test_a_number_stands_beside_the_papers_scenario_only():
    number = find_paper_number(voc_wilson(), [WILSON], "wilson")
    assert number is not None
    assert (number.task, number.setting, number.all) == ("15-5", "overlap", pytest.approx(0.672))
    disjoint = find_paper_number(
        with_field(voc_wilson(), "scenario.setting", "disjoint"), [WILSON], "wilson"
    )
    assert disjoint is not None
    assert disjoint.all == pytest.approx(0.673)
    groups = voc_wilson().scenario.groups
    for other in (
        digits_wilson(),
        voc_mib(),
        with_field(voc_wilson(), "scenario.labels", "seen"),
        with_field(voc_wilson(), "scenario.image_share", 0.5),
        with_field(voc_wilson(), "scenario.memory", 100),
        with_field(voc_wilson(), "scenario.groups", (groups[0][::-1], groups[1])),
        with_field(voc_wilson(), "scenario.dataset", "voc-small"),
        voc_10_10(),
    ):
        assert find_paper_number(other, [WILSON], "wilson") is None


def test_values_say_which_variant_a_row_is_about():
    expected = [
        Expected("WILSON Figure 4", f"WILSON alpha={alpha}", {"method.alpha": alpha})
        for alpha in (0, 0.5, 1)
    ]
    found = {
        alpha: find_paper_number(voc_10_10(method__alpha=alpha), expected, "wilson")
        for alpha in (0, 0.5, 0.7)
    }
    assert [number and number.variant for number in found.values()] == [
        "WILSON alpha=0",
        "WILSON alpha=0.5",
        None,
    ]


def test_a_field_that_a_method_lacks_fits_nothing():
    plain = Expected("WILSON Table 1", "WILSON", {"method.background_mix": None})
    assert plain.fits(voc_wilson())
    assert not plain.fits(voc_mib())


def test_of_several_numbers_that_of_the_same_convention_comes_first():
    both = [Expected("WILSON Table 1", "PLOP"), Expected("MiB Table 1", "MiB")]
    sources = [
        find_paper_number(voc_mib(), both, convention) for convention in ("wilson", "mib", "plop")
    ]
    assert [number and number.variant for number in sources] == ["PLOP", "MiB", "PLOP"]


def test_numbers_that_are_not_known_are_refused():
    with pytest.raises(InputError, match=r"'WILSN' in 'WILSON Table 1' is known: it has Joint, FT"):
        Expected("WILSON Table 1", "WILSN")
    with pytest.raises(InputError, match="there are WILSON Table 1"):
        Expected("WILSON Table 7", "WILSON")
