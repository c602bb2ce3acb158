"""The report's command line: what it prints, what it writes, how it refuses."""

import json
import re
from pathlib import Path

import pandas
import pytest

from jobs.report import main
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.chain_tables import class_table
from orchestrator.report.render import to_json
from training.metrics import mib


@pytest.fixture
def two(store, publish_chain):
    return [
        publish_chain(store, name, kept=kept) for name, kept in (("WILSON", 0.9), ("other", 0.5))
    ]


def test_chains_side_by_side(store, two, tmp_path, capsys) -> None:
    main(
        [
            "WILSON",
            two[1].key[:6],
            "--store",
            store.uri,
            "--out",
            str(tmp_path / "out"),
            "--no-pictures",
        ]
    )
    printed = capsys.readouterr().out
    assert "all with background" in printed
    assert "Convention wilson" in printed
    assert str(tmp_path / "out" / "report.html") in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "scores.parquet",
        "table.csv",
        "table.md",
        "table.tex",
    ]
    header = (tmp_path / "out" / "table.csv").read_text().splitlines()[0]
    assert header == "section,class,WILSON step 0,WILSON step 1,other step 0,other step 1"


def test_a_dataset_that_was_looked_at_is_linked(store, two, tmp_path) -> None:
    out = tmp_path / "out"
    options = ["WILSON", "--store", store.uri, "--out", str(out), "--no-pictures"]
    main(options)
    assert "dataset.html" not in (out / "report.html").read_text()
    store.write(layout.dataset_page("d" * 64), b"<p>the dataset</p>")
    main(options)
    assert '<a href="dataset.html">digits before training</a>' in (out / "report.html").read_text()
    assert (out / "dataset.html").read_bytes() == b"<p>the dataset</p>"


def test_json_is_all_that_is_printed_and_follows_the_convention(
    store, two, tmp_path, capsys
) -> None:
    main(
        [
            "WILSON",
            "--store",
            store.uri,
            "--out",
            str(tmp_path),
            "--no-pictures",
            "--json",
            "--convention",
            "mib",
        ]
    )
    shown = json.loads(capsys.readouterr().out)
    assert shown["tables"][0] == json.loads(
        json.dumps(to_json(class_table(load_chains(Repository(store), two[:1]), mib())))
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: name at least one chain"),
        (
            ["WILSON", "--campaign", "seeds"],
            "error: name chains, or one --campaign, or --sync-mlflow",
        ),
        (["--campaign", "sedes"], "error: there is no campaign 'sedes': did you mean 'seeds'"),
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


def test_a_campaign_by_name_without_its_file(finished_campaign, tmp_path, capsys) -> None:
    _, store = finished_campaign
    main(["--campaign", "hardness", "--store", store.uri, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "The campaign so far" in printed
    assert "Forgetting" in printed
    main(["--campaign", "hardness", "--store", store.uri, "--out", str(tmp_path), "--json"])
    shown = json.loads(capsys.readouterr().out)
    titles = [table["title"] for table in shown["tables"]]
    assert titles[:2] == ["The campaign so far", "IoU of every class after every step"]
    assert Path(shown["report"]).read_text().count("alpha=0.5 prior=fixed")


def test_a_campaign_by_its_file(finished_campaign, tmp_path, capsys) -> None:
    _, store = finished_campaign
    file = tmp_path / "mine.py"
    file.write_text(
        '"""Mine?"""\nfrom stepchain import digits_wilson\n\n'
        "def chains():\n    return [digits_wilson()]\n"
    )
    main(["--campaign", str(file), "--store", store.uri, "--out", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["tables"][0]["rows"][0]["values"][0] == "0/1"


def test_the_guide_to_exploration_works(finished_campaign, tmp_path, capsys, monkeypatch) -> None:
    _, store = finished_campaign
    monkeypatch.chdir(tmp_path)
    main(["--parquet", "--store", store.uri, "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "chains": 12,
        "parquet": "reports/scores.parquet",
    }
    guide = (Path(__file__).parents[3] / "docs" / "exploration.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    means = pandas.read_parquet("reports/scores.parquet").query("last and metric == 'miou_all'")
    wanted = means[(means["method.prior"] == "fixed") & (means["method.alpha"] == 0.5)]["value"]
    (line,) = [line.split() for line in printed if line.split()[:1] == ["0.5"]][1:]
    assert [float(line[1]), float(line[2]), int(line[3])] == [
        pytest.approx(wanted.mean(), abs=1e-5),
        pytest.approx(wanted.std(), abs=1e-5),
        2,
    ]


def test_mlflow_is_made_from_records(store, two, tmp_path, capsys) -> None:
    main(
        [
            "--sync-mlflow",
            "--store",
            store.uri,
            "--tracking-uri",
            f"sqlite:///{tmp_path}/mlflow.db",
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out) == {"runs": 6, "stale runs ended": 0, "left out": []}
