"""Lists of videos: text, CSV, JSON Lines and Parquet, here or in a storage, as a stream."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tracemalloc
from pathlib import Path

import pytest

from zsar_cli.errors import UsageError
from zsar_cli.prediction.inputs import find_videos
from zsar_cli.prediction.lists import kind_of_list, read_list
from zsar_cli.seen import SeenTexts

VIDEOS = ["s3://b/a 1.mp4", "/data/b,c.mp4", "https://h/x?id=1", "clips/ä.mp4"]


def parquet(columns: dict[str, list]) -> bytes:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=2)
    return sink.getvalue()


def contents() -> dict[str, bytes]:
    rows = [json.dumps({"id": 1, "url": video}) for video in VIDEOS]
    return {
        "l.txt": "\n".join(VIDEOS).encode(),
        "l.lst": "\r\n".join(VIDEOS).encode("utf-8-sig"),
        "l.csv": ("id,url\n" + "".join(f'1,"{video}"\n' for video in VIDEOS)).encode(),
        "semicolon.csv": ("ID;Video-Path\n" + "".join(f"1;{video}\n" for video in VIDEOS)).encode("utf-16"),
        "excel.csv": ("sep=;\nurl;n\n" + "".join(f"{video};2\n" for video in VIDEOS)).encode("utf-8-sig"),
        "l.tsv": ("id\tpath\n" + "".join(f"1\t{video}\n" for video in VIDEOS)).encode(),
        "bare.csv": "".join(f'"{video}"\n' for video in VIDEOS).encode(),
        "l.jsonl": "\n".join(rows).encode(),
        "texts.ndjson": "\n".join(map(json.dumps, VIDEOS)).encode(),
    }


@pytest.mark.parametrize("name", contents())
def test_each_form_gives_the_same_videos_packed_or_not(tmp_path: Path, memory, name: str) -> None:
    content = contents()[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    assert list(read_list(str(tmp_path / name))) == list(read_list(str(tmp_path / f"{name}.gz"))) == VIDEOS
    memory.pipe_file(f"/lists/{name}", content)
    assert list(read_list(f"memory://lists/{name}")) == [*VIDEOS[:3], "memory:///lists/clips/ä.mp4"]


def test_parquet_by_the_column(tmp_path: Path) -> None:
    path = tmp_path / "l.parquet"
    path.write_bytes(parquet({"n": [1, 2, 3, 4, 5], "url": [*VIDEOS, None], "other": ["x", *VIDEOS]}))
    assert list(read_list(str(path))) == VIDEOS
    assert list(read_list(str(path), "other")) == ["x", *VIDEOS]
    with pytest.raises(UsageError, match="no column 'nix'; it has 'n', 'url', 'other'"):
        list(read_list(str(path), "nix"))
    with pytest.raises(UsageError, match="holds int64, not paths"):
        list(read_list(str(path), "n"))
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(UsageError, match="not a readable Parquet"):
        list(read_list(str(path)))


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("l.csv", "a,b\n1,2\n", None, "name one by --column: it has 'a', 'b'"),
        ("l.csv", "a,b\n1,2\n", "c", "no column 'c'"),
        ("l.csv", 'url,b\n"x,2\n', None, "line 2: unexpected end"),
        ("l.jsonl", '{"url": "x"}\n{"url": 3}\n', None, "line 2: 3 is not a path"),
        ("l.jsonl", '{"url": "x"}\n{"a": "y", "b": "z"}\n', None, "line 2, has no column"),
        ("l.jsonl", '{"url": "x"}\n{"url": \n', None, "line 2 is not JSON"),
        ("l.txt", "a.mp4\n", "c", "remove --column"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path: Path, name, text, column, message) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        list(read_list(str(tmp_path / name), column))


def test_relative_paths_start_here_or_from_the_list(tmp_path: Path, memory, monkeypatch) -> None:
    (tmp_path / "lists" / "sub").mkdir(parents=True)
    (tmp_path / "lists" / "sub" / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    content = b"sub/a.mp4\nb.mp4\nnone.mp4\n"
    (tmp_path / "lists" / "l.txt").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert list(find_videos(["lists/l.txt"])) == ["lists/sub/a.mp4", "b.mp4", "none.mp4"]
    memory.pipe_file("/l/l.txt", content)
    assert list(find_videos("memory:///l/l.txt")) == [
        f"memory:///l/{name}" for name in ("sub/a.mp4", "b.mp4", "none.mp4")
    ]


def test_lists_arguments_and_storage_mix_and_no_video_comes_twice(tmp_path: Path, memory) -> None:
    for name in ("a.mp4", "d/b.mp4", "d/.h.mp4", "d/n.txt"):
        memory.pipe_file(f"/v/{name}", b"x")
    (tmp_path / "c.mp4").touch()
    (tmp_path / "l.txt").write_text(f"memory://v/d/\n{tmp_path}/c.mp4\nmemory://v/a.mp4\nmemory://none/\n")
    signed = "https://h/a.mp4?X-Amz-Signature="
    found = find_videos(
        [str(tmp_path / "l.txt"), "memory://v/*.mp4", str(tmp_path), f"{signed}1", f"{signed}2"]
    )
    assert list(found) == [
        *("memory://v/d/b.mp4", f"{tmp_path}/c.mp4", "memory://v/a.mp4", "memory://none/", f"{signed}1")
    ]


def test_what_cannot_be_found_in_a_storage_is_said_at_once(memory) -> None:
    memory.pipe_file("/v/a.txt", b"x")
    for given, message in {
        "memory://v/": "No videos in memory://v/",
        "memory://v/*.mp4": "No videos in",
        "memory://none/": "cannot be listed: there is no such object",
        "memory://none/l.csv": "cannot be read: there is no such object",
    }.items():
        with pytest.raises(UsageError, match=message.replace("*", r"\*")):
            list(find_videos(given))


def test_a_file_is_a_list_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "l.TXT").touch()
    (tmp_path / "d.txt").mkdir()
    assert kind_of_list(str(tmp_path / "l.TXT")) == "text"
    assert kind_of_list("s3://b/l.csv.gz") == kind_of_list("https://h/l.csv?sig=1") == "csv"
    for no_list in (tmp_path / "d.txt", tmp_path / "none.txt", "s3://b/a.mp4", "s3://b/l.parquet.gz", "-"):
        assert kind_of_list(str(no_list)) is None


class Endless(io.RawIOBase):
    """A list without end, each line of it new."""

    def __init__(self) -> None:
        self.numbers = itertools.count()

    def read(self, size: int = -1) -> bytes:
        return b"".join(b"s3://bucket/videos/%012d/clip.mp4\n" % next(self.numbers) for _ in range(1000))


def test_a_list_takes_no_memory_for_the_lines_that_were_read(monkeypatch) -> None:
    monkeypatch.setattr("zsar_cli.seen.MEMORY", 100)
    found = find_videos(["-"], Endless())
    for _ in itertools.islice(found, 2_000):
        pass
    tracemalloc.start()
    for _ in itertools.islice(found, 3_000):
        pass
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 150_000  # bytes; as texts in a set they take 500,000


def test_texts_that_were_seen() -> None:
    seen = SeenTexts()
    assert "a" not in seen
    assert [seen.add(text) for text in ("a", "b", "a", "\udcff", "\udcff")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert "a" in seen
    seen.close()
    assert "a" not in seen
