"""The report's command line: what it prints, what it writes, how it refuses."""

import json

import pytest

from jobs.report import main
from orchestrator.results import load_chains
from orchestrator.table import to_json
from orchestrator.tables import class_table
from training.metrics import mib


@pytest.fixture
def two(store, publish_chain):
    return [publish_chain(store, name, kept=kept) for name, kept in (("WILSON", 0.9), ("other", 0.5))]


def test_chains_side_by_side(store, two, tmp_path, capsys) -> None:
    main(["WILSON", two[1].key[:6], "--store", store.uri, "--out", str(tmp_path / "out"), "--no-pictures"])
    printed = capsys.readouterr().out
    assert "all with background" in printed
    assert "Convention wilson" in printed
    assert str(tmp_path / "out" / "report.html") in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "table.csv", "table.md"]
    header = (tmp_path / "out" / "table.csv").read_text().splitlines()[0]
    assert header == "section,class,WILSON step 0,WILSON step 1,other step 0,other step 1"


def test_json_is_all_that_is_printed_and_follows_the_convention(store, two, tmp_path, capsys) -> None:
    main(["WILSON", "--store", store.uri, "--out", str(tmp_path), "--no-pictures", "--json", "--convention", "mib"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["tables"][0] == json.loads(json.dumps(to_json(class_table(load_chains(store, two[:1]), mib()))))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: name at least one chain"),
        (["WILSN"], "error: no chain is named 'WILSN'"),
        (["WILSON"], "error: there is no dataset 'dddd"),
    ],
)
def test_one_clear_error(store, two, tmp_path, capsys, arguments, sentence) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--store", store.uri, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_an_unknown_option_is_answered_with_the_nearest(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["WILSON", "--conventoin", "mib"])
    assert "--convention" in capsys.readouterr().err
