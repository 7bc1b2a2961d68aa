"""Destinations of the records of ``zsar predict``: standard output, a file, or a folder of subtitles."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.cli.output.formats import Columns, Format

if TYPE_CHECKING:
    from zsar_cli.cli.output.part import Part
    from zsar_cli.prediction.record_file import Form, RecordFile

SUBTITLES = ("srt", "vtt")
GROWING = ("jsonl", "csv")  # formats whose files grow by records, and tell what is done
STORED = (*GROWING, "parquet")  # formats that say what they were made with


@dataclass
class Sink:
    """An open destination of records."""

    write: Callable[[dict[str, Any]], object]
    shows: bool = False  # people see the records themselves: errors need no second line
    file: RecordFile | None = None
    part: Part | None = None  # of a shard


@dataclass(frozen=True)
class Target:
    """The destination that the command line asks for."""

    output: Path | None
    format: Format
    inputs: Sequence[str]
    videos: Sequence[str] | None = None  # all of them, where they are known before
    resume: bool = False
    overwrite: bool = False
    columns: Columns = Columns()  # noqa: RUF009 - frozen
    made_with: dict[str, Any] | None = None
    rows: int = 1  # of CSV that a video has at least


def format_of(output: Path | None, format: Format | None) -> Format:
    """Choose the format: the given one, else by the output's extension, else by the kind of standard output."""
    from zsar_cli.cli import console

    if output is None:
        chosen: Format = console.choose_format(format, sys.stdout)
        return chosen
    by_ending: dict[str, Format] = {
        ".csv": "csv",
        ".parquet": "parquet",
        ".txt": "table",
        ".srt": "srt",
        ".vtt": "vtt",
    }
    return format or by_ending.get(output.suffix.lower(), "jsonl")


def form_of(output: Path, format: Format, columns: Columns, rows: int = 1) -> Form:
    """Choose the format of records in a resumable file."""
    if format == "csv":
        from zsar_cli.cli.output.csv_file import CsvRows

        return CsvRows(output, columns, rows)
    from zsar_cli.prediction.record_file import JSON_LINES

    return JSON_LINES


@contextlib.contextmanager
def open_sink(target: Target) -> Iterator[Sink]:
    """Open standard output, a resumable file, a table that is written at the end, or a folder of subtitles."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.formats import csv_header, render

    output, chosen, columns = target.output, target.format, target.columns
    if output is not None and chosen in GROWING:
        from zsar_cli.prediction.record_file import RecordFile

        file = RecordFile(
            output,
            form=form_of(output, chosen, columns, target.rows),
            made_with=target.made_with,
            resume=target.resume,
            overwrite=target.overwrite,
        )
        with contextlib.closing(file):
            yield Sink(file.write, file=file)
    elif output is not None and output.is_dir():
        yield from _subtitles(output, target)
    elif output is not None:
        yield from _whole_file(output, target)
    else:
        if chosen == "csv":
            console.out(csv_header(columns))
        yield Sink(
            lambda record: console.out(render(record, chosen, sys.stdout, columns)),
            shows=chosen == "table" or sys.stdout.isatty(),
        )


def _subtitles(output: Path, target: Target) -> Iterator[Sink]:
    from zsar_cli.cli import console
    from zsar_cli.cli.output.folders import VideoFolder, lock, write_subtitles

    with lock(output, "--output"):
        folder = VideoFolder(output, target.format, target.inputs, target.videos, overwrite=target.overwrite)
        yield Sink(lambda record: write_subtitles(folder, record))
    console.note(f"{folder.count} {target.format} {'file' if folder.count == 1 else 'files'} in {output}.")


def _whole_file(output: Path, target: Target) -> Iterator[Sink]:
    """Open a table or parquet, which is written in one piece when the run ends, as it cannot be resumed."""
    from zsar_cli.files import atomic_write
    from zsar_cli.outputs import Lock, may_replace, refuse_taken

    with Lock(output):
        refuse_taken([output], overwrite=target.overwrite)
        with (
            atomic_write(output, replace=may_replace(output, target.overwrite)) as aside,
            _parquet(aside, target) if target.format == "parquet" else _table(aside, target) as sink,
        ):
            yield sink


@contextlib.contextmanager
def _table(path: Path, target: Target) -> Iterator[Sink]:
    from zsar_cli.cli.output.formats import render

    with open(path, "w", encoding="utf-8", newline="") as stream:
        yield Sink(lambda record: stream.write(render(record, target.format, stream, target.columns)))


@contextlib.contextmanager
def _parquet(path: Path, target: Target) -> Iterator[Sink]:
    from zsar_cli.prediction.parquet import ParquetWriter

    columns = target.columns
    file = ParquetWriter(
        path, made_with=target.made_with, windows=columns.windows, embeddings=columns.embeddings
    )
    yield Sink(file.write)
    file.close()
