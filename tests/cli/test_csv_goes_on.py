"""CSV goes on with ``--resume`` as JSON Lines do: nothing twice, nothing lost, nothing of another run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.video_files import write_video
from zsar_cli.cli.output.csv_file import CsvRows
from zsar_cli.cli.output.formats import Columns
from zsar_cli.errors import UsageError
from zsar_cli.prediction.record_file import RecordFile
from zsar_cli.prediction.records import Failure, LabelScore, Prediction
from zsar_cli.prediction.timeline import Segment, Timeline

MADE = {"zsar": "1", "model": "a; =b", "weights": "w", "labels": {"count": 2, "hash": "h"}, "frames": 8}
LABELS = [LabelScore("=waving", 0.75, 0.5), LabelScore("running, fast", 0.25, 0.125)]
LAYOUTS = {"rows": Columns(), "windows": Columns(True), "wide": Columns(False, ("=waving", "running, fast"))}
LAYOUTS["windows and several answers"] = Columns(True, several=True)


def answer(video: str, columns: Columns = LAYOUTS["rows"]) -> dict:
    if columns.windows:
        segments = [
            Segment(0.5, 2.0, "=waving", LABELS, 0.5),
            Segment(2.0, 3.5, "none of these", LABELS, 0.75),
        ]
        if columns.several:
            both = ["=waving", "running, fast"]
            segments = [Segment(0.5, 3.5, both[0], LABELS, 0.5, answers=both)]
        return Timeline(video, segments, 3.0, 8).to_record()
    return Prediction(video, LABELS, 0.5, 1.0, 8, answer="=waving").to_record()


def failed(video: str, kind: str = "timeout") -> dict:
    return Failure(video, kind, "slow").to_record()


def opened(path: Path, columns: Columns = LAYOUTS["rows"], made: dict | None = None, **more) -> RecordFile:
    return RecordFile(path, form=CsvRows(path, columns, 2), made_with=MADE | (made or {}), **more)


def write(path: Path, *records: dict, columns: Columns = LAYOUTS["rows"], **more) -> None:
    file = opened(path, columns, **more)
    for record in records:
        file.write(record)
    file.close()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_anywhere_goes_on(tmp_path: Path, layout: str) -> None:
    path, columns = tmp_path / "answers.csv", LAYOUTS[layout]
    videos = ["./a.mp4", "-b, c.mp4", "é.mp4"]
    write(path, *(answer(video, columns) for video in videos), columns=columns)
    whole = path.read_bytes()
    assert whole.startswith("\ufeffvideo,".encode())
    assert json.loads(rows(path)[0]["made_with"].replace("; '=", "; =")) == MADE
    assert [row["made_with"] for row in rows(path)[1:]] == [""] * (len(rows(path)) - 1)
    for keep in range(len(whole), 11, -1):
        path.write_bytes(whole[:keep])
        file = opened(path, columns, resume=True)
        for video in videos:
            if file.form.key(video) not in file.done:
                file.write(answer(video, columns))
        file.close()
        assert path.read_bytes() == whole, keep


def test_failures_are_tried_again_and_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    write(path, failed("a.mp4"), answer("b.mp4"), failed("c.mp4"))
    write(path, answer("a.mp4"), failed("c.mp4", "crashed"), answer("d.mp4"), resume=True)
    found = rows(path)
    assert [row["video"][0] for row in found] == ["a", "a", "b", "b", "c", "d", "d"]
    assert [row["error"].split(":")[0] for row in found] == ["", "", "", "", "crashed", "", ""]
    assert [bool(row["made_with"]) for row in found] == [True] + [False] * 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n", "was not written by zsar predict"),
        (b"video,rank,label,score,yes,unknown,answer,duration,frames,warning,error\n", "no column made_with"),
        (b"video,rank,error,made_with\n", "has other columns"),
        (None, "its end"),
    ],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "answers.csv"
    write(path, answer("a.mp4"))
    path.write_bytes(content or path.read_bytes() + b"a,b\n")
    before = path.read_bytes()
    with pytest.raises(UsageError) as refused:
        opened(path, resume=True)
    assert said in str(refused.value) or "record 2" in str(refused.value)
    assert path.read_bytes() == before


def test_rows_that_were_sorted_anew_or_have_another_source_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    write(path, answer("a.mp4"), answer("b.mp4"))
    with pytest.raises(UsageError, match=r"--frames 8 \(this run has --frames 4"):
        opened(path, made={"frames": 4}, resume=True)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([head, *sorted(lines, key=lambda line: line.split(b",")[1])]))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="was not written by"):
        opened(path, resume=True)
    assert path.read_bytes() == before
    path.unlink()
    write(path, answer("a\x1b.mp4"))
    with pytest.raises(UsageError, match="use --format jsonl"):
        opened(path, resume=True)


@pytest.mark.parametrize("more", [[], ["--window", "1"], ["--wide"]], ids=str)
def test_predict_goes_on_with_csv(zsar, tiny_clip_dir, tmp_path, more) -> None:
    write_video(tmp_path / "a.mp4", 12)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    output, asked = tmp_path / "answers.csv", ("--label", "waving", "--label", "running", *more)
    arguments = ("--model", tiny_clip_dir, "--workers", 0, *asked, "--output", output)
    assert zsar("predict", tmp_path / "a.mp4", tmp_path / "b.mp4", *arguments).code == 1
    first = rows(output)
    write_video(tmp_path / "b.mp4", 12)
    done = zsar("predict", tmp_path / "a.mp4", tmp_path / "b.mp4", *arguments, "--resume")
    assert done.code == 0, done.err
    assert "1 answered before" in done.err
    again = rows(output)
    assert again[: len(first) - 1] == first[:-1]
    assert {row["video"]: row["error"] for row in again} == {
        str(tmp_path / x): "" for x in ("a.mp4", "b.mp4")
    }
    other = zsar("predict", tmp_path / "a.mp4", *arguments, "--resume", "--frames", 4)
    assert (other.code, "--frames 8 (this run has --frames 4)" in other.err) == (2, True), other.err
    assert "continue it with --resume" in zsar("predict", tmp_path / "a.mp4", *arguments).err
