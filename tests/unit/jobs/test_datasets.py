from pathlib import Path

import numpy as np
import pytest

from jobs import ingest
from orchestrator.datasets.catalog import resolve, stored_files
from orchestrator.datasets.image_lists import load_lists, publish_lists, read_selections
from orchestrator.records import layout
from orchestrator.records.store_version import prepare_store
from orchestrator.store.open import open_store
from training.data.transforms import decode_mask
from training.data.voc import Voc


@pytest.fixture
def store(
    voc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> str:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    uri = str(tmp_path / "store")
    ingest.main(["voc", "--root", str(voc_folder), "--store", uri])
    ingest.main(["digits", "--train", "3", "--val", "1", "--store", uri])
    capsys.readouterr()
    return uri


def test_ls_names_what_there_is(store: str, capsys: pytest.CaptureFixture):
    ingest.main(["ls", "--store", store])
    out = capsys.readouterr().out
    assert "24 train, 8 val" in out
    assert "3 train, 1 val" in out
    assert resolve(open_store(store), "voc")[0][:16] in out


def test_copies_of_a_name_are_passed_over_and_said_once(store: str, capsys: pytest.CaptureFixture):
    opened = open_store(store)
    for name in ("voc (conflicted copy)", "digits 2", "sub/voc"):
        opened.write(layout.dataset_name(name), opened.read(layout.dataset_name("voc")))
    ingest.main(["ls", "--store", store])
    out = " ".join(capsys.readouterr().out.split())
    assert "24 train, 8 val" in out
    said = "refs/digits 2, datasets/refs/sub/voc, datasets/refs/voc (conflicted copy)"
    assert out.count("passed over") == 1
    assert said in out


def test_a_store_without_datasets_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as caught:
        ingest.main(["ls", "--store", str(tmp_path / "no" / "such" / "store")])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert f"there is no store at {tmp_path}/no/such/store: check --store" in err
    assert not (tmp_path / "no").exists()
    prepare_store(open_store(str(tmp_path / "new")))
    with pytest.raises(SystemExit):
        ingest.main(["ls", "--store", str(tmp_path / "new")])
    assert "new has no dataset: name another with --store" in capsys.readouterr().err


def test_info_counts_the_images_of_each_class(
    store: str, voc_folder: Path, capsys: pytest.CaptureFixture
):
    ingest.main(["info", "voc", "--store", store, "--verify"])
    out = capsys.readouterr().out
    cats = sum(
        bool((decode_mask(path.read_bytes()) == 8).any())
        for path in (voc_folder / "SegmentationClassAug").glob("*val*")
    )
    (line,) = [line for line in out.splitlines() if " cat " in line]
    assert f" {cats} " in line
    assert "verified: 4 files" in out


def test_info_finds_what_is_damaged_and_ingest_mends_it(
    store: str, voc_folder: Path, capsys: pytest.CaptureFixture
):
    opened = open_store(store)
    key, *_ = stored_files(resolve(opened, "voc")[1])
    data = bytearray(opened.read(key))
    data[len(data) // 2] ^= 1
    opened.write(key, bytes(data))
    with pytest.raises(SystemExit):
        ingest.main(["info", "voc", "--store", store, "--verify"])
    err = capsys.readouterr().err
    assert (
        f"1 of 4 files of dataset 'voc' in the store {store} are damaged or missing ({key}): "
        "ingest it again with --verify" in err
    )
    ingest.main(["voc", "--root", str(voc_folder), "--store", store, "--verify"])
    assert "4 files, 1 of them damaged and stored again" in capsys.readouterr().out
    ingest.main(["info", "voc", "--store", store, "--verify"])


def test_info_says_of_a_damaged_index_what_mends_it(
    store: str, voc_folder: Path, capsys: pytest.CaptureFixture
):
    opened = open_store(store)
    key = layout.index(resolve(opened, "voc")[1].splits["val"].index.sha256)
    opened.write(key, opened.read(key)[:-9])
    with pytest.raises(SystemExit):
        ingest.main(["info", "voc", "--store", store])
    assert f"{key!r} of the store {store} is corrupted" in (err := capsys.readouterr().err)
    assert "ingest the dataset again with --verify" in err
    ingest.main(["voc", "--root", str(voc_folder), "--store", store, "--verify"])
    ingest.main(["info", "voc", "--store", store])


@pytest.mark.parametrize("setting", ["disjoint", "overlap"])
def test_export_writes_the_ids_of_each_step(
    store: str, voc_folder: Path, tmp_path: Path, setting: str
):
    ingest.main(
        [
            "export",
            "voc",
            "--split",
            "10-5",
            "--setting",
            setting,
            "--out",
            str(tmp_path / "out"),
            "--store",
            store,
        ]
    )
    source = Voc(voc_folder)
    steps = ((1, 10), (11, 15), (16, 20))
    for step, (first, last) in enumerate(steps):
        expected = []
        for id in source.ids("train"):
            values = np.setdiff1d(decode_mask(source.read("train", id).mask), [0, 255])
            if ((values >= first) & (values <= last)).any() and (
                setting == "overlap" or values.max() <= last
            ):
                expected.append(id)
        assert (
            tmp_path / "out" / f"voc_10-5_{setting}_step{step}.txt"
        ).read_text().split() == expected
        assert expected


def test_export_takes_groups_by_name(store: str, tmp_path: Path):
    ingest.main(
        [
            "export",
            "voc",
            "--groups",
            "cat",
            "dog,cow",
            "--images",
            "val",
            "--out",
            str(tmp_path),
            "--store",
            store,
        ]
    )
    assert (tmp_path / "voc_groups_overlap_step1.txt").read_text().startswith("2007_val_")


def test_training_reads_the_lists_that_export_writes(store: str, tmp_path: Path):
    lists = tmp_path / "lists"
    at = ["--store", store]
    groups = ["cat,", "chair", "cow,", "dog"]
    ingest.main(["export", "voc", "--groups", *groups, "--out", str(lists), *at])
    opened = open_store(store)
    steps = load_lists(opened, publish_lists(opened, read_selections(opened, lists, "voc")))
    written = [path.read_text().split() for path in sorted(lists.iterdir())]
    assert [list(step) for step in steps] == written
    assert len(steps) == 2


def test_a_folder_in_the_place_of_a_list_is_named(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = tmp_path / "lists" / "voc_groups_overlap_step0.txt"
    path.mkdir(parents=True)
    with pytest.raises(SystemExit) as caught:
        ingest.main(
            ["export", "voc", "--groups", "cat", "--out", str(path.parent), "--store", store]
        )
    assert caught.value.code == 2
    assert f"cannot write {path} (Is a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "voc", "--groups", "CAT,dgo"], "did you mean 'cat'?"),
        (["export", "voc"], "give either --split or --groups"),
        (["export", "voc", "--groups", "kat"], "did you mean 'cat'?"),
        (["export", "voc", "--split", "15-4"], "does not divide 20 classes"),
        (
            ["export", "voc", "--split", "15-5", "--images", "test"],
            "no split 'test'; it has train, val",
        ),
        (["info", "vok"], "did you mean 'voc'?"),
    ],
)
def test_bad_input_is_one_clear_line(
    store: str, capsys: pytest.CaptureFixture, arguments: list[str], message: str
):
    with pytest.raises(SystemExit) as caught:
        ingest.main([*arguments, "--store", store])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
