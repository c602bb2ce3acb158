import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.store.base import NotFound
from orchestrator.store.cache import (
    CorruptedObject,
    copy_object,
    default_cache,
    fetch,
    file_sha256,
    open_object,
)
from orchestrator.store.cache_folder import CacheError
from orchestrator.store.folder import FolderStore
from orchestrator.store.open import open_store
from training.config import InputError


class Remote(FolderStore):
    """A store that does not lie on this machine, and counts what is taken from it."""

    downloads: list[str]

    def local_path(self, key: str) -> Path | None:
        return None

    def download(self, key: str, path: Path) -> None:
        self.downloads.append(key)
        super().download(key, path)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    store = Remote(tmp_path / "store")
    object.__setattr__(store, "downloads", [])
    return store


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts
    )


def test_an_object_is_fetched_once_and_keeps_its_suffix(remote: Remote, tmp_path: Path):
    remote.write("weights/x.safetensors", b"weights")
    paths = {
        fetch(remote, "weights/x.safetensors", sha256(b"weights"), tmp_path / "cache")
        for _ in range(3)
    }
    (path,) = paths
    assert path.read_bytes() == b"weights"
    assert path.suffix == ".safetensors"
    assert remote.downloads == ["weights/x.safetensors"]


def test_many_who_want_an_object_fetch_it_once(remote: Remote, tmp_path: Path):
    remote.write("a.bin", bytes(1 << 20))
    with ThreadPoolExecutor(8) as pool:
        paths = set(
            pool.map(
                lambda _: fetch(remote, "a.bin", sha256(bytes(1 << 20)), tmp_path / "cache"),
                range(16),
            )
        )
    assert len(paths) == 1
    assert remote.downloads == ["a.bin"]


@pytest.mark.parametrize("kind", ["remote", "folder"])
def test_a_corrupted_object_is_named_and_not_kept(kind: str, remote: Remote, tmp_path: Path):
    store = remote if kind == "remote" else open_store(str(tmp_path / "store"))
    store.write("a.bin", b"what was published")
    wanted = sha256(b"what was published")
    store.write("a.bin", b"what was publishee")
    with pytest.raises(CorruptedObject, match=r"'a\.bin'") as caught:
        fetch(store, "a.bin", wanted, tmp_path / "cache")
    assert wanted in str(caught.value)
    assert sha256(b"what was publishee") in str(caught.value)
    assert files(tmp_path / "cache") == []
    store.write("a.bin", b"what was published")
    assert fetch(store, "a.bin", wanted, tmp_path / "cache").read_bytes() == b"what was published"


def test_what_was_written_to_since_is_verified_again(tmp_path: Path):
    store = open_store(str(tmp_path / "store"))
    store.write("a.bin", b"what was published")
    wanted = sha256(b"what was published")
    cached = fetch(store, "a.bin", wanted, tmp_path / "cache")
    original = tmp_path / "store" / "a.bin"
    assert original.samefile(cached)
    with original.open("r+b") as file:
        file.write(b"WHAT")
    with pytest.raises(CorruptedObject):
        fetch(store, "a.bin", wanted, tmp_path / "cache")
    store.write("a.bin", b"what was published")
    assert fetch(store, "a.bin", wanted, tmp_path / "cache").read_bytes() == b"what was published"


