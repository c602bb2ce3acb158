"""Test that campaigns are found by name and by path."""

from pathlib import Path

import pytest

from jobs.campaigns import SHIPPED
from orchestrator.planning.campaign_file import load_campaign, shipped_campaigns
from training.config import InputError


def test_campaigns_are_found_by_name_and_by_path(tmp_path: Path):
    assert "digits_wilson_alpha" in shipped_campaigns(SHIPPED)
    shipped_one = load_campaign("digits-wilson-alpha", SHIPPED)
    assert shipped_one.name == "digits_wilson_alpha"
    assert shipped_one.question.startswith("How hard should")
    with pytest.raises(
        InputError, match="no campaign 'digits_wilson_alfa': did you mean 'digits_wilson_alpha'"
    ):
        load_campaign("digits_wilson_alfa", SHIPPED)
    with pytest.raises(InputError, match=r"no campaign file .*/absent\.py"):
        load_campaign(str(tmp_path / "absent.py"), SHIPPED)
