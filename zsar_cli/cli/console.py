"""The only place that prints: data to stdout, everything else to stderr."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_settings = {"quiet": False, "verbose": False}


def configure(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set how much is said on stderr, and send the package's log there, a line a message."""
    _settings.update(quiet=quiet, verbose=verbose)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("zsar_cli")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.levelname.lower()}: {record.getMessage()}")


def printable(text: str) -> str:
    """Text that is safe on a terminal: control characters and undecodable bytes are shown as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs") else f"\\x{ord(c):02x}" for c in text)


def note(message: str) -> None:
    """A line for people, on stderr; silent with ``--quiet``."""
    if not _settings["quiet"]:
        sys.stderr.write(printable(message) + "\n")


def error(message: str) -> None:
    """What went wrong, on stderr, whatever the settings."""
    sys.stderr.write(f"zsar: {printable(message)}\n")


def out(what: Any) -> None:
    """Data on stdout: text as it is, a Rich table rendered; flushed at once."""
    if isinstance(what, str):
        sys.stdout.write(what + "\n")
    else:
        from rich.console import Console

        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(what)
    sys.stdout.flush()


def to_json(value: Any) -> str:
    """One line of JSON that any reader takes: undecodable bytes of file names appear as ``\\udcXX`` escapes' text."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8") if not text.isascii() else text


def choose_format(
    wanted: str | None, stream: IO[str], known: tuple[str, ...] = ("table", "jsonl", "csv")
) -> str:
    """The output format: what was asked for, else a table on a terminal and JSON Lines in a pipe or a file."""
    from zsar_cli.errors import UsageError

    if wanted is None:
        return "table" if stream.isatty() else "jsonl"
    if wanted not in known:
        raise UsageError(f"--format must be one of {', '.join(known)}, not {wanted!r}.")
    return wanted


class RecordWriter:
    """Writes one record a video to a stream, each as soon as it is there."""

    def __init__(self, stream: IO[str], format: str, *, header: bool = True) -> None:
        self.stream = stream
        self.format = format
        self._csv = csv.writer(stream, lineterminator="\n")
        if format == "csv" and header:
            self._csv.writerow(["video", "rank", "label", "score", "yes", "unknown", "answer", "error"])

    def write(self, record: dict[str, Any]) -> None:
        if self.format == "jsonl":
            self.stream.write(to_json(record) + "\n")
        elif self.format == "csv":
            self._write_csv(record)
        else:
            self._write_table(record)
        self.stream.flush()

    def _write_csv(self, record: dict[str, Any]) -> None:
        video = printable(record["video"])
        if "error" in record:
            self._csv.writerow([video, "", "", "", "", "", "", record["error"]["message"]])
            return
        for rank, found in enumerate(record["predictions"], start=1):
            row = [video, rank, found["label"], found["score"], found["yes"], record["unknown"]]
            self._csv.writerow([*row, record.get("answer", ""), ""])

    def _write_table(self, record: dict[str, Any]) -> None:
        from rich.console import Console
        from rich.text import Text

        terminal = self.stream.isatty()
        width = None if terminal else 100
        console = Console(file=self.stream, width=width, highlight=False, soft_wrap=False)
        console.print(Text(printable(record["video"]), style="bold"), overflow="fold")
        if "error" in record:
            console.print(Text(f"  {printable(record['error']['message'])}", style="red"))
            return
        room = max(20, console.width - 24)
        if record.get("answer") == NONE_OF_THESE:
            console.print(
                Text(f"  {NONE_OF_THESE}", style="yellow"), Text(f"(unknown {record['unknown']:.2f})")
            )
        for found in record["predictions"]:
            bar = "█" * round(found["score"] * 8)
            label = printable(found["label"])
            label = label if len(label) <= room else label[: room - 1] + "…"
            line = Text(f"  {found['score']:6.1%} ")
            line.append(f"{bar:<8}", style="cyan")
            console.print(line.append(f"  {label}"), no_wrap=True, overflow="ellipsis")
        if record.get("warning"):
            console.print(Text(f"  {printable(record['warning'])}", style="yellow"))


NONE_OF_THESE = "none of these"


def csv_text(rows: list[list[Any]]) -> str:
    """Rows as CSV text."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


@contextmanager
def progress(total: int | None, what: str = "videos") -> Iterator[Callable[[int], None]]:
    """A bar on stderr (count, rate, time left), where that is a terminal and nobody asked for quiet.

    Yields a function to call with the number of things that were just done.
    """
    if _settings["quiet"] or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (
        TextColumn(what),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.update(task, advance=done)


@contextmanager
def training_progress() -> Iterator[Callable[[dict[str, float], int], None]]:
    """Progress of a training run on stderr: a live line on a terminal, a line every so often elsewhere."""
    if _settings["quiet"]:
        yield lambda row, steps: None
        return
    terms = ("total", "pos", "neg", "dis")

    def describe(row: dict[str, float]) -> str:
        return "  ".join(f"{name} {row[name]:.3f}" for name in terms if name in row)

    if not sys.stderr.isatty():

        def line(row: dict[str, float], steps: int) -> None:
            step = int(row["step"])
            if step == 1 or step == steps or step % max(1, steps // 20) == 0:
                sys.stderr.write(f"step {step}/{steps}  {describe(row)}  {row['seconds']:.2f} s/step\n")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=None)

        def live(row: dict[str, float], steps: int) -> None:
            rate = f"  {1 / max(row['seconds'], 1e-9):.1f} steps/s"
            bars.update(task, total=steps, completed=row["step"], description=describe(row) + rate)

        yield live


def train_summary(summary: Any, directory: Path) -> None:
    """What a finished run says: where it is, how good, and what to do next."""
    note(f"{summary.steps} steps in {summary.seconds:.0f} s, loss {summary.loss:.3f}; written to {directory}")
    for name, value in summary.validation.items():
        note(f"  top-1 on {name} classes: {value:.1%}")
    note(f"Next:  zsar predict VIDEO --model {directory} --label 'one thing' --label 'another'")


def silence_broken_pipe() -> None:
    """After the reader went away: keep Python from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
