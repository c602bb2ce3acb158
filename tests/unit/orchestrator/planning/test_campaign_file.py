"""Test that campaigns are found by name and by path."""

import re
from pathlib import Path

import pytest

from jobs.campaigns import SHIPPED
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_file import load_campaign, shipped_campaigns
from tests.support.paths import ROOT
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


START = "from stepchain import digits_finetuning, sweep\n"
CHAINS = "def chains(): return [digits_finetuning()]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{CHAINS}PAPER = 'WILSON Table 4'", "PAPER must be a tuple .* it is a str, 'WILSON"),
        (f"{CHAINS}PAPER = {{'a': 1}}", "PAPER must be a tuple .* it is a dict"),
        (f"{CHAINS}PAPER = 3", "PAPER must be a tuple .* it is a int, 3"),
        (f"{CHAINS}PAPER = [digits_finetuning()]", "PAPER must be a tuple .* it is a list"),
        (
            "def chains(): return [digits_finetuning().model_copy(update={'sede': 3})]",
            "Chain has no field 'sede': did you mean 'seed'",
        ),
        (
            "def chains(): return [digits_finetuning().model_copy(update={'seed': 'three'})]",
            "seed: Input should be a valid integer",
        ),
        (
            "def chains(): return [digits_finetuning().model_copy(update={'method': 'mib'})]",
            "method",
        ),
        (
            "def chains(): return sweep(digits_finetuning(), {'seed': 3})",
            r"axis 'seed' needs several values, such as \(3,\)",
        ),
        (
            "def chains(): return sweep(digits_finetuning(), {'scenario.setting': 'overlap'})",
            r"axis 'scenario.setting' needs several values, such as \('overlap',\)",
        ),
        ("def chains(): return sweep(digits_finetuning(), ['seed'])", "the axes of a sweep are"),
        ("def chains(): return sweep(digits_finetuning, {})", "a sweep starts from a chain"),
        ("def chains(): return digits_finetuning()", "it returned a Chain"),
        ("def chains(): return 'digits'", "it returned a str"),
        ("def chains(): return {'a': digits_finetuning()}", "it returned a dict"),
        ("def chains(): return None", "it returned a NoneType"),
        ("def chains(): return [digits_finetuning]", "it returned a list, with <function"),
        ("def chains(seed): return []", "TypeError: chains"),
        ("chains = [digits_finetuning()]", "it has no function chains"),
        ("raise SystemExit('no')", "line 2: SystemExit: no"),
        ("import nothing_beside", "No module named 'nothing_beside'"),
        (
            "from stepchain import Expected\nE = Expected('WILSON Table 1', 'MiB', 'method')",
            "the third argument of Expected holds values by field",
        ),
    ],
)
def test_a_wrong_type_is_one_sentence_with_the_file(text: str, words: str, tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(START + text + "\n")
    with pytest.raises(InputError, match=f"campaign {path}.*{words}") as caught:
        load_campaign(str(path), SHIPPED)
    assert "\n" not in str(caught.value)


def test_modules_beside_the_file_are_imported_and_forgotten(tmp_path: Path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "beside.py").write_text(f"SEED = {number}\n")
        text = "def chains():\n    import beside\n    return sweep(digits_finetuning(), "
        (folder / "mine.py").write_text(
            f"{START}import beside\n{text}{{'seed': (beside.SEED,)}})\n"
        )
        campaign = load_campaign(str(folder / "mine.py"), SHIPPED)
        assert [chain.seed for chain in campaign.chains] == [number]


def test_a_generator_of_chains_and_a_list_of_expected_are_taken(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(f"{START}def chains(): yield digits_finetuning()\nPAPER = []\n")
    assert len(load_campaign(str(path), SHIPPED).chains) == 1


def test_a_campaign_says_what_its_kinds_of_work_are_given(tmp_path: Path):
    path = tmp_path / "mine.py"
    text = f"{START}def chains(): yield digits_finetuning()\n"
    path.write_text(text + "RESOURCES = {'increment': {'gpus': 0.25}, 'probe': {'gpus': 0}}\n")
    assert load_campaign(str(path), SHIPPED).give == ("increment:gpus=0.25", "probe:gpus=0")
    path.write_text(text + "RESOURCES = {'increment': {'gpu': 0.25}}\n")
    with pytest.raises(InputError, match="gives 'gpu', which is none of workers, cpus, gpus"):
        load_campaign(str(path), SHIPPED)


def test_the_campaigns_of_the_guide_to_searches_can_be_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    files = re.findall(r"```python\n(\"\"\".*?)```", text, flags=re.DOTALL)
    sampled, searched = (_load(tmp_path, content) for content in files)
    assert len(sampled.chains) == 20 * 3
    assert searched.search
    assert searched.search.count == 12


def _load(folder: Path, content: str) -> Campaign:
    path = folder / "campaign.py"
    path.write_text(content, encoding="utf-8")
    return load_campaign(str(path), folder)
