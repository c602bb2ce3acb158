"""Text files of every editor are read alike."""

import os
from pathlib import Path

import pytest

from training.data.source import BadData
from training.data.text_files import (
    Line,
    begins_as_heading,
    is_heading,
    read_lines,
    split_columns,
)

TEXT = "# my list\nétoile\n\n  chat 7 # seven\nchien#2\n"
LINES = [Line(2, "étoile"), Line(4, "chat 7"), Line(5, "chien#2")]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_are_found_out(tmp_path: Path, encoding: str, end: str):
    path = tmp_path / "list.txt"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_lines(path) == LINES


def test_only_line_ends_divide_lines(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text("a\x0bb\x1cc\u2028d\n", newline="")
    assert [line.text for line in read_lines(path)] == ["a\x0bb\x1cc\u2028d"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR", "is no text"),
        (b"\xff\xfe\x00", "is damaged: its first bytes promise utf-16"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
    ],
)
def test_what_is_no_list_is_named(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(BadData, match=rf"the list .*list\.txt {message}|{message}"):
        read_lines(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadData, match="is a pipe or a device"):
        read_lines(tmp_path / "pipe")
    with pytest.raises(BadData, match=r"the list .* does not exist; add it$"):
        read_lines(tmp_path / "nothing")


def test_columns_are_divided_by_marks_or_else_by_blanks():
    assert split_columns("a  7\t14") == ["a  7", "14"]
    assert split_columns("a  7 14") == ["a", "7", "14"]
    assert split_columns('"my photo.jpg","my mask.png"') == ["my photo.jpg", "my mask.png"]
    assert split_columns(",;") == []
    assert is_heading("Image,mask")
    assert is_heading("name,r,g,b")
    assert is_heading("red green blue class")
    assert not is_heading("red,green,blue")
    assert not is_heading("mask blue")
    assert not is_heading("image")
    assert begins_as_heading("photo,width,height,problem")
    assert begins_as_heading('"Filename"\tsplit')
    assert not begins_as_heading("photo 3")
    assert not begins_as_heading("a.jpg,photo")
    assert not is_heading("2007_000032 7")
