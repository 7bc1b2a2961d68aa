"""Which videos an argument stands for."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from zsar_cli.errors import UsageError
from zsar_cli.inputs import find_videos


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "notes.txt", ".c.mp4", "z/d.avi", "z/y/e.webm", ".git/f.mp4", "k[1].mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(tree: Path, *inputs: str | Path, stdin: bytes = b"", null: bool = False) -> list[str]:
    found = find_videos([str(given) for given in inputs], io.BytesIO(stdin), null=null)
    return [os.path.relpath(path, tree) for path in found]


def test_a_directory_is_searched_in_sorted_order(tree: Path) -> None:
    assert names(tree, tree) == ["a.MKV", "b.mp4", "k[1].mp4", "z/d.avi", "z/y/e.webm"]


def test_patterns(tree: Path) -> None:
    assert names(tree, tree / "*.mp4") == ["b.mp4", "k[1].mp4"]
    assert names(tree, tree / "**" / "*.webm") == ["z/y/e.webm"]
    assert names(tree, tree / "k[1].mp4") == ["k[1].mp4"]  # a file of that name is no pattern
    with pytest.raises(UsageError, match="matches"):
        names(tree, tree / "*.ogv")


def test_no_video_comes_twice(tree: Path) -> None:
    b = tree / "b.mp4"
    assert names(tree, b, tree, f"{tree}/./b.mp4", f"{tree}//b.mp4", "-", stdin=f"{b}\n{b}\n".encode()) == [
        "b.mp4",
        "a.MKV",
        "k[1].mp4",
        "z/d.avi",
        "z/y/e.webm",
    ]


def test_a_list(tree: Path) -> None:
    lines = b"x y.mp4\r\n\n  \nmissing*.mp4\n\xff.mp4\nlast.mp4"
    found = list(find_videos(["-"], io.BytesIO(lines)))
    assert [os.fsencode(path) for path in found] == [b"x y.mp4", b"missing*.mp4", b"\xff.mp4", b"last.mp4"]


def test_a_list_ended_by_nul(tree: Path) -> None:
    lines = b"two\nlines.mp4\0b.mp4\0"
    assert list(find_videos(["-"], io.BytesIO(lines), null=True)) == ["two\nlines.mp4", "b.mp4"]


def test_a_list_is_read_as_it_comes(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(read, "rb") as stream:
        found = find_videos(["-"], stream)
        os.write(write, b"a.mp4\nb.m")
        assert next(found) == "a.mp4"
        os.write(write, b"p4\n")
        assert next(found) == "b.mp4"
        os.close(write)
        assert list(found) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_a_list_that_powershell_wrote(encoding: str, end: str) -> None:
    wanted = ["clips/a.mp4", "\u89c6\u9891 \U0001f3c3.mp4", "last.mp4"]
    content = end.join(wanted).encode(encoding)
    assert list(find_videos(["-"], io.BytesIO(content))) == wanted
    assert list(find_videos(["-"], Trickle(content, 64))) == wanted


class Trickle(io.BytesIO):
    """A pipe that hands out a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self.size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.size)


def test_a_mark_that_comes_byte_by_byte_and_one_in_the_middle() -> None:
    assert list(find_videos(["-"], Trickle("a.mp4\n".encode("utf-8-sig"), 1))) == ["a.mp4"]
    joined = "a.mp4\n".encode("utf-8-sig") + "b.mp4\n".encode("utf-8-sig")
    assert list(find_videos(["-"], io.BytesIO(joined))) == ["a.mp4", "b.mp4"]


def test_paths_in_quotes_as_windows_copies_them(tree: Path) -> None:
    assert names(tree, "-", stdin=f'"{tree}/b.mp4"\r\n'.encode()) == ["b.mp4"]
    (tree / '"q"').touch()
    assert names(tree, "-", stdin=f'{tree}/"q"\n'.encode()) == ['"q"']


@pytest.mark.parametrize(
    ("content", "null"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0" * 9000, False),
        (b"\0\0\0\x20ftypisom\0\0\2\0", True),
        (b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1f", False),
        (b"RIFF\x24\0\0\0AVI LIST", False),
        (b"a.mp4\0b.mp4\0", False),
        (b"a.mp4\0cd.mp4\0", False),
        (b"\xff\xfea\0\n\0" + b"\0\xd8" * 5, False),
    ],
)
def test_what_is_no_list_is_one_error(content: bytes, null: bool) -> None:
    with pytest.raises(UsageError, match="tandard input"):
        list(find_videos(["-"], io.BytesIO(content), null=null))


def test_what_does_not_exist_is_passed_on(tree: Path) -> None:
    assert names(tree, tree / "missing.mp4") == ["missing.mp4"]


def test_a_directory_without_videos(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "frames").mkdir()
    (tree / "frames" / "img_00001.jpg").touch()
    with pytest.raises(UsageError, match="No videos in"):
        names(tree, tree / "empty")
    assert names(tree, tree / "frames") == ["frames"]
    # A list may be long: one bad line gets its record and does not end the run
    assert names(tree, "-", stdin=os.fsencode(tree / "empty") + b"\n") == ["empty"]


def test_loops_of_links_end(tree: Path) -> None:
    (tree / "z" / "loop").symlink_to(tree)
    assert len(names(tree, tree)) == 5