def test_an_absent_object_leaves_nothing(remote: Remote, tmp_path: Path):
    for store in (remote, open_store(str(tmp_path / "store"))):
        with pytest.raises(NotFound):
            fetch(store, "a.bin", "0" * 64, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_a_folder_store_is_linked_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_store(str(tmp_path / "store"))
    store.write("a.bin", b"one")
    path = fetch(store, "a.bin", sha256(b"one"), tmp_path / "cache")
    assert path.samefile(tmp_path / "store" / "a.bin")
    store.write("a.bin", b"two")  # replaces the name, not the bytes
    assert path.read_bytes() == b"one"

    def other_disk(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    copy = fetch(store, "a.bin", sha256(b"two"), tmp_path / "cache")
    assert copy.read_bytes() == b"two"
    assert not copy.samefile(tmp_path / "store" / "a.bin")


def test_what_a_killed_process_left_is_replaced(remote: Remote, tmp_path: Path):
    remote.write("a.bin", b"one")
    left = tmp_path / "cache" / "partial" / f"{sha256(b'one')}.bin"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"o")
    assert fetch(remote, "a.bin", sha256(b"one"), tmp_path / "cache").read_bytes() == b"one"
    assert files(tmp_path / "cache") == [f"{sha256(b'one')}.bin"]


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.setenv("STEPCHAIN_CACHE", "")
    assert default_cache() == Path("~/.cache/stepchain").expanduser()
    monkeypatch.delenv("STEPCHAIN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "stepchain"


def test_file_sha256(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == sha256(b"abc")


def wanted(remote: Remote, name: str) -> tuple[str, str]:
    """Return the key and digest of a new object of 100 kB."""
    data = name.encode() * 100_000
    remote.write(name, data)
    return name, sha256(data)


def test_what_was_used_longest_ago_makes_room(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE_GB", "0.00025")
    cache = tmp_path / "cache"
    a, b, c = (wanted(remote, name) for name in "abc")
    for key, digest in (a, b, a, c):
        fetch(remote, key, digest, cache)
    assert files(cache) == sorted([a[1], c[1]])
    fetch(remote, *b, cache)
    assert remote.downloads == ["a", "b", "c", "b"]


@pytest.mark.parametrize("use", ["file", "map", "child"])
def test_what_is_in_use_stays(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
):
    """The lock goes with a map, and to forked processes. While one reads, nothing is removed."""
    monkeypatch.setenv("STEPCHAIN_CACHE_GB", "0")
    cache = tmp_path / "cache"
    child = 0
    a, b, c = (wanted(remote, name) for name in "abc")
    file = open_object(remote, *a, cache)
    ends: list[Callable[[], object]] = [file.close]
    mapped = None
    if use != "file":
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        ends = [mapped.close]
        file.close()
    if use == "child":
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        assert mapped is not None
        mapped.close()
        ends = [lambda: os.close(writer), lambda: os.waitpid(child, 0)]
    with open_object(remote, *b, cache):
        assert files(cache) == sorted([a[1], b[1]])
    for end in ends:
        end()
    with open_object(remote, *c, cache):
        assert files(cache) == [c[1]]


def test_a_copy_outlives_the_cache(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEPCHAIN_CACHE_GB", "0")
    copy_object(remote, *wanted(remote, "a"), tmp_path / "cache", tmp_path / "copy")
    with open_object(remote, *wanted(remote, "b"), tmp_path / "cache"):
        assert (tmp_path / "copy").read_bytes() == b"a" * 100_000


def test_objects_of_a_store_on_the_same_disk_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE_GB", "0")
    store = open_store(str(tmp_path / "store"))
    for name in "ab":
        store.write(name, name.encode())
        fetch(store, name, sha256(name.encode()), tmp_path / "cache")
    assert len(files(tmp_path / "cache")) == 2


class FullDisk(Remote):
    """Downloads to a disk that has room for one object."""

    def download(self, key: str, path: Path) -> None:
        if any((path.parents[2] / "objects").iterdir()):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        super().download(key, path)


def test_a_full_disk_is_cleared_of_what_is_not_in_use_or_one_error(tmp_path: Path):
    store = FullDisk(tmp_path / "store")
    object.__setattr__(store, "downloads", [])
    a, b, c = (wanted(store, name) for name in "abc")
    cache = tmp_path / "cache"
    fetch(store, *a, cache)
    with open_object(store, *b, cache):
        assert files(cache) == [b[1]]
        with pytest.raises(
            CacheError,
            match=r"cannot keep .* in the cache .* \(No space left on device\): .*STEPCHAIN_CACHE",
        ):
            fetch(store, *c, cache)
        assert files(cache) == [b[1]]


def test_a_cache_that_cannot_be_written_is_one_sentence(remote: Remote, tmp_path: Path):
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(
        CacheError,
        match=r"cannot keep .* \(Not a directory\): check its rights and its disk, or name another",
    ):
        fetch(remote, *wanted(remote, "a"), tmp_path / "cache")


def test_a_size_must_be_a_number(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEPCHAIN_CACHE_GB", "lots")
    with pytest.raises(
        InputError, match="STEPCHAIN_CACHE_GB is 'lots': give the cache's size in gigabytes"
    ):
        fetch(remote, *wanted(remote, "a"), tmp_path / "cache")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("from_when", ["empty", "filled"])
def test_a_cache_on_a_file_system_without_locks_names_its_variable(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, from_when: str
):
    remote.write("a", b"one")
    if from_when == "filled":
        fetch(remote, "a", sha256(b"one"), tmp_path / "cache")

    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    sentence = (
        rf"has no locks \({os.strerror(number)}\).*set STEPCHAIN_CACHE to a folder on a local"
    )
    with pytest.raises(CacheError, match=sentence):
        open_object(remote, "a", sha256(b"one"), tmp_path / "cache")
