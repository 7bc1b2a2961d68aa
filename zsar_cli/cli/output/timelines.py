"""Formats of a timeline: coloured rows for a terminal, rows of CSV, subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli.cli.output.formats import WIDEST
from zsar_cli.prediction.records import NONE_OF_THESE, answers_of
from zsar_cli.prediction.rows import OF_SEGMENTS, answer_text, cells, rows
from zsar_cli.prediction.timeline_style import clock, colours, ticks
from zsar_cli.text.plain_text import printable

if TYPE_CHECKING:
    from rich.text import Text

MOST_ROWS = 12
LIVE_WIDTH, LONGEST = 79, 3599.0  # columns of a live segment; s that its times have room for
Stretch: TypeAlias = "tuple[float, float]"  # s


# --- for spreadsheets and ELAN --------------------------------------------------------------------------------


def csv_rows(record: dict[str, Any]) -> list[list[Any]]:
    """Format one row per segment and answer, or one with the error; times in s."""
    written = [
        row | {name: f"{row[name]:.3f}" for name in ("start", "end") if name in row} for row in rows(record)
    ]
    return [cells(row, OF_SEGMENTS) for row in written]


def _prediction(segment: dict[str, Any], label: str) -> dict[str, Any] | None:
    """Find the prediction of a label; None if it is not listed, as is always so for "none of these"."""
    return next((found for found in segment["predictions"] if found["label"] == label), None)


# --- for players ----------------------------------------------------------------------------------------------


def subtitles(record: dict[str, Any], format: str) -> str:
    """Format SubRip (srt) or WebVTT (vtt) with one line per answer; "none of these" has no cue."""
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


def timeline_lines(record: dict[str, Any], width: int, labels: Sequence[str] = ()) -> list[Text]:
    """Format the video's name, one row per label with blocks where it occurs, a ruler, and the segments.

    Args:
        labels: all labels of the run; a label's colour depends on its position.
    """
    from rich.cells import cell_len
    from rich.text import Text

    width = min(width, WIDEST)
    segments, duration = record["segments"], max(record["duration"], 1e-3)
    start = segments[0]["start"] if segments else 0.0  # a picture may begin after the sound
    shown = [s for s in segments if s["answer"] != NONE_OF_THESE]
    when: dict[str, list[Stretch]] = {}
    for segment in shown:
        for label in answers_of(segment):
            when.setdefault(label, []).append((segment["start"], segment["end"]))
    spent = {label: sum(end - first for first, end in stretches) for label, stretches in when.items()}
    kept = sorted(sorted(spent, key=lambda label: -spent[label])[:MOST_ROWS], key=list(spent).index)
    painted = colours(kept, labels)
    lines = [_name_line(record["video"], clock(duration), width)]
    if not when:
        lines.append(Text("  ").append(f"{NONE_OF_THESE}, from start to end", style="yellow"))
    rows = [(label, when[label], painted[label], "█▌▐") for label in kept]
    none = [(s["start"], s["end"]) for s in segments if s["answer"] == NONE_OF_THESE]
    if kept and none:
        rows.append((NONE_OF_THESE, none, "dim", "─╴╶"))
    names = min(max([cell_len(printable(label)) for label, *_ in rows], default=0), max(12, width // 3))
    columns = width - names - 12
    for label, stretches, style, marks in rows:
        row = Text("  ").append(_fit(label, names), style="dim" if style == "dim" else "").append(" ")
        row.append(_blocks(stretches, start, duration, columns, marks), style=style)
        lines.append(row.append(f" {clock(sum(e - b for b, e in stretches)):>7}", style="dim"))
    if kept:
        lines.append(Text(" " * (names + 3) + _ruler(start, duration, columns), style="dim"))
    if len(spent) > len(kept):
        lines.append(Text(f"  and {len(spent) - len(kept)} more labels below", style="dim"))
    lines += [_segment_line(segment, painted, width, start + duration) for segment in shown]
    if record.get("warning"):
        lines.append(Text("  ").append(printable(record["warning"]), style="yellow"))
    return lines


def live_line(segment: dict[str, Any], labels: Sequence[str]) -> Text:
    """Format a segment of a live source, "none of these" too, at a width for a terminal."""
    from rich.text import Text

    answer = segment["answer"]
    if answer != NONE_OF_THESE:
        return _segment_line(segment, colours([answer], labels), LIVE_WIDTH, LONGEST)
    digits = len(clock(LONGEST, tenths=True))
    times = " to ".join(f"{clock(segment[name], tenths=True):>{digits}}" for name in ("start", "end"))
    return Text(f"  {times}  {answer}", style="dim")


def _name_line(video: str, about: str, width: int) -> Text:
    from rich.cells import cell_len
    from rich.text import Text

    name = Text(printable(video), style="bold")
    room = width - cell_len(name.plain) - len(about)
    if room < 2:
        name.append("\n")
        room = width - len(about)
    return name.append(" " * room + about, style="not bold dim")


def _segment_line(segment: dict[str, Any], painted: dict[str, str], width: int, end: float) -> Text:
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
        _fit(answer_text(segment, ", "), room), style=f"not dim {painted.get(segment['answer'], '')}".strip()
    )
    return line.append("  " + sure, style="dim")


def _fit(label: str, room: int) -> str:
    from rich.cells import cell_len, set_cell_size

    label = printable(label)
    if cell_len(label) > room:
        label = set_cell_size(label, room - 1).rstrip() + "…"
    return set_cell_size(label, room)


def _blocks(stretches: Sequence[Stretch], start: float, duration: float, columns: int, marks: str) -> str:
    """Draw one character per time step, with a resolution of half a character.

    ``marks``: the characters for both halves, the left half, and the right half.
    """
    halves = [False] * (2 * columns)
    for begin, end in stretches:
        first = round((begin - start) / duration * len(halves))
        last = max(round((end - start) / duration * len(halves)), first + 1)
        for place in range(min(first, len(halves) - 1), min(last, len(halves))):
            halves[place] = True
    kinds = dict(zip([(True, True), (True, False), (False, True)], marks, strict=True))
    return "".join(kinds.get((halves[2 * c], halves[2 * c + 1]), " ") for c in range(columns))


def _ruler(start: float, duration: float, columns: int) -> str:
    """Draw round times at their positions, at most one per ten characters."""
    ruler = ""
    for time, name in ticks(start, duration, columns / 10):
        place = round((time - start) / duration * columns)
        mark = "╵" + name
        if place >= len(ruler) and place + len(mark) <= columns + 8:
            ruler = ruler.ljust(place) + mark
    return ruler
