"""``zsar predict --window``: formats that people and their programs read."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from rich.cells import cell_len

from tests.cli.test_predict import LABELS, own_cache, run  # noqa: F401 - a fixture
from tests.close import assert_close
from tests.video_files import write_video
from zsar_cli.cli.output import formats, timelines
from zsar_cli.cli.output.folders import VideoFolder, write_subtitles
from zsar_cli.cli.output.timelines import subtitles, timeline_lines
from zsar_cli.errors import UsageError
from zsar_cli.prediction.rows import OF_SEGMENTS


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("windows") / "long.mp4", 120, rate=20)


def segment(start: float, end: float, answer: str, score: float = 0.8) -> dict:
    label = "waving" if answer == "none of these" else answer
    found = [{"label": label, "score": score, "yes": 0.7}]
    return {"start": start, "end": end, "answer": answer, "predictions": found, "unknown": 0.3}


RECORD = {
    "video": "talk.mp4",
    "segments": [
        segment(0, 30, "waving"),
        segment(30, 60, "none of these"),
        segment(60, 3661.5, "a <b> & --> c"),
        segment(3661.5, 3700, "waving"),
    ],
    "duration": 3700.0,
    "frames": 100,
}


def windows(video, tiny_clip_dir, *more):
    return run("predict", video, "--model", tiny_clip_dir, *LABELS, "--window", 2, "--workers", 0, *more)


def test_segments_as_json_and_from_python(video, tiny_clip_dir):
    from zsar_cli import Recognizer

    code, out, _ = windows(video, tiny_clip_dir)
    record = json.loads(out)
    assert code == 0
    assert set(record) == {"video", "segments", "duration", "frames", "min_confidence"}
    assert record["min_confidence"] == 0.5
    assert record["frames"] == 24  # 4 a second: 8 a window of 2 s
    first = record["segments"][0]
    assert set(first) == {"start", "end", "answer", "predictions", "unknown"}
    assert first["start"] == 0
    assert record["segments"][-1]["end"] == record["duration"] == 6
    found = Recognizer.load(str(tiny_clip_dir)).segments(video, LABELS[1::2], window=2)
    assert_close(found.to_record(), record)


def test_csv_has_a_row_a_segment_and_one_for_a_failure(video, tiny_clip_dir, tmp_path):
    code, out, _ = windows(
        video, tiny_clip_dir, tmp_path / "no.mp4", "--format", "csv", "--min-confidence", 0
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert list(rows[0]) == list(OF_SEGMENTS)
    assert float(rows[0]["start"]) == 0
    assert rows[0]["label"] in LABELS
    assert rows[-1]["error"].startswith("not_found")
    assert all(None not in row and None not in row.values() for row in rows)


def test_subtitles_of_one_video_and_of_a_folder(video, tiny_clip_dir, tmp_path):
    file = tmp_path / "one.vtt"
    assert windows(video, tiny_clip_dir, "--output", file, "--min-confidence", 0)[0] == 0
    assert file.read_text().startswith("WEBVTT\n\n1\n00:00:00.000 --> ")
    other = tmp_path / "other.mp4"
    other.write_bytes(video.read_bytes())
    folder = tmp_path / "subtitles"
    folder.mkdir()
    assert (
        windows(video, tiny_clip_dir, other, "--format", "srt", "-o", folder, "--min-confidence", 0)[0] == 0
    )
    assert sorted(p.name for p in folder.iterdir()) == ["long.srt", "other.srt"]
    assert re.match(r"1\n00:00:00,000 --> \d\d:\d\d:\d\d,\d{3}\n\w", (folder / "long.srt").read_text())


def test_subtitles_without_a_cue_say_why(video, tiny_clip_dir, tmp_path):
    code, _, err = windows(video, tiny_clip_dir, "--output", tmp_path / "one.srt", "--min-confidence", 1)
    assert code == 0
    assert (tmp_path / "one.srt").read_text() == ""
    assert "1 of 1 video without a cue" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stride", "3"], "gaps"),
        (["--views", "2"], "--views"),
        (["--format", "srt", "other.mp4"], "folder"),
    ],
)
def test_what_does_not_go_together(video, tiny_clip_dir, more, message):
    code, _, said = windows(video, tiny_clip_dir, *more)
    assert code == 2
    assert message in said


@pytest.mark.parametrize("more", [["--stride", "1"], ["--format", "srt"], ["--output", "x.vtt"]])
def test_what_needs_a_window(video, tiny_clip_dir, more):
    code, _, said = run("predict", video, "--model", tiny_clip_dir, *LABELS, *more)
    assert code == 2
    assert "--window" in said


def test_cues_leave_none_of_these_out_and_cannot_break_the_file():
    srt = subtitles(RECORD, "srt")
    assert "none of these" not in srt
    assert srt.count("-->") == 3
    assert "01:01:01,500 --> 01:01:40,000" in srt
    vtt = subtitles(RECORD, "vtt")
    assert "a &lt;b&gt; &amp; → c" in vtt


def test_videos_of_one_name_do_not_share_a_file(tmp_path):
    videos = [str(tmp_path / "in" / name / "clip.mp4") for name in "ab"]
    folder = VideoFolder(tmp_path / "out", "srt", videos, videos)
    for video in videos:
        write_subtitles(folder, {**RECORD, "video": video})
    write_subtitles(
        VideoFolder(tmp_path / "quiet", "srt", videos), {**RECORD, "video": videos[0], "segments": []}
    )
    again = VideoFolder(tmp_path / "quiet", "srt", videos)
    write_subtitles(again, {**RECORD, "video": videos[0]})  # what held no cue is not in the way
    with pytest.raises(UsageError, match="already exists"):
        write_subtitles(again, {**RECORD, "video": videos[0]})
    write_subtitles(folder, {"video": "c/clip.mp4", "error": {"kind": "not_found", "message": "no"}})
    assert sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "out").rglob("*.srt")) == [
        "out/a/clip.srt",
        "out/b/clip.srt",
    ]


@pytest.mark.parametrize("width", [50, 80, 120])
def test_timeline_fits_and_shows_when(width):
    lines = [line.plain for line in timeline_lines(RECORD, width)]
    assert max(cell_len(line) for part in lines for line in part.split("\n")) <= min(width, formats.WIDEST)
    row = next(line for line in lines if line.startswith("  waving"))
    blocks = row[16:-8]
    marked = [place for place, mark in enumerate(blocks) if mark in "█▌▐"]
    assert min(marked) == 0
    assert max(marked) == len(blocks) - 1
    assert not [place for place in marked if 0.1 < place / len(blocks) < 0.9]  # another label's time
    assert sum("waving" in line for line in lines) == 3  # a row and two segments
    none = next(line for line in lines if "none of these" in line)
    assert set(none[16:-8]) & set("─╴╶")
    assert sum("none of these" in line for line in lines) == 1  # a row, and no segment


def test_a_label_has_one_colour_in_every_timeline():
    def colour(*segments: dict) -> str:
        lines = timeline_lines({**RECORD, "segments": list(segments)}, 80, labels=("a", "b", "waving"))
        line = next(line for line in lines if line.plain.startswith("  waving"))
        return str(line.spans[-2].style)

    alone, second = segment(0, 3700, "waving"), segment(1850, 3700, "waving")
    assert colour(alone) == colour(segment(0, 1850, "a"), second) == colour(segment(0, 1850, "b"), second)


def test_timeline_of_nothing_and_of_many_labels():
    nothing = {**RECORD, "segments": [segment(0, 3700, "none of these")]}
    assert "none of these" in timeline_lines(nothing, 80)[1].plain
    many = {**RECORD, "segments": [segment(i * 100, i * 100 + 100, f"label {i}") for i in range(37)]}
    lines = [line.plain for line in timeline_lines(many, 80)]
    assert any(f"and {37 - timelines.MOST_ROWS} more" in line for line in lines)
    assert sum(" to " in line for line in lines) == 37


def test_labels_unlike_the_training_are_named():
    from zsar_cli.cli.run_lines import unlike_training

    trained = ["a shape moving left", "riding a bike"]
    assert unlike_training(["Riding, slowly", "the opening of a door", "moving up"], trained) == [
        "the opening of a door"
    ]
    assert unlike_training(["anything"], []) == []
