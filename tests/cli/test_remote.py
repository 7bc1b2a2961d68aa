"""``zsar predict`` on videos in a storage: as on files, and nothing is left of what was fetched."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.storage import WebHandler, serve
from zsar_cli.video import fetch, storage

LABELS = ["--label", "arm wrestling", "--label", "tai chi"]


@pytest.fixture
def memory(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: Path
) -> Iterator[fsspec.AbstractFileSystem]:
    """The clips of the session in memory; the temporary folder is empty at the end."""
    for path in clips.rglob("*.*"):
        if path.is_file():
            memory.pipe_file(f"/c/{path.relative_to(clips)}", path.read_bytes())
    storage._states.clear()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(fetch.LIMITS, "max_bytes", fetch.LIMITS.max_bytes)
    yield memory
    assert os.listdir(tmp_path / "tmp") == []


@pytest.fixture
def predict(zsar, tiny_clip_dir):
    def run(*arguments, **options):
        common = ("--model", tiny_clip_dir, *LABELS, "--workers", 0, "--frames", 2)
        return zsar("predict", *arguments, *common, **options)

    return run


def test_a_folder_in_a_storage_is_answered_as_the_folder_here(predict, memory, clips):
    here, there = predict(clips), predict("memory://c/")
    assert here.code == there.code == 0
    names = [record.pop("video") for record in there.records]
    assert names == [f"memory://c/{name}" for name in ("a.avi", "b.mp4", "c.mkv", "deeper/d.mp4")]
    for one, other in zip(here.records, there.records, strict=True):
        assert other.pop("video").startswith("memory://")
        assert other.pop("object")["size"] > 0
        assert one.pop("video")
        assert one == other


def test_each_failure_has_its_record_and_the_others_are_answered(predict, memory, tmp_path):
    memory.pipe_file("/c/empty.mp4", b"")
    lines = [
        "memory://c/b.mp4",
        "memory://c/none.mp4",
        "memory://c/empty.mp4",
        "htps://c/a.mp4",
        "memory://c/c.mkv",
    ]
    (tmp_path / "l.csv").write_text("url\n" + "\n".join(lines))
    found = predict(tmp_path / "l.csv", "--max-bytes", "1M")
    assert [record["video"] for record in found.records] == lines
    kinds = [record.get("error", {}).get("kind") for record in found.records]
    assert (found.code, kinds) == (1, [None, "not_found", "unreadable", "not_found", None])
    assert "did you mean https://?" in found.err
    large = predict("memory://c/b.mp4", "--max-bytes", 100)
    assert large.records[0]["error"]["kind"] == "too_large"


def test_windows_find_out_lengths_without_fetching_twice(predict, memory):
    count = []
    cat = type(memory).cat_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "cat_file", lambda *a, **k: count.append(1) or cat(*a, **k))
        found = predict("memory://c/", "--window", 1, "--stride", 1)
    assert found.code == 0
    assert "segments" in found.records[0]
    assert len(count) == 4


def test_a_cache_of_features_knows_an_object_by_its_size_and_state(predict, memory, clips, tmp_path):
    cache = ("--cache", tmp_path / "cache")
    assert "4 added" in predict("memory://c/", *cache).err
    assert "4 videos read" in predict("memory://c/", *cache).err
    memory.pipe_file("/c/b.mp4", (clips / "deeper" / "d.mp4").read_bytes())
    assert "3 videos read, 1 added" in predict("memory://c/", *cache).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory://none/"], "cannot be listed: there is no such object"),
        (["memory://c/*.ogv"], "No videos in"),
        (["memory://c/", "--max-bytes", "many"], "number of bytes, such as 500M"),
        (["memory://c/", "--storage-options", "none.json"], "none.json cannot be read"),
        (["memory://c/l.csv"], "no column named video, path or url"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(predict, memory, arguments, message):
    memory.pipe_file("/c/l.csv", b"a,b\n1,2\n")
    found = predict(*arguments)
    assert found.code == 2
    assert message in found.err


def test_stored_answers_on_the_web_are_read_as_such(zsar):
    server, address = serve()
    try:
        line = b'{"video": "a.mp4", "error": {"kind": "not_found", "message": "no such file"}}\n'
        WebHandler.objects["answers.jsonl"] = line
        shown = zsar("predict", f"{address}/ranges/answers.jsonl", "-f", "jsonl")
    finally:
        server.shutdown()
        server.server_close()
        WebHandler.objects.clear()
    assert shown.out.encode() == line, shown.err


@pytest.mark.parametrize("listed", [False, True])
def test_resume_answers_what_changed_again_and_nothing_else(predict, memory, clips, tmp_path, listed):
    names = ("a.avi", "b.mp4", "c.mkv", "deeper/d.mp4")
    (tmp_path / "l.txt").write_text("\n".join(f"memory://c/{name}" for name in names))
    given = tmp_path / "l.txt" if listed else "memory://c/"
    output = ("--output", tmp_path / "answers.jsonl")
    assert predict(given, *output).code == 0
    first = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert all(record["object"].keys() == {"size", "etag"} for record in first)
    memory.pipe_file("/c/b.mp4", (clips / "deeper" / "d.mp4").read_bytes())
    memory.rm_file("/c/a.avi")
    storage._states.clear()  # as in a process of its own
    again = predict(given, *output, "--resume")
    assert again.code == 0
    second = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [record["video"] for record in second] == [record["video"] for record in first]
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, True, True]
    assert second[1]["frames"] == first[1]["frames"]
    assert second[1]["object"]["size"] == len((clips / "deeper" / "d.mp4").read_bytes())
