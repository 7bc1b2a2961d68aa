"""Formats of a record: text for a terminal, rows of CSV, a line of JSON; untrusted text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from zsar_cli.prediction.records import NONE_OF_THESE, to_json
from zsar_cli.prediction.rows import OF_SEGMENTS, OF_VIDEOS, answer_text, cells, rows
from zsar_cli.text.plain_text import csv_text, printable, takes_unicode

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Columns", "Format", "block", "csv_columns", "csv_header", "csv_rows", "printable", "render"]
Format = Literal["table", "jsonl", "csv", "parquet", "srt", "vtt"]
CSV_TAIL = ("warning", "error")
WIDEST = 100  # columns of a block: beyond, eyes lose the line


@dataclass(frozen=True)
class Columns:
    """The columns of a CSV file."""

    windows: bool = False  # segments, not videos
    labels: tuple[str, ...] | None = None  # a column each, and a row a video or segment (--wide)
    known: tuple[str, ...] = ()  # all labels of the run: each has one colour in every video
    several: bool = False  # a segment may have several answers, and a row for each
    embeddings: bool = False  # of parquet


def render(record: dict[str, Any], format: Format, stream: IO[str], columns: Columns | None = None) -> str:
    """Format a record as text ending in a newline; ``stream`` determines the width and colours of a table."""
    columns = columns or Columns()
    if format == "jsonl":
        return to_json(record, ascii_only=not takes_unicode(stream)) + "\n"
    if format in ("srt", "vtt"):
        from zsar_cli.cli.output.timelines import subtitles

        return "" if "error" in record else subtitles(record, format)
    if format != "csv":
        return block(record, stream, columns.known)
    return csv_text(csv_rows(record, columns))


def csv_columns(columns: Columns) -> list[str]:
    """Return the names of the CSV columns."""
    if columns.labels is not None:
        own = [printable(f"yes: {label}") for label in columns.labels]  # a label may be named as a column is
        return [*_wide_columns(columns.windows), *own, *CSV_TAIL]
    if columns.windows:
        return list(OF_SEGMENTS)
    return list(OF_VIDEOS)


def csv_header(columns: Columns) -> str:
    """Format the header of CSV."""
    return csv_text([csv_columns(columns)])


def csv_rows(record: dict[str, Any], columns: Columns) -> list[list[Any]]:
    """Format the CSV rows of a video: one per label or segment, or one with the error."""
    if "error" in record:
        error = f"{record['error']['kind']}: {record['error']['message']}"
        return [[record["video"], *[""] * (len(csv_columns(columns)) - 2), error]]
    if columns.labels is not None:
        return _wide_rows(record, columns.windows, columns.labels)
    if columns.windows:
        from zsar_cli.cli.output import timelines

        return timelines.csv_rows(record)
    return [cells(row, OF_VIDEOS) for row in rows(record)]


def _wide_columns(windows: bool) -> tuple[str, ...]:
    return (
        ("video", "start", "end", "duration", "answer", "unknown")
        if windows
        else ("video", "answer", "unknown")
    )


def _wide_rows(record: dict[str, Any], windows: bool, labels: tuple[str, ...]) -> list[list[Any]]:
    """Format one row per segment, or one for the video, with the ``yes`` of every label."""
    first = record["video"]
    rows = []
    for part in record["segments"] if windows else [record]:
        yes = {found["label"]: found["yes"] for found in part["predictions"]}
        times = [f"{part['start']:.3f}", f"{part['end']:.3f}", record["duration"]] if windows else []
        about = [first, *times, answer_text(part), part["unknown"]]
        rows.append([*about, *(yes.get(label, "") for label in labels), record.get("warning", ""), ""])
    return rows


def block(record: dict[str, Any], stream: IO[str], labels: Sequence[str] = ()) -> str:
    """Format the video's name, followed by one line per label: probability, bar, label and ``yes``.

    ``labels``: all labels of the run.
    """
    from rich.console import Console
    from rich.padding import Padding

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    width = min(console.width, WIDEST)
    if "segments" in record:
        from zsar_cli.cli.output.timelines import timeline_lines

        lines = timeline_lines(record, width, labels)
    else:
        lines = _error_lines(record) if "error" in record else _answer_lines(record, width)
    with console.capture() as captured:
        for line in lines:
            indent = 2 if line.plain.startswith("  ") else 0  # what is folded stays indented
            console.print(Padding(line[indent:], (0, 0, 0, indent)), width=width, overflow="fold")
    return captured.get()


def _error_lines(record: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    return [
        Text(printable(record["video"]), style="bold"),
        Text("  ").append(printable(record["error"]["message"]), style="red"),
    ]


def _answer_lines(record: dict[str, Any], width: int) -> list[Text]:
    from rich.cells import cell_len
    from rich.text import Text

    lines = [Text(printable(record["video"]), style="bold")]
    about = f"{record['duration']:.1f} s   unknown {record['unknown']:.2f}"
    room = width - cell_len(lines[0].plain) - len(about)
    if room < 3:  # on a line of its own
        lines.append(Text())
        room = width - len(about)
    lines[-1].append(" " * room + about, style="not bold dim")
    if record.get("answer") == NONE_OF_THESE:
        lines.append(Text("  ").append(NONE_OF_THESE, style="yellow"))
    sure = set(record["answers"]) if "answers" in record else None
    for found in record["predictions"]:
        mark = "" if sure is None else "✓ " if found["label"] in sure else "  "
        lines.append(_label_line(found, width, mark))
    if record.get("warning"):
        lines.append(Text("  ").append(printable(record["warning"]), style="yellow"))
    return lines


def _label_line(found: dict[str, Any], width: int, mark: str) -> Text:
    """Format the line of one label; ``mark`` is put before the answers with ``--multi``."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    bar = max(8, width // 6)
    full = round(found["score"] * bar)
    line = Text(f"  {found['score']:6.1%}  ")
    line.append("━" * full + " " * (bar - full), style="cyan")
    sure = f"  yes {found['yes']:.2f}"
    room = max(1, width - cell_len(line.plain) - len("  " + mark) - len(sure))
    label = printable(found["label"])
    if cell_len(label) > room:
        label = set_cell_size(label, room - 1).rstrip() + "…"
    line.append("  ").append(mark, style="green")
    return line.append(set_cell_size(label, room)).append(sure, style="dim")
