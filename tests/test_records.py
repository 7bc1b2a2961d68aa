"""Records as JSON, and the file that collects them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar_cli.errors import UsageError
from zsar_cli.records import Failure, LabelScore, Prediction, RecordFile, to_json


def answer(video: str, label: str = "x") -> dict[str, object]:
    return Prediction(video, [LabelScore(label, 1.0, 0.5)], 0.5, 2.0, 8).to_record()


def test_the_record_has_what_is_promised_and_no_more() -> None:
    assert answer("a.mp4") == {
        "video": "a.mp4",
        "predictions": [{"label": "x", "score": 1.0, "yes": 0.5}],
        "unknown": 0.5,
        "duration": 2.0,
        "frames": 8,
    }
    assert Failure("a.mp4", "not_found", "no such file").to_record() == {
        "video": "a.mp4",
        "error": {"kind": "not_found", "message": "no such file"},
    }


@given(st.binary(min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_file_name_survives_json(name: bytes) -> None:
    line = to_json({"video": os.fsdecode(name)})
    line.encode("utf-8")  # what is written is UTF-8
    assert len(line.splitlines()) == 1
    assert os.fsencode(json.loads(line)["video"]) == name


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_json_cannot_steer_a_terminal(text: str) -> None:
    line = to_json({"video": text})
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 or letter == "\u202e" for letter in line)
    assert json.loads(line)["video"] == text


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"unknown": float("nan")})


def write(path: Path, *records: dict[str, object]) -> None:
    file = RecordFile(path)
    for record in records:
        file.write(record)
    file.close()


@pytest.mark.parametrize("keep", range(0, 90, 7))
def test_a_file_cut_anywhere_goes_on(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("./a.mp4"), answer("b.mp4"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-keep] if keep else whole)
    file = RecordFile(path, resume=True, labels=["x"])
    assert file.done == ({"a.mp4", "b.mp4"} if keep == 0 else {"a.mp4"})
    if keep:
        file.write(answer("b.mp4"))
    file.close()
    assert path.read_bytes() == whole


def test_failures_are_counted_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("a.mp4"), Failure("b.mp4", "not_found", "no such file").to_record())
    file = RecordFile(path, resume=True)
    assert (len(file.done), file.failed) == (2, 1)
    file.close()


def test_what_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("a.mp4"))
    with pytest.raises(UsageError, match="--resume"):
        RecordFile(path)
    with pytest.raises(UsageError, match="other labels"):
        RecordFile(path, resume=True, labels=["y"])
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(UsageError, match="line 1"):
        RecordFile(tmp_path / "notes.txt", resume=True)
    (tmp_path / "list.jsonl").write_text("[1]\n")
    with pytest.raises(UsageError, match="line 1"):
        RecordFile(tmp_path / "list.jsonl", resume=True)
    with pytest.raises(UsageError, match="cannot be written"):
        RecordFile(tmp_path / "no" / "such.jsonl")


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "answers.jsonl"
    file = RecordFile(path)
    with pytest.raises(UsageError, match="Another run"):
        RecordFile(path, resume=True)
    file.close()
    RecordFile(path, resume=True).close()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end: part of a record fits, and goes again."""
    resource = pytest.importorskip("resource")
    import signal

    path = tmp_path / "answers.jsonl"
    write(path, answer("a.mp4"))
    size = path.stat().st_size
    file = RecordFile(path, resume=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        with pytest.raises(UsageError, match="cannot be written"):
            file.write(answer("b.mp4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
        file.close()
    assert path.stat().st_size == size
