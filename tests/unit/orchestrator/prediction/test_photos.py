"""Photos are found in folders, files, buckets and at addresses of the web."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.prediction.photos import find_photos
from orchestrator.store.open import open_store
from training.config import InputError
from training.data.source import BadData


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as people have them."""
    folder = tmp_path / "photos"
    for name in ("b.JPG", "sub/a.webp", "sub/._a.webp", ".hidden/x.jpg", "Thumbs.db", "list.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def names(images: str, besides: Path | None = None) -> list[str]:
    return [photo.name for photo in find_photos(images, besides).photos]


def test_a_folder_is_searched_and_what_is_hidden_passed_over(folder: Path):
    found = find_photos(str(folder))
    assert [photo.name for photo in found.photos] == ["b.JPG", "sub/a.webp"]
    assert [photo.read() for photo in found.photos] == [b"b.JPG", b"sub/a.webp"]
    assert found.others == ("list.txt",)
    assert names(folder.as_uri()) == ["b.JPG", "sub/a.webp"]


def test_the_folder_of_predictions_is_passed_over(folder: Path):
    assert names(str(folder), besides=folder / "sub") == ["b.JPG"]


def test_folders_of_other_predictions_are_passed_over_and_named(folder: Path):
    for out in ("out", "sub/out"):
        (folder / out / "masks").mkdir(parents=True)
        for name in ("progress.jsonl", "masks/b.png", "overlays.jpg"):
            (folder / out / name).touch()
    # These are not ours.
    for name in ("a/progress.jsonl", "c/masks/d.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    found = find_photos(str(folder))
    assert [photo.name for photo in found.photos] == ["b.JPG", "c/masks/d.png", "sub/a.webp"]
    assert found.predicted == ("out", "sub/out")
    with pytest.raises(InputError, match="sub/out holds predictions, not photos"):
        find_photos(str(folder / "sub" / "out"))
    (folder / "sub" / "a.webp").unlink()
    with pytest.raises(InputError, match=r"no photo in .* it holds the predictions in out;"):
        find_photos(str(folder / "sub"))


def test_links_are_followed_once(folder: Path):
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "nothing")
    found = find_photos(str(folder))
    assert [photo.name for photo in found.photos] == ["b.JPG", "gone.png", "sub/a.webp"]
    with pytest.raises(BadData, match="No such file"):
        found.photos[1].read()


def test_a_pipe_is_not_waited_for(folder: Path):
    os.mkfifo(folder / "pipe.jpg")
    (pipe,) = (photo for photo in find_photos(str(folder)).photos if photo.name == "pipe.jpg")
    with pytest.raises(BadData, match="pipe"):
        pipe.read()


def test_a_file_is_a_photo_whatever_its_name(folder: Path):
    (photo,) = find_photos(str(folder / "list.txt")).photos
    assert (photo.name, photo.read()) == ("list.txt", b"list.txt")


def test_a_name_that_is_not_utf8_can_be_written(folder: Path):
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"data")
    found = find_photos(str(folder)).photos[0]
    assert (found.name, found.read()) == (r"\xff.png", b"data")
    alone = find_photos(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).photos[0]
    assert (alone.name, alone.read()) == (found.name, b"data")


@pytest.mark.parametrize(
    ("images", "words"),
    [("nowhere", "there is no nowhere"), ("ftp://host/a.jpg", "names no photos")],
)
def test_what_is_not_there_is_refused(images: str, words: str):
    with pytest.raises(InputError, match=words):
        find_photos(images)


def test_a_folder_without_photos_is_refused(folder: Path):
    (folder / "b.JPG").unlink()
    (folder / "sub" / "a.webp").unlink()
    with pytest.raises(InputError, match=r"no photo in .*: it holds list\.txt"):
        find_photos(str(folder))


@pytest.mark.s3
def test_a_bucket_is_searched(moto_bucket: str):
    store = open_store(f"s3://{moto_bucket}/holiday")
    for key in ("day 1/a.jpg", "day 1/.DS_Store", "b.PNG", "notes.md"):
        store.write(key, key.encode())
    found = find_photos(f"s3://{moto_bucket}/holiday")
    assert [photo.name for photo in found.photos] == ["b.PNG", "day 1/a.jpg"]
    assert found.photos[1].read() == b"day 1/a.jpg"
    assert found.others == ("notes.md",)
    (alone,) = find_photos(f"s3://{moto_bucket}/holiday/b.PNG").photos
    assert alone.read() == b"b.PNG"
    with pytest.raises(BadData, match="no object"):
        find_photos(f"s3://{moto_bucket}/holiday/c.PNG").photos[0].read()


@pytest.mark.s3
def test_predictions_in_a_bucket_are_no_photos(moto_bucket: str):
    store = open_store(f"s3://{moto_bucket}/trip")
    written = ("progress.jsonl", "masks/sub/b.png", "overlays/sub/b.png", "index.html")
    for key in ("masks/is a photo.png", "a.jpg", *(f"out/{name}" for name in written)):
        store.write(key, b"")
    found = find_photos(f"s3://{moto_bucket}/trip")
    assert [photo.name for photo in found.photos] == ["a.jpg", "masks/is a photo.png"]
    assert (found.others, found.predicted) == ((), ("out",))
    with pytest.raises(InputError, match="trip/out holds predictions, not photos"):
        find_photos(f"s3://{moto_bucket}/trip/out")


class Web(http.server.BaseHTTPRequestHandler):
    """Serve one photo."""

    def do_GET(self) -> None:
        found = self.path.startswith("/a%20b.jpg")
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_fetched_and_its_query_not_shown(web: str):
    (photo,) = find_photos(f"{web}/a%20b.jpg?signature=secret").photos
    assert (photo.name, photo.read()) == ("a b.jpg", b"data")
    with pytest.raises(BadData, match="answers 404") as refusal:
        find_photos(f"{web}/c.jpg?signature=secret").photos[0].read()
    assert "secret" not in str(refusal.value)


def test_a_web_server_that_is_not_there_is_named():
    (photo,) = find_photos("http://127.0.0.1:9/a.jpg?signature=secret").photos
    with pytest.raises(BadData, match=r"127.0.0.1:9/a.jpg cannot be fetched") as refusal:
        photo.read()
    assert "secret" not in str(refusal.value)
