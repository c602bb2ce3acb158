"""Every store keeps its promises: a folder, an S3 server in memory, and a real one."""

import http.server
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from orchestrator.store.base import NotFound, Store, StoreError, check_writable
from orchestrator.store.folder import FolderStore
from orchestrator.store.open import open_store


@pytest.fixture(
    params=[
        "folder",
        pytest.param("moto", marks=pytest.mark.s3),
        pytest.param("swift", marks=pytest.mark.s3real),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "a store"))
    return open_store(f"s3://{request.getfixturevalue(f'{request.param}_bucket')}/some/prefix")


@pytest.fixture(
    params=[
        pytest.param("moto", marks=pytest.mark.s3),
        pytest.param("swift", marks=pytest.mark.s3real),
    ]
)
def bucket(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_bucket")


def test_what_is_written_is_read(store: Store):
    assert not store.exists("a/b.json")
    assert store.write("a/b.json", b"one")
    assert store.exists("a/b.json")
    assert store.read("a/b.json") == b"one"
    assert store.write("a/b.json", b"two")
    assert store.read("a/b.json") == b"two"


def test_an_absent_object_is_named(store: Store, tmp_path: Path):
    store.write("a/b", b"")
    for missing in ("nothing/here", "a", "a/b/c"):
        with pytest.raises(NotFound, match=f"no object '{missing}' in the store"):
            store.read(missing)
        with pytest.raises(NotFound):
            store.download(missing, tmp_path / "file")
        assert not store.exists(missing)
    assert list(tmp_path.glob("file*")) == []


def test_only_if_absent_keeps_what_is_there(store: Store):
    assert store.write("a", b"one", only_if_absent=True)
    assert not store.write("a", b"two", only_if_absent=True)
    assert store.read("a") == b"one"


def test_of_many_that_write_only_if_absent_one_does(store: Store, request: pytest.FixtureRequest):
    with ThreadPoolExecutor(8) as pool:
        write = partial(store.write, "a", only_if_absent=True)
        written = list(pool.map(write, [b"%d" % number for number in range(8)]))
    winners = [b"%d" % number for number, won in enumerate(written) if won]
    assert store.read("a") in winners
    # Swift lets two writers win at times, so no code may rely on a single winner.
    if "swift" not in request.node.callspec.id:
        assert len(winners) == 1


def test_list_is_sorted_and_takes_any_beginning(store: Store):
    for key in ("steps/b", "steps/a/2", "steps/a/10", "steps/ab", "other/x"):
        store.write(key, b"")
    assert list(store.list("steps/a")) == ["steps/a/10", "steps/a/2", "steps/ab"]
    assert list(store.list("steps/a/")) == ["steps/a/10", "steps/a/2"]
    assert list(store.list()) == ["other/x", "steps/a/10", "steps/a/2", "steps/ab", "steps/b"]
    assert list(store.list("steps/a/10")) == ["steps/a/10"]
    assert list(store.list("steps/nothing/")) == []


def test_list_goes_on_after_a_page(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    keys = [f"many/{number:04d}" for number in range(25)]
    for key in keys:
        store.write(key, b"")
    assert list(store.list("many/")) == keys


@pytest.mark.parametrize("size", [0, 1000, 33 << 20], ids=["empty", "small", "multipart"])
def test_a_file_comes_back_as_it_went(store: Store, tmp_path: Path, size: int):
    source = tmp_path / "source"
    copy = tmp_path / "new folder" / "copy"
    source.write_bytes(os.urandom(size))
    store.upload(source, "files/x.bin")
    store.download("files/x.bin", copy)
    assert copy.read_bytes() == source.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    copy.write_bytes(b"a copy is one's own")
    assert store.read("files/x.bin") == source.read_bytes()


def test_delete_takes_one_object_or_a_folder(store: Store):
    for key in ("steps/a", "steps/a.bak", "steps/b/1", "steps/b/c/2", "steps/bc"):
        store.write(key, b"")
    store.delete("steps/a")
    store.delete("steps/b/")
    assert list(store.list()) == ["steps/a.bak", "steps/bc"]
    store.delete("steps/a")
    store.delete("steps/nothing/")
    assert store.write("steps/b/1", b"again")


def test_a_key_cannot_leave_the_store(store: Store):
    for key in ("/a", "../a", "a/../../b", "a//b", "a/./b", "", "a/", "a\\b", ".tmp/a", "a\0b"):
        for act in (store.read, store.exists, lambda key: store.write(key, b"")):
            with pytest.raises(ValueError, match="is not a key"):
                act(key)
    for prefix in ("../", "/", "a/../"):
        with pytest.raises(ValueError, match="is not a key"):
            store.delete(prefix)


def test_a_store_travels_without_credentials_or_connection(store: Store, secret: str):
    store.write("a", b"one")
    data = pickle.dumps(store)
    assert secret.encode() not in data
    assert b"tester" not in data
    assert len(data) < 500
    copy = pickle.loads(data)
    assert copy == store
    assert copy.read("a") == b"one"
    assert secret not in repr(store)


def test_the_uri_opens_the_same_store(store: Store):
    assert open_store(store.uri) == store
    store.write("a", b"one")
    assert open_store(store.uri).read("a") == b"one"


def test_a_usable_store_passes_the_check_and_stays_empty(store: Store):
    check_writable(store)
    assert list(store.list()) == []


def test_local_path_is_the_object_itself_or_none(store: Store):
    store.write("a/b", b"one")
    path = store.local_path("a/b")
    if store.uri.startswith("s3://"):
        assert path is None
    else:
        assert path is not None
        assert path.read_bytes() == b"one"


def test_a_folder_is_named_by_path_or_file_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a store"
    for name in ("a store", str(folder), folder.as_uri()):
        assert open_store(name) == FolderStore(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "uri", ["gs://bucket", "s3://", "", "s3://key:secret@bucket/x", "http://host/x"]
)
def test_another_uri_is_refused(uri: str):
    with pytest.raises(StoreError, match=r"s3://bucket/prefix"):
        open_store(uri)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    sentence = "cannot write 'probe-.*Not a directory.*check the folder, its rights and its disk"
    with pytest.raises(StoreError, match=sentence):
        check_writable(open_store(str(tmp_path / "file")))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_store(str(tmp_path))
    store.write("a", b"one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write("a", b"two")
    with pytest.raises(StoreError, match="No space left on device"):
        store.upload(tmp_path / "a", "b")
    assert store.read("a") == b"one"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]


def test_what_a_killed_writer_left_is_no_object(tmp_path: Path):
    store = open_store(str(tmp_path))
    store.write("a", b"")
    (tmp_path / ".tmp" / "half").write_bytes(b"ha")
    assert list(store.list()) == ["a"]


def test_a_missing_bucket_is_one_sentence(bucket: str):
    sentence = "no bucket 'absent-bucket'; create it, or correct the store's URI"
    with pytest.raises(StoreError, match=sentence):
        check_writable(open_store("s3://absent-bucket/x"))


def test_stores_of_one_bucket_do_not_see_each_other(bucket: str):
    open_store(f"s3://{bucket}/one").write("a", b"1")
    open_store(f"s3://{bucket}/one-two").write("a", b"2")
    assert list(open_store(f"s3://{bucket}/one").list()) == ["a"]
    assert list(open_store(f"s3://{bucket}").list()) == ["one-two/a", "one/a"]
    assert open_store(f"s3://{bucket}").uri == f"s3://{bucket}"


def test_missing_credentials_are_one_sentence(s3_environment: pytest.MonkeyPatch):
    s3_environment.delenv("AWS_ACCESS_KEY_ID")
    s3_environment.delenv("AWS_SECRET_ACCESS_KEY")
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        check_writable(open_store("s3://bucket/x"))


def test_an_unknown_profile_is_one_sentence(s3_environment: pytest.MonkeyPatch):
    s3_environment.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match="profile"):
        check_writable(open_store("s3://bucket/x"))


def test_a_server_that_does_not_answer_is_one_sentence(s3_environment: pytest.MonkeyPatch):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"does not answer .*; check AWS_ENDPOINT_URL"):
        check_writable(open_store("s3://bucket/x"))


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that answers as S3 does to a wrong secret."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>wrong secret</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output free of requests."""


def test_refused_credentials_are_one_sentence_without_them(
    s3_environment: pytest.MonkeyPatch, secret: str
):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        s3_environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        sentence = r"the server refused it .*; check AWS_ACCESS_KEY_ID or AWS_PROFILE"
        with pytest.raises(StoreError, match=sentence) as caught:
            check_writable(open_store("s3://bucket/x"))
        server.shutdown()
    assert secret not in str(caught.value)


def test_entries_tell_size_and_time(store: Store):
    before = datetime.now(UTC) - timedelta(seconds=2)  # some servers cut off fractions
    for key, data in {"b/two": b"22", "a": b"", "b/one": b"1"}.items():
        store.write(key, data)
    assert [(entry.key, entry.bytes) for entry in store.entries()] == [
        ("a", 0),
        ("b/one", 1),
        ("b/two", 2),
    ]
    assert [entry.key for entry in store.entries("b/")] == ["b/one", "b/two"]
    assert all(before < entry.modified < before + timedelta(minutes=1) for entry in store.entries())
