"""``zsar predict`` of a live source."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from tests.video_files import write_video
from zsar_cli.cli import app

ASKED = ("--label", "a", "--label", "b", "--workers", 0, "--min-confidence", 0)


@pytest.fixture
def watch(tmp_path, tiny_clip_dir, monkeypatch, capsys):
    """Run ``zsar predict`` with a video on standard input."""
    video = write_video(tmp_path / "video.ts", 60)

    def run(*arguments: object, content: Path = video) -> tuple[int, str, str]:
        with open(content) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as ended:
                app.main([*map(str, ("predict", *arguments, "--model", tiny_clip_dir, *ASKED))])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_a_video_in_a_pipe_gives_a_record_for_each_segment(watch, tmp_path, zsar, tiny_clip_dir):
    code, out, err = watch("-", "--format", "mpegts", "--window", 1)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    (file,) = zsar("predict", tmp_path / "video.ts", "--window", 1, "--model", tiny_clip_dir, *ASKED).records
    assert [record["video"] for record in found] == ["standard input"] * len(file["segments"])
    for record, segment in zip(found, file["segments"], strict=True):
        (own,) = record["segments"]
        assert own["answer"] == segment["answer"]
        assert [own["start"], own["end"]] == pytest.approx([segment["start"], segment["end"]], abs=1e-3)
    assert "Ended after 0:03 of standard input" in err


def test_the_default_window_is_said_and_records_have_the_other_format(watch, tmp_path):
    output = tmp_path / "answers.csv"
    code, out, err = watch("-", "--format", "mpegts", "--format", "csv", "--output", output)
    assert (code, out) == (0, ""), err
    assert "Windows of 4 s" in err
    (row,) = csv.DictReader(io.StringIO(output.read_text("utf-8-sig")))
    assert (row["video"], row["start"], row["label"]) == ("standard input", "0.000", row["label"])
    assert float(row["end"]) == pytest.approx(3, abs=0.1)


def test_what_is_no_video_gets_a_record_with_an_error(watch, tmp_path):
    (tmp_path / "text").write_text("a.mp4\n" * 100)
    code, out, err = watch("-", "--format", "mpegts", content=tmp_path / "text")
    assert code == 1
    assert json.loads(out)["error"]["kind"] == "unreadable"
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rtsp://127.0.0.1:9/a", "b.mp4"), "a run of its own"),
        (("rtsp://u:secret@127.0.0.1:9/a", "0"), "a run of its own"),
        (("b.mp4", "--format", "mpegts"), "container of a video on standard input"),
        (("-", "--format", "mpegts", "--report", "a.html"), "--report is not for live sources"),
        (("-", "--format", "mpegts", "--window", 0), "--window 0 is not for live sources"),
        (("-", "--format", "mpegts", "--window", 1, "--format", "srt"), "jsonl or csv"),
    ],
)
def test_what_a_live_source_does_not_have_is_refused(watch, arguments, said):
    code, _, err = watch(*arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert "secret" not in err


def test_a_list_that_names_a_live_stream_opens_nothing(watch, tmp_path):
    (tmp_path / "list").write_text("rtsp://127.0.0.1:9/a\n")
    code, out, _ = watch("-", "--format", "jsonl", content=tmp_path / "list")
    assert code == 1
    assert "never from a list" in json.loads(out)["error"]["message"]
