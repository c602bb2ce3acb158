"""Fill the tables of a page of results, and find numbers in its text that no table has.

A table stands between two comments. The first says what it shows:

    <!-- table: digits_wilson_alpha with breakdown against alpha=0.5 -->
    <!-- end -->

Text quotes scores with one decimal. In a section with such a table, each of them must stand in a
table of the section.
"""

import re
from collections.abc import Callable

from orchestrator.report.kept_scores import KeptCampaign
from orchestrator.report.kept_tables import Wanted, kept_table
from orchestrator.report.render import markdown_lines
from training.config import InputError

BEGINS = "<!-- table:"
BLOCK = re.compile(
    r"<!-- table: (?P<campaign>\w+)(?P<breakdown> with breakdown)?"
    r"(?: against (?P<against>[^\n]+?))? -->\n.*?<!-- end -->",
    re.DOTALL,
)
NUMBER = re.compile(r"(?<![\w.])\d+\.\d(?![\w.]*\d)")
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def campaigns_of(text: str) -> list[str]:
    """Return the campaigns whose tables a page has, each once. Raise InputError as `fill` does."""
    _check(text)
    return list(dict.fromkeys(match["campaign"] for match in BLOCK.finditer(text)))


def fill(text: str, read: Callable[[str], KeptCampaign]) -> str:
    """Return the page with its tables made anew.

    Args:
        text: The page.
        read: Returns the kept scores of a campaign.

    Raises:
        InputError: A comment that begins a table cannot be read, or asks for a variant that does
            not exist.
    """
    _check(text)

    def block(match: re.Match[str]) -> str:
        wanted = Wanted(breakdown=bool(match["breakdown"]), against=match["against"])
        table = kept_table(read(match["campaign"]), wanted)
        first = match[0].partition("\n")[0]
        return "\n".join([first, *markdown_lines(table), "", table.caption, "<!-- end -->"])

    return BLOCK.sub(block, text)


def loose_numbers(text: str) -> list[str]:
    """Return the scores that the text of a section quotes and none of its tables has.

    Sections without a table of kept scores are not looked at.
    """
    loose = []
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        made = [match[0] for match in BLOCK.finditer(section)]
        if not made:
            continue
        lines = CODE.sub("", BLOCK.sub("", section)).splitlines()
        by_hand = [line for line in lines if line.startswith("|")]
        known = set(NUMBER.findall("\n".join(made + by_hand)))
        for line in lines:
            loose += [f"{lines[0]}: {each}" for each in NUMBER.findall(line) if each not in known]
    return loose


def _check(text: str) -> None:
    """Raise InputError if a comment that begins a table is not one that `fill` understands."""
    for begin in re.finditer(re.escape(BEGINS), text):
        found = BLOCK.match(text, begin.start())
        if found is None or found[0].count(BEGINS) > 1:
            line = text[begin.start() :].partition("\n")[0]
            raise InputError(
                f"cannot read {line!r}: write `<!-- table: CAMPAIGN [with breakdown] "
                "[against VARIANT] -->`, and `<!-- end -->` below it"
            )
