# SPDX-License-Identifier: MIT
"""What stands in the place of a file is named before a reader sees it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from trit.base.errors import UserError
from trit.base.files import check_input, stand_in, stays_inside

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7c" * 32 + b"\nsize 523\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (POINTER, "is a Git LFS pointer to the file of 523 bytes; git lfs pull"),
        (POINTER.replace(b"523", b"9" * 40), "is a Git LFS pointer to the file; git lfs pull"),
        (POINTER.replace(b"523", b"9" * 15), "is a Git LFS pointer to the file of 999,999,999,999,999 bytes"),
        (POINTER.replace(b"523", b"9" * 16), "is a Git LFS pointer to the file; git lfs pull"),
        (POINTER.partition(b"size")[0], "is a Git LFS pointer to the file; git lfs pull"),
        (b"\xef\xbb\xbf" + POINTER, "is a Git LFS pointer to the file of 523 bytes"),
        (b"<!doctype HTML><p>Sign in", "is a web page"),
        (b"<head>", "is a web page"),
        (b" <BODY class=x>", "is a web page"),
        (b"\n<title>", "is a web page"),
        (b"<meta charset=utf-8>", "is a web page"),
        (b"<script>", "is a web page"),
        (b"<!--a--> <!--\n-->\n<html>", "is a web page"),
        (b"\xef\xbb\xbf\n<!-- proxy -->\n<html lang=en>", "is a web page"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>', "is a web page"),
    ],
)
def test_contents_that_are_no_file(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_input(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_files_that_may_be_meant(tmp_path: Path) -> None:
    """XML and text about pages are no pages; a text for people may be one, or empty."""
    assert stand_in(b"<p>one</p> and <html>") is None and stand_in(b"<?xml version='1.0'?><svg/>") is None
    assert stand_in(b"<htmlx>") is None and stand_in(b"<!doctype svg>") is None and stand_in(b"") is None
    assert stand_in(b"<html>summarise this", pages=False) is None and stand_in(POINTER, pages=False)
    for content in (b"", b"<html>"):
        (tmp_path / "README.md").write_bytes(content)
        check_input(tmp_path / "README.md", content=False)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """Each would hang a reader, or never end."""
    if os.name != "posix":
        pytest.skip("pipes and devices are POSIX's")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    found = {"pipe": "is a pipe", "zero": "is a device", "folder": "is a folder", "dangling": "is not there"}
    found |= {"loop": rf"cannot be read \({os.strerror(errno.ELOOP)}\)$"}
    found |= {"a" * 300: rf"cannot be read \({os.strerror(errno.ENAMETOOLONG)}\)$"}
    found |= {"a\0b": r"cannot be read \(embedded null byte\)$"}
    for name, words in found.items():
        for content in (True, False):
            with pytest.raises(UserError, match=words):
                check_input(tmp_path / name, content=content)


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name != "posix":
        pytest.skip("sockets in folders are POSIX's")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(UserError, match=r"^s: is a socket, expected a file; put the file itself there$"):
            check_input(Path("s"))


def test_sizes_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"{}")
    check_input(path, 2)
    check_input(path)
    with pytest.raises(UserError, match="has 2 bytes, expected at most 1; download the file again"):
        check_input(path, 1)
    with pytest.raises(UserError, match="has 2 bytes, expected at most 0"):
        check_input(path, 0, content=False)


def test_more_bytes_than_such_a_file_has(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 1 << 36)  # a hole
    with pytest.raises(UserError, match="has 68,719,476,736 bytes, expected at most 1,024"):
        check_input(path, 1024)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/x",
        "../x",
        "a/../../x",
        "a//b",
        "./x",
        "c:x",
        "a\\b",
        "x\0",
        "x\n",
        "x" * 256,
        7,
        None,
        b"x",
        "a/..",
        "a/.",
        "a/",
        *(f"a{letter}b" for letter in '*?"<>|'),
    ],
)
def test_names_that_leave_a_folder(name: object) -> None:
    assert stays_inside(name) is False
    assert stays_inside("x" * 255) and stays_inside("...") and stays_inside(".hidden/a..b") and stays_inside("é")
    assert stays_inside("1_Pooling/config.json") and stays_inside("model-00001-of-00002.safetensors")
