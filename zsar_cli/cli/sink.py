"""Where the records of ``zsar predict`` go: standard output, a file, or a folder of subtitles."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.cli.formats import Format
from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from zsar_cli.prompts import PromptEmbeddings
    from zsar_cli.records import RecordFile


@dataclass
class Sink:
    """Where records go."""

    write: Callable[[dict[str, Any]], object]
    shows: bool = False  # people see the records themselves: errors need no second line
    file: RecordFile | None = None


def format_of(output: Path | None, format: Format | None) -> Format:
    """The format asked for, else what the output's ending says, else what suits standard output."""
    from zsar_cli.cli import console

    if output is None:
        return console.choose_format(format, sys.stdout)
    by_ending: dict[str, Format] = {".csv": "csv", ".txt": "table", ".srt": "srt", ".vtt": "vtt"}
    return format or by_ending.get(output.suffix.lower(), "jsonl")


@contextlib.contextmanager
def open_sink(
    output: Path | None,
    format: Format | None,
    resume: bool,
    text: PromptEmbeddings,
    windows: bool = False,
) -> Iterator[Sink]:
    """Standard output, a file that grows by records, a table that is written at the end, or a folder of subtitles."""
    from zsar_cli.cli import console
    from zsar_cli.cli.formats import csv_header, render

    chosen = format_of(output, format)
    if output is not None and chosen == "jsonl":
        from zsar_cli.records import RecordFile

        file = RecordFile(output, resume=resume, labels=text.labels)
        with contextlib.closing(file):
            yield Sink(file.write, file=file)
    elif output is not None and output.is_dir():
        from zsar_cli.cli.timelines import SubtitleFolder

        yield Sink(SubtitleFolder(output, chosen).write)
    elif output is not None:
        yield from _whole_file(output, chosen, windows)
    else:
        if chosen == "csv":
            console.out(csv_header(windows=windows))
        yield Sink(
            lambda record: console.out(render(record, chosen, sys.stdout, windows=windows)),
            shows=chosen == "table" or sys.stdout.isatty(),
        )


def _whole_file(output: Path, chosen: Format, windows: bool) -> Iterator[Sink]:
    """Tables and CSV say nowhere what is done: the file is there when the run has ended, and then whole."""
    from zsar_cli.cli.formats import csv_header, render
    from zsar_cli.files import atomic_write

    if output.is_file() and output.stat().st_size:
        raise UsageError(f"{output} is there already; remove it first, or choose another --output.")
    with atomic_write(output) as aside, open(aside, "w", encoding="utf-8", newline="") as stream:
        if chosen == "csv":
            stream.write(csv_header(windows=windows))
        yield Sink(lambda record: stream.write(render(record, chosen, stream, windows=windows)))
