"""Tables at the widths that terminals have: numbers stay whole, names and paths give way."""

from __future__ import annotations

import io
import os
import sys

import pytest
from rich.console import Console

from zsar_cli.cli import console
from zsar_cli.cli.output.fitting import FittingTable
from zsar_cli.cli.output.formats import block

WIDTHS = (40, 60, 80, 120)
LONG = "/archive/2024/holiday in the mountains/VID_20240713_183522_with_everyone_we_know.mp4"


def rendered(table: FittingTable, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_of_a_table_never_break(width) -> None:
    columns = ("part", "videos", "lost", "labels", "top-1", "95% CI", "top-5", "class mean", "ECE")
    numbers = ("13320", "117", "101", "81.8", "81.1-82.4", "97.3", "80.9", "0.123")
    text = rendered(FittingTable(columns, [(LONG, *numbers), ("whole", *numbers)], "A title"), width)
    assert max(map(len, text.splitlines())) <= width
    for number in numbers:
        assert text.split().count(number) == 2, number
    assert "A title" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_texts_of_a_table_fold_and_lose_nothing(width) -> None:
    columns = ("method", "backbone", "ucf101", "source")
    text = rendered(
        FittingTable(columns, [("CLIP", "ViT-B/16", "73.8", LONG)], texts=("backbone", "source")), width
    )
    assert "73.8" in text.split()
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("video", ["v.mp4", LONG])
def test_numbers_of_an_answer_never_break(width, video, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    labels = [
        {"label": "arm wrestling of people with long names", "score": 1.0, "yes": 0.93},
        {"label": "b", "score": 0.123, "yes": 0.01},
    ]
    record = {"video": video, "duration": 4000.5, "frames": 8, "unknown": 0.07, "predictions": labels}
    text = block(record, io.StringIO())
    assert max(map(len, text.splitlines())) <= width
    assert any(line.endswith("4000.5 s   unknown 0.07") for line in text.splitlines())
    assert any(line.startswith("  100.0%") and line.endswith("yes 0.93") for line in text.splitlines())
    assert any(line.startswith("   12.3%") and line.endswith("yes 0.01") for line in text.splitlines())

    times = [(0.0, 3600.5), (3600.5, 4000.0)]
    segments = [
        {"start": start, "end": end, "answer": found["label"], "predictions": [found], "unknown": 0.1}
        for (start, end), found in zip(times, labels, strict=True)
    ]
    text = block({"video": video, "duration": 4000.0, "segments": segments}, io.StringIO())
    assert max(map(len, text.splitlines())) <= width
    (first,) = (line for line in text.splitlines() if "0:00.0" in line and "1:00:00.5" in line)
    assert "100.0%" in first
    (second,) = (line for line in text.splitlines() if "1:06:40.0" in line)
    assert "12.3%" in second


def test_messages_break_between_words_on_a_terminal_alone(capsys, monkeypatch) -> None:
    message = f"{LONG} was not read: no such file, so there is nothing to say of what it may have shown"
    console.note(message)
    assert capsys.readouterr().err == message + "\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((40, 24)))
    for say, start in ((console.note, ""), (console.error, "zsar: ")):
        say(message)
        lines = capsys.readouterr().err.splitlines()
        assert " ".join(lines) == start + message
        assert len(lines) > 3
        assert [line for line in lines if len(line) > 40] == [
            "mountains/VID_20240713_183522_with_everyone_we_know.mp4"
        ]
    command = f"Next:  zsar predict VIDEO --model '{LONG}'"
    console.note(command)
    assert capsys.readouterr().err == command + "\n"
