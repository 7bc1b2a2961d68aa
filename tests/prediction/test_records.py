"""Records as JSON, and the file that collects them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar_cli.errors import UsageError
from zsar_cli.prediction.record_file import RecordFile
from zsar_cli.prediction.records import Failure, LabelScore, Prediction, to_json


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


MADE = {"zsar": "1", "model": "tiny", "weights": "w", "labels": {"count": 2, "hash": "h"}, "frames": 8}


def write(path: Path, *records: dict[str, object]) -> None:
    file = RecordFile(path, made_with=MADE)
    for record in records:
        file.write(record)
    file.close()


@pytest.mark.parametrize("keep", range(0, 150, 7))
def test_a_file_cut_anywhere_goes_on(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("./a.mp4"), answer("b.mp4"))
    whole = path.read_bytes()
    assert len(whole.splitlines()[1]) < 150  # so the first record is cut, too
    path.write_bytes(whole[:-keep] if keep else whole)
    if b"predictions" not in (cut := path.read_bytes()):  # it might be anybody's
        with pytest.raises(UsageError, match="was not written by zsar predict"):
            RecordFile(path, made_with=MADE, resume=True)
        assert path.read_bytes() == cut
        return
    file = RecordFile(path, made_with=MADE, resume=True)
    for video in ("./a.mp4", "b.mp4"):
        if video.removeprefix("./") not in file.done:
            file.write(answer(video))
    file.close()
    assert path.read_bytes() == whole


def videos(path: Path) -> list[str]:
    return [json.loads(line)["video"] for line in path.read_text().splitlines()]


def failed(video: str, kind: str = "timeout") -> dict[str, object]:
    return Failure(video, kind, "slow").to_record()


def test_failures_are_tried_again_and_the_new_record_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, failed("a.mp4"), answer("b.mp4"), failed("c.mp4"), failed("d.mp4"))
    file = RecordFile(path, made_with=MADE, resume=True)
    assert file.done == {"b.mp4"}
    file.write(answer("./a.mp4"))
    file.write(failed("c.mp4", "crashed"))
    file.write(answer("e.mp4"))
    file.close()
    assert videos(path) == [
        "./a.mp4",
        "b.mp4",
        "c.mp4",
        "d.mp4",
        "e.mp4",
    ]  # d was not asked for again: not lost
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r.get("error", {}).get("kind") for r in records] == [None, None, "crashed", "timeout", None]
    assert [("made_with" in r) for r in records] == [True, False, False, False, False]


def test_a_failure_that_stays_the_same_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, failed("a.mp4"), answer("b.mp4"))
    before = path.read_bytes(), path.stat().st_ino
    file = RecordFile(path, made_with=MADE, resume=True)
    file.write(failed("a.mp4"))
    file.close()
    assert (path.read_bytes(), path.stat().st_ino) == before


def test_killed_between_a_new_record_and_the_old_ones_end_each_video_has_one(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, failed("a.mp4"), answer("b.mp4"))
    with path.open("a") as file:
        file.write(to_json(answer("a.mp4")) + "\n" + to_json(failed("b.mp4")) + "\n" + '{"video": "c')
    RecordFile(path, resume=True).close()
    assert videos(path) == ["a.mp4", "b.mp4"]
    assert "error" not in path.read_text()  # an answer outlives an error


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"frames": 16}, "was made with --frames 8 (this run has --frames 16)"),
        ({"labels": {"count": 2, "hash": "other"}}, "other labels than this run's"),
        ({"weights": "other"}, "other weights"),
        ({"weights": "other", "model": "ViT"}, "--model tiny (this run has --model ViT)"),
        ({"min_confidence": 0.5}, "no --min-confidence (this run has --min-confidence 0.5)"),
        ({"window": 2.0}, "no --window (this run has --window 2.0)"),
        ({"zsar": "9"}, "version 1 (this run has version 9)"),
    ],
)
def test_records_made_with_something_else_are_not_added_to(tmp_path: Path, now: dict, said: str) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("a.mp4"))
    before = path.read_bytes()
    with pytest.raises(UsageError) as refused:
        RecordFile(path, made_with=MADE | now, resume=True)
    assert said in str(refused.value)
    assert path.read_bytes() == before
    RecordFile(path, made_with=MADE | {"model": "another name of it"}, resume=True).close()
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_file_that_lost_what_it_was_made_with_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("a.mp4"), answer("b.mp4"))
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(UsageError, match="does not store its settings"):
        RecordFile(path, made_with=MADE, resume=True)


NOT_OURS = {
    "a note": b"buy milk",
    "lines": b"hello\nworld\n",
    "a list": b"[1]\n",
    "their JSON": b'{"video": "a.mp4", "label": "waving"}',
    "their JSON Lines": b'{"video": "a.mp4", "label": "waving"}\n',
    "a torn end that is no record": None,
    "a video": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
    "zeros": bytes(100),
    "a line end": b"\n",
    "two kinds": b'{"video": "a", "predictions": [], "error": {}}\n',
    "UTF-16": '{"video": "a"}'.encode("utf-16"),
    "nested": b"[" * 100_000,
    "a bracket": b"{",
    "a name alone": b'{"video": "x"',
    "their torn JSON": b'{"video": "a.mp4", "labels": ["wav',
}


@pytest.mark.parametrize("kind", NOT_OURS)
@pytest.mark.parametrize("resume", [True, False])
def test_what_is_not_ours_is_left_alone_to_the_last_byte(tmp_path: Path, kind: str, resume: bool) -> None:
    path = tmp_path / "theirs"
    write(path, answer("a.mp4"))
    content = NOT_OURS[kind] or path.read_bytes() + b"TODO: look at this one"
    path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        RecordFile(path, made_with=MADE, resume=resume)
    assert path.read_bytes() == content
    if NOT_OURS[kind]:
        assert "it with --resume" not in str(refused.value)
    assert list(tmp_path.iterdir()) == [path]


def test_what_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write(path, answer("a.mp4"))
    with pytest.raises(UsageError, match="--resume"):
        RecordFile(path)
    with pytest.raises(UsageError, match="give only one of them"):
        RecordFile(path, resume=True, overwrite=True)
    with pytest.raises(UsageError, match="cannot be written"):
        RecordFile(tmp_path / "no" / "such.jsonl")


def test_overwrite_replaces_the_name_and_nothing_behind_it(tmp_path: Path) -> None:
    path, other, link = tmp_path / "answers.jsonl", tmp_path / "other", tmp_path / "link.jsonl"
    other.write_text("theirs\n")
    os.link(other, path)
    link.symlink_to(other)
    for name in (path, link):
        with pytest.raises(UsageError, match="--overwrite"):
            RecordFile(name, made_with=MADE)
        file = RecordFile(name, made_with=MADE, overwrite=True)
        file.write(answer("a.mp4"))
        file.close()
        assert videos(name) == ["a.mp4"]
    assert other.read_text() == "theirs\n"


@pytest.mark.parametrize("resume", [True, False])
def test_a_link_to_nothing_is_not_written_through(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "answers.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"is a (broken )?link"):
        RecordFile(tmp_path / "answers.jsonl", resume=resume)
    assert not (tmp_path / "elsewhere").exists()


def test_our_own_file_goes_on_behind_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real.jsonl", failed("a.mp4"))
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    file = RecordFile(tmp_path / "link.jsonl", made_with=MADE, resume=True)
    file.write(answer("a.mp4"))
    file.close()
    assert (tmp_path / "link.jsonl").is_symlink()
    assert "error" not in (tmp_path / "real.jsonl").read_text()


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
