"""What an answer can do in Python: plain data, a table, a card in a notebook; and what the package exports."""

from __future__ import annotations

import subprocess
import sys
import types
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import zsar_cli
from tests.video_files import numbered_frame, write_video
from zsar_cli import Failure, LabelScore, Prediction, Segment, Timeline, UsageError
from zsar_cli.prediction.records import Shown

EVIL = '<script>alert("1")</script>'
LABELS = [LabelScore("waving", 0.75, 0.9), LabelScore(EVIL, 0.25, 0.1)]
FRAMES = np.stack([numbered_frame(number, 60, 40) for number in range(4)])
SHOWN = Shown(FRAMES, np.arange(4) / 2)
PREDICTION = Prediction("a.mp4", LABELS, 0.125, 2.0, 8, answer="waving", min_confidence=0.5, shown=SHOWN)
FAILURE = Failure(f"{EVIL}.mp4", "unreadable", "no video <b>")
TIMELINE = Timeline(
    "long.mp4",
    [Segment(0, 1.5, "waving", LABELS, 0.1), Segment(1.5, 2.0, "none of these", LABELS, 0.9)],
    duration=2.0,
    frames=12,
    shown=SHOWN,
)


class Page(HTMLParser):
    """The tags and texts of a piece of HTML; it must close what it opens."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.open += [tag] if tag != "img" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_plain_data_is_the_command_s_record():
    for answer in (PREDICTION, FAILURE, TIMELINE):
        assert answer.to_dict() == answer.to_record()


def test_a_card_shows_the_answer_its_frames_and_its_labels():
    page = Page(PREDICTION._repr_html_())
    assert page.tags.count("img") == 1
    assert "script" not in page.tags
    for text in ("waving", "a.mp4", "unknown 0.12", "75.0%", EVIL):
        assert text in page.text


def test_the_card_of_a_timeline_has_a_row_a_segment():
    page = Page(TIMELINE._repr_html_())
    for text in ("2 segments", "0.0 to 1.5 s", "none of these", "unknown 0.90"):
        assert text in page.text
    many = Timeline("l.mp4", TIMELINE.segments * 20, 40.0, 12, shown=SHOWN)
    assert "and 28 more segments" in Page(many._repr_html_()).text


def test_the_card_of_a_failure_says_why():
    page = Page(FAILURE._repr_html_())
    assert "no video <b>" in page.text
    assert "img" not in page.tags


def test_a_card_without_frames_takes_those_of_the_file_where_it_is_there(tmp_path):
    video = write_video(tmp_path / "a.mp4", 6)
    assert "img" in Page(Prediction(str(video), LABELS, 0.1, 2.0, 8)._repr_html_()).tags
    gone = Page(Prediction("<array 3>", LABELS, 0.1, 2.0, 8)._repr_html_())
    assert "img" not in gone.tags
    assert "<array 3>" in gone.text


class Frame:
    """As much of pandas as is used."""

    def __init__(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        self.rows = rows
        self.columns = columns


def test_a_table_of_pandas_has_the_rows_of_csv(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame))
    table: Any = zsar_cli.to_pandas([PREDICTION, FAILURE])
    assert [row.get("label") for row in table.rows] == ["waving", EVIL, None]
    assert table.rows[0] | {"rank": 1, "answer": "waving", "unknown": 0.125, "yes": 0.9} == table.rows[0]
    assert table.rows[2]["error"] == "unreadable: no video <b>"
    assert {key for row in table.rows for key in row} <= set(table.columns)
    times: Any = TIMELINE.to_pandas()
    assert [(row["start"], row["end"], row["label"]) for row in times.rows] == [
        (0, 1.5, "waving"),
        (1.5, 2.0, "none of these"),
    ]
    assert {key for row in times.rows for key in row} <= set(times.columns)


def test_without_pandas_a_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        PREDICTION.to_pandas()


def test_everything_public_comes_from_the_package_and_is_documented():
    for name in zsar_cli.__all__:
        found = getattr(zsar_cli, name)
        assert name == "__version__" or found.__doc__
        assert name in dir(zsar_cli)
    with pytest.raises(AttributeError, match="nothing"):
        _ = zsar_cli.nothing


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, zsar_cli; print(sorted({'torch', 'numpy', 'av', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
