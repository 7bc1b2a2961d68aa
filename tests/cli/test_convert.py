"""``zsar predict answers.jsonl`` writes stored answers in another form, and runs no model."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import sys
import tempfile

import pytest

from tests.prediction.test_page import read
from zsar_cli.cli.convert import read_answers
from zsar_cli.cli.rescore import open_stored
from zsar_cli.errors import UsageError
from zsar_cli.prediction.record_file import RecordFile
from zsar_cli.prediction.records import Failure, LabelScore, Prediction
from zsar_cli.prediction.timeline import Segment, Timeline

MADE = {"zsar": "1", "model": "tiny", "frames": 8}
FOUND = [LabelScore("waving", 0.75, 0.5), LabelScore("running", 0.25, 0.125)]
BEST = Prediction("a.mp4", FOUND, 0.5, 1.0, 8, answer="waving").to_record()
BAD = Failure("b.mp4", "not_found", "no such file").to_record()
SEGMENTS = [Segment(0.0, 2.0, "waving", FOUND, 0.5), Segment(2.0, 3.0, "none of these", FOUND, 0.75)]
LONG = Timeline("c.mp4", SEGMENTS, 3.0, 8).to_record()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    assert not {"open_clip"} & (set(sys.modules) - before)


def store(path, *records):
    file = RecordFile(path, made_with=MADE)
    for record in records:
        file.write(record)
    file.close()


def test_answers_become_a_table_csv_and_json_lines(zsar, folder) -> None:
    store(folder / "answers.jsonl", BEST, BAD)
    table = zsar("predict", "answers.jsonl", "--format", "table")
    assert (table.code, "75.0%" in table.out, "no such file" in table.out) == (0, True, True)
    assert table.err == "answers.jsonl: 1 answer and 1 failure as table; no model was run.\n"
    rows = list(csv.DictReader(io.StringIO(zsar("predict", "answers.jsonl", "-f", "csv").out)))
    assert [row["label"] for row in rows] == ["waving", "running", ""]
    assert rows[0]["answer"] == "waving"
    wide = zsar("predict", "answers.jsonl", "-f", "csv", "--wide").out.splitlines()
    assert wide[0] == "video,answer,unknown,yes: waving,yes: running,warning,error"
    assert [{**record, "made_with": MADE} for record in (BEST,)] == zsar("predict", "answers.jsonl").records[
        :1
    ]


def test_written_csv_goes_on_where_the_answers_would(zsar, folder) -> None:
    store(folder / "answers.jsonl", BEST, BAD)
    done = zsar("predict", "answers.jsonl", "--output", "a.csv")
    assert (done.code, done.out) == (0, "")
    assert "as csv, written to a.csv" in done.err
    (first, *_) = csv.DictReader(io.StringIO((folder / "a.csv").read_text("utf-8-sig")))
    assert json.loads(first["made_with"]) == MADE
    assert zsar("predict", "answers.jsonl", "--output", "a.csv").code == 2  # it is there
    assert (
        "is an input of this run"
        in zsar("predict", "answers.jsonl", "-o", "answers.jsonl", "--overwrite").err
    )


def test_several_files_are_joined_and_answers_outlive_errors(zsar, folder) -> None:
    store(folder / "1.jsonl", {**BAD, "video": "a.mp4"}, BEST | {"video": "d.mp4"})
    store(folder / "2.jsonl", BEST, {**BAD, "video": "./d.mp4"})
    done = zsar("predict", "1.jsonl", "2.jsonl", "-f", "jsonl")
    assert [(record["video"], "error" in record) for record in done.records] == [
        ("a.mp4", False),
        ("d.mp4", False),
    ]


def test_scored_again_the_last_answer_of_a_video_counts_as_it_does_converted(folder) -> None:
    store(folder / "1.jsonl", BEST, BEST | {"video": "d.mp4"})
    store(folder / "2.jsonl", BEST | {"unknown": 0.75}, {**BAD, "video": "d.mp4"})
    with contextlib.ExitStack() as stack:
        made, records = open_stored(stack, ["1.jsonl", "2.jsonl"])
        assert [(record["video"], record["unknown"]) for record in records] == [
            ("a.mp4", 0.75),
            ("d.mp4", 0.5),
        ]
        assert made == MADE


@pytest.mark.parametrize("source", ["rtsp://host/1", "standard input"])
def test_all_segments_of_a_live_source_are_kept(zsar, folder, source) -> None:
    began = {} if source == "standard input" else {"began": "2026-01-01T00:00:00.000Z"}
    lines = [LONG | {"video": source, "segments": [segment.to_record()]} | began for segment in SEGMENTS]
    lines.append({**BAD, "video": source})
    (folder / "live.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert zsar("predict", "live.jsonl", "-o", "again.jsonl").code == 0
    assert [json.loads(line) for line in (folder / "again.jsonl").read_text().splitlines()] == lines
    with pytest.raises(UsageError, match="the segments of a live source, which are not continued"):
        RecordFile(folder / "again.jsonl", resume=True)  # which keeps a video's last record
    assert zsar("predict", "live.jsonl", "-o", "live.parquet").code == 0
    for name in ("live.jsonl", "live.parquet"):
        rows = csv.DictReader(io.StringIO(zsar("predict", name, "-f", "csv").out))
        assert [row["start"] for row in rows] == ["0.000", "2.000", ""]
    with contextlib.ExitStack() as stack:  # as people see them
        whole, failed = read_answers(stack, ["live.jsonl"]).joined()
    assert [(s["start"], s["end"]) for s in whole["segments"]] == [(0.0, 2.0), (2.0, 3.0)]
    assert "error" in failed
    assert zsar("predict", "live.jsonl", "-f", "vtt").out.count("WEBVTT") == 1


def test_segments_become_subtitles_and_a_page(zsar, folder) -> None:
    store(folder / "answers.jsonl", LONG)
    done = zsar("predict", "answers.jsonl", "-f", "vtt", "--report", "page.html")
    assert done.code == 0, done.err
    assert done.out.startswith("WEBVTT")
    assert "00:00:00.000 --> 00:00:02.000\nwaving" in done.out
    (card,) = read(folder / "page.html")[1]["videos"]
    assert [(s["start"], s["end"]) for s in card["segments"]] == [(0.0, 2.0), (2.0, 3.0)]


def test_a_full_temporary_folder_is_named(zsar, folder, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    done = zsar("predict", "-", "-f", "csv", stdin=json.dumps(BEST).encode())
    assert (done.code, done.out) == (2, "")
    assert f"The temporary folder {tempfile.gettempdir()} is full; set TMPDIR" in done.err


def test_answers_come_on_standard_input(zsar) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in (BEST, BAD)).encode()
    done = zsar("predict", "-", "-f", "csv", stdin=lines + b'{"video": "torn')
    assert (done.code, done.out.count("\n")) == (0, 4)
    assert done.err.startswith("standard input: 1 answer and 1 failure as csv")
    assert "No labels are given" in zsar("predict", "-", stdin=b"a.mp4\n").err


@pytest.mark.parametrize(
    ("lines", "more", "said"),
    [
        (["hello"], [], "a.jsonl is not an output of zsar predict: line 1 is no record of it."),
        (['{"video": 1, "predictions": []}'], [], "line 1 is no record"),
        ([json.dumps(BEST), "hello"], [], "line 2 is no record"),
        (['{"video": "a", "predictions": []}'], [], "line 1 is no record"),
        (['{"video": "a", "predictions": [{"label": 1}]}'], [], "line 1 is no record"),
        ([json.dumps(BEST | {"unknown": float("nan")})], [], "line 1 is no record"),
        ([json.dumps(BEST | {"more": 0}).replace("0}", "1e999}")], [], "line 1 is no record"),
        ([json.dumps(BEST | {"answers": 3})], [], "line 1 is no record"),
        ([], [], "is empty"),
        ([json.dumps(BEST)], ["--label", "x"], "does not say which model it was made with"),
        ([json.dumps(BEST)], ["--resume"], "without running a model; remove --resume."),
        ([json.dumps(BEST)], ["-f", "srt"], "subtitles need answers of --window"),
        ([json.dumps(BEST), json.dumps(LONG)], ["-f", "csv"], "convert them separately"),
        ([json.dumps(BEST)], ["b.mp4"], "a.jsonl holds stored answers, but 'b.mp4' does not"),
        ([json.dumps(LONG | {"segments": []})], ["-f", "csv"], "line 1 is no record"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_converted_is_told_in_a_sentence(zsar, folder, lines, more, said) -> None:
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines))
    done = zsar("predict", "a.jsonl", *more)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1
