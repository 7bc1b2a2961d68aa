"""How a timeline looks: coloured rows on a terminal, rows of CSV, subtitles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zsar_cli.cli.output.formats import WIDEST
from zsar_cli.prediction.records import NONE_OF_THESE, answers_of
from zsar_cli.prediction.result import COLOURS
from zsar_cli.prediction.rows import OF_SEGMENTS, answer_text, cells, rows
from zsar_cli.text.plain_text import printable

if TYPE_CHECKING:
    from rich.text import Text

MOST_ROWS = 12
Segments = Sequence[dict[str, Any]]


# --- for spreadsheets and ELAN --------------------------------------------------------------------------------


def csv_rows(record: dict[str, Any]) -> list[list[Any]]:
    """A row for each segment and answer of it, or one with the error; times in s."""
    written = [
        row | {name: f"{row[name]:.3f}" for name in ("start", "end") if name in row} for row in rows(record)
    ]
    return [cells(row, OF_SEGMENTS) for row in written]


def _prediction(segment: dict[str, Any], label: str) -> dict[str, Any] | None:
    """What is said about a label; None for one that is not shown, which "none of these" never is."""
    return next((found for found in segment["predictions"] if found["label"] == label), None)


# --- for players ----------------------------------------------------------------------------------------------


def subtitles(record: dict[str, Any], format: str) -> str:
    """SubRip (srt) or WebVTT (vtt); "none of these" shows nothing, several answers a line each."""
    shown = [s for s in record["segments"] if s["answer"] != NONE_OF_THESE]
    cues = []
    for number, segment in enumerate(shown, start=1):
        times = f"{_stamp(segment['start'], format)} --> {_stamp(segment['end'], format)}"
        shown_labels = (printable(label).replace("-->", "→").split() for label in answers_of(segment))
        text = "\n".join(map(" ".join, shown_labels))
        if format == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{number}\n{times}\n{text}\n")
    return ("WEBVTT\n\n" if format == "vtt" else "") + "\n".join(cues)


def _stamp(seconds: float, format: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{',' if format == 'srt' else '.'}{thousandths:03}"


# --- for people -----------------------------------------------------------------------------------------------


def timeline_lines(record: dict[str, Any], width: int) -> list[Text]:
    """The video's name, a row for each label with blocks where it happens, a ruler, and the segments."""
    from rich.cells import cell_len
    from rich.text import Text

    width = min(width, WIDEST)
    segments, duration = record["segments"], max(record["duration"], 1e-3)
    start = segments[0]["start"] if segments else 0.0  # a picture may begin after the sound
    name = Text(printable(record["video"]), style="bold")
    about = clock(duration)
    room = width - cell_len(name.plain) - len(about)
    if room < 2:
        name.append("\n")
        room = width - len(about)
    lines = [name.append(" " * room + about, style="not bold dim")]
    shown = [s for s in segments if s["answer"] != NONE_OF_THESE]
    spent: dict[str, float] = {}
    for segment in shown:
        for label in answers_of(segment):
            spent[label] = spent.get(label, 0.0) + segment["end"] - segment["start"]
    if not spent:
        lines.append(Text("  ").append(f"{NONE_OF_THESE}, from start to end", style="yellow"))
    kept = sorted(sorted(spent, key=lambda label: -spent[label])[:MOST_ROWS], key=list(spent).index)
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(kept)}
    label_width = min(max([cell_len(printable(label)) for label in kept], default=0), max(12, width // 3))
    columns = width - label_width - 12
    for label in kept:
        row = Text("  " + _fit(label, label_width) + " ")
        row.append(_blocks(shown, label, start, duration, columns), style=colours[label])
        lines.append(row.append(f" {clock(spent[label]):>7}", style="dim"))
    if kept:
        lines.append(Text(" " * (label_width + 3) + _ruler(start, duration, columns), style="dim"))
    if len(spent) > len(kept):
        lines.append(Text(f"  and {len(spent) - len(kept)} more labels below", style="dim"))
    lines += [_segment_line(segment, colours, width, start + duration) for segment in shown]
    if record.get("warning"):
        lines.append(Text("  ").append(printable(record["warning"]), style="yellow"))
    return lines


def _segment_line(segment: dict[str, Any], colours: dict[str, str], width: int, end: float) -> Text:
    from rich.text import Text

    best = _prediction(segment, segment["answer"]) or segment["predictions"][0]
    digits = len(clock(end, tenths=True))
    times = (
        f"{clock(segment['start'], tenths=True):>{digits}} to {clock(segment['end'], tenths=True):>{digits}}"
    )
    sure = f"{best['score']:6.1%}  yes {best['yes']:.2f}"
    line = Text(f"  {times}  ", style="dim")
    room = max(4, width - len(line.plain) - len(sure) - 2)
    line.append(
        _fit(answer_text(segment, ", "), room), style=f"not dim {colours.get(segment['answer'], '')}".strip()
    )
    return line.append("  " + sure, style="dim")


def _fit(label: str, room: int) -> str:
    from rich.cells import cell_len, set_cell_size

    label = printable(label)
    if cell_len(label) > room:
        label = set_cell_size(label, room - 1).rstrip() + "…"
    return set_cell_size(label, room)


def _blocks(segments: Segments, label: str, start: float, duration: float, columns: int) -> str:
    """A character a stretch of time, in halves: full where the label is the answer, blank where it is not."""
    halves = [False] * (2 * columns)
    for segment in segments:
        if label in answers_of(segment):
            first = round((segment["start"] - start) / duration * len(halves))
            last = max(round((segment["end"] - start) / duration * len(halves)), first + 1)
            for place in range(min(first, len(halves) - 1), min(last, len(halves))):
                halves[place] = True
    marks = {(True, True): "█", (True, False): "▌", (False, True): "▐", (False, False): " "}
    return "".join(marks[halves[2 * c], halves[2 * c + 1]] for c in range(columns))


def _ruler(start: float, duration: float, columns: int) -> str:
    """Round times where they lie, at most one every ten characters."""
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((s for s in steps if s / duration * columns >= 10), duration)
    ruler = ""
    for number in range(math.ceil(start / step - 1e-9), int((start + duration) / step + 1e-9) + 1):
        place = round((number * step - start) / duration * columns)
        mark = "╵" + clock(number * step, tenths=step < 1)
        if place >= len(ruler) and place + len(mark) <= columns + 8:
            ruler = ruler.ljust(place) + mark
    return ruler


def clock(seconds: float, *, tenths: bool = False) -> str:
    """0:07, 1:02:03; with tenths 0:07.5."""
    total = round(seconds * 10) if tenths else round(seconds) * 10
    minutes, rest = divmod(total, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02}"
    return f"{hours}:{minutes:02}:{second}" if hours else f"{minutes}:{second}"
