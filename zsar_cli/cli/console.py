"""The only module that prints: data to stdout, everything else to stderr."""

from __future__ import annotations

import codecs
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

# What stands for our own ornaments where a stream does not take them
PLAIN = {"━": "=", "█": "#", "▌": "#", "▐": "#", "╵": "|", "…": "~", "→": ">", "✓": "*", "─": "-", "│": "|"}
WIDE = 110  # columns that hold the bar of a training with all terms of its loss
ERASE_LINE = "\r\x1b[2K"
_settings = {"quiet": False, "verbose": False}
_errors: list[tuple[Any, str]] = []  # how streams took what they cannot encode
_live: list[Progress] = []  # the bar that stands in the last line of stderr, if one does


def configure(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set the verbosity of stderr, and send the package's log and Python's warnings there, one line per message."""
    import logging

    from zsar_cli.cli.output.formats import printable
    from zsar_cli.run_log import NOTE, warn_in_python

    class OneLine(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            own = record.name.partition(".")[0] == "zsar_cli"
            if own or verbose or record.levelno >= logging.ERROR:
                name = "" if own else f"{record.name}: "
                text = " ".join(f"{name}{record.getMessage()}".split())
                level = "" if record.levelno == NOTE else f"{record.levelname.lower()}: "
                _say(_folded(printable(f"zsar: {level}{text}")))

    _settings.update(quiet=quiet, verbose=verbose)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if type(handler).__name__ != "OneLine"]
    root.addHandler(OneLine())
    logging.getLogger("zsar_cli").setLevel(logging.ERROR if quiet else logging.INFO if verbose else NOTE)
    logging.captureWarnings(True)
    warn_in_python(False)


def degrade_streams() -> None:
    """Escape characters that stdout and stderr cannot encode, such as on terminals that are not UTF-8."""
    codecs.register_error("zsar", _degraded)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            _errors.append((stream, stream.errors or "strict"))
            stream.reconfigure(errors="zsar")


def _degraded(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAIN.get(x) or x.encode("ascii", "backslashreplace").decode() for x in letters), error.end


def reset() -> None:
    """Restore the state before any command, for programs that run several."""
    _settings.update(quiet=False, verbose=False)
    while _errors:
        stream, errors = _errors.pop()
        with suppress(ValueError):  # closed
            stream.reconfigure(errors=errors)
    if "logging" in sys.modules:
        sys.modules["logging"].captureWarnings(False)
        sys.modules["logging"].getLogger("zsar_cli").setLevel(0)  # else --quiet outlives its command
    if "zsar_cli.run_log" in sys.modules:
        sys.modules["zsar_cli.run_log"].warn_in_python()


def detail(message: str) -> None:
    """Write a line to stderr with ``--verbose`` only."""
    if _settings["verbose"]:
        note(message)


def note(message: str) -> None:
    """Write a line to stderr, unless ``--quiet`` is set."""
    if not _settings["quiet"]:
        from zsar_cli.cli.output.formats import printable

        _say(_folded(printable(message)))


def error(message: str) -> None:
    """Write an error to stderr, whatever the settings, with the rank if there are several processes."""
    from zsar_cli.cli.output.formats import printable
    from zsar_cli.distributed import rank

    _say(_folded(printable(f"zsar{f' (rank {number})' if (number := rank()) else ''}: {message}")))


def plain(text: str) -> None:
    """Write text of the program itself, such as a help page, to stderr without escaping it."""
    _say(text)


def _folded(line: str) -> str:
    """Break a line between words where a terminal would break it within one; a command to copy stays whole."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    except (OSError, ValueError):  # no file behind it
        width = 0
    if not width or len(line) <= width or line.startswith("Next:"):
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def _say(line: str) -> None:
    with _bar_aside():
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:  # nobody reads it
            pass


def out(what: Any) -> None:
    """Write data to stdout and flush it: text unchanged, Rich objects rendered. UsageError if the disk is full."""
    with _bar_aside():
        try:
            if isinstance(what, str):
                sys.stdout.write(what if what.endswith("\n") else what + "\n")
            else:
                from rich.console import Console

                Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(what)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            silence_stdout()
            reason = (error.strerror or str(error)).lower()
            raise UsageError(f"Standard output cannot be written: {reason}.") from error


@contextmanager
def _bar_aside() -> Iterator[None]:
    """Erase the progress bar while something is written, then draw it again below."""
    if _live:
        sys.stderr.write(ERASE_LINE)
        sys.stderr.flush()
    yield
    if _live:
        _live[-1].refresh()


def choose_format(wanted: str | None, stream: IO[str]) -> Any:
    """Choose the format: ``wanted``, or else a table on a terminal and JSON Lines in a pipe or a file."""
    return wanted or ("table" if stream.isatty() else "jsonl")


@contextmanager
def progress(total: int | None, what: str = "videos") -> Iterator[Callable[..., None]]:
    """Show a progress bar (count, rate, time left) on stderr if it is a terminal and ``--quiet`` is not set.

    Yields:
        a function to call with the number of new items, and with their total if it was not known before.
    """
    if _settings["quiet"] or not sys.stderr.isatty() or total == 1:
        yield lambda done, total=None: None
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
            return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")

    # Drawn only when something happened: a thread that redraws would write into the middle of a record
    bars = Progress(
        TextColumn(what),
        MofNCompleteColumn(),
        BarColumn(bar_width=30),
        Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bars:
        task = bars.add_task(what, total=total)
        _live.append(bars)

        def advance(done: float, total: float | None = None) -> None:
            bars.update(task, advance=done, total=total)  # None: as it was
            bars.refresh()

        try:
            bars.refresh()
            yield advance
        finally:
            _live.remove(bars)


@contextmanager
def status(message: str, *, log: bool = False) -> Iterator[None]:
    """Show a line on stderr during the block if it is a terminal; otherwise, with ``log``, write it once."""
    if _settings["quiet"] or not sys.stderr.isatty():
        if log:
            note(message)
        yield
        return
    from zsar_cli.cli.output.formats import printable

    sys.stderr.write(printable(message))
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(ERASE_LINE)
        sys.stderr.flush()


@contextmanager
def training_progress(show: bool = True) -> Iterator[Callable[[dict[str, float], int], None]]:
    """Show the progress of training on stderr: a live bar on a terminal, otherwise some 20 lines per run."""
    if _settings["quiet"] or not show:
        yield lambda row, steps: None
        return
    if not sys.stderr.isatty():
        yield _training_line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        MofNCompleteColumn(),
        BarColumn(bar_width=12),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        TextColumn("{task.description}"),
    )
    held_out = ""
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as bars:
        _live.append(bars)
        task: Any = None

        def live(row: dict[str, float], steps: int) -> None:
            nonlocal task, held_out
            if "held_out_top1" in row:
                held_out = f"  held out {row['held_out_top1']:.0%}"
                return
            step = int(row["step"])
            if task is None:  # a run that goes on starts where it was: its speed is that of now
                task = bars.add_task("", total=steps, completed=step - 1)
            said = f"loss {row['total']:.3f}"
            if console.width >= WIDE:
                rate = f"{1 / max(row['seconds'], 1e-9):.1f}/s{_waited(row['data_wait'], row['seconds'])}  "
                rate += f"lr {row['module_lr']:.1e}  "
                said = rate + _loss_terms(row)
            bars.update(task, completed=step, description=said + held_out)
            bars.refresh()

        try:
            yield live
        finally:
            _live.remove(bars)


def _loss_terms(row: dict[str, float]) -> str:
    terms = ("total", "pos", "neg", "dis", "opp", "keep")
    return " ".join(f"{'loss' if name == 'total' else name} {row[name]:.3f}" for name in terms if name in row)


def _waited(data_wait: float, seconds: float) -> str:
    """Say how long the model waited for clips, where that is more than a tenth of the time."""
    return f" ({data_wait:.2g} s waiting for clips)" if data_wait > 0.1 * seconds else ""


def _training_line(row: dict[str, float], steps: int) -> None:
    step = int(row["step"])
    if "held_out_top1" in row:
        note(f"step {step}/{steps}  top-1 on held-out clips {row['held_out_top1']:.1%}")
    elif step == 1 or step == steps or step % max(1, steps // 20) == 0:
        from datetime import timedelta

        left = timedelta(seconds=round((steps - step) * row["seconds"]))
        note(
            f"step {step}/{steps}  {_loss_terms(row)}  lr {row['lr']:.1e} and {row['module_lr']:.1e}  "
            f"{row['seconds']:.2f} s/step{_waited(row['data_wait'], row['seconds'])}, {left} left"
        )


def train_summary(summary: Any, directory: Path) -> None:
    """Show where a finished run was written, its accuracy, and a command to run next."""
    from rich.console import Console
    from rich.table import Table

    if _settings["quiet"]:
        return
    table = Table(
        title=f"{summary.steps} steps in {summary.seconds:.0f} s{_waited(summary.data_wait, summary.seconds)}",
        title_justify="left",
        show_edge=False,
    )
    cells = {"final loss": f"{summary.loss:.3f}"}
    if summary.best is not None:
        cells["best step"] = str(summary.best_step)
        cells["best on held-out clips"] = f"{summary.best:.1%}"
    cells |= {f"{name} classes": f"{value:.1%}" for name, value in summary.validation.items()}
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*cells.values())
    compared = _compared(summary) if summary.baselines is not None and summary.best is not None else None
    with _bar_aside():
        for each in (table, compared):
            if each is not None:
                Console(stderr=True, highlight=False, markup=False).print(each, "")
    if compared is not None:
        note(_verdict(summary.best, summary.baselines))
    best = f", the best checkpoint to {directory / 'best'}" if summary.best is not None else ""
    note(f"Written to {directory}{best}.")
    if compared is not None:
        note(f"Next:  zsar predict VIDEO --model {shlex.quote(str(directory))}")
    elif summary.validation:
        note(f"Next:  zsar eval --model {shlex.quote(str(directory))}")
    else:
        note(
            f"Next:  zsar predict VIDEO --model {shlex.quote(str(directory))} --label 'one thing' --label 'another'"
        )


def _compared(summary: Any) -> Any:
    """Compare zero-shot, a linear probe and the trained model on the same clips."""
    from rich.table import Table

    from zsar_cli.evaluation.metrics import wilson_interval

    clips = summary.baselines.clips
    table = Table(show_edge=False)
    table.add_column(f"on {clips} held-out clips")
    table.add_column("top-1", justify="right")
    table.add_column("95% CI", justify="right")
    rows = {
        "before training (zero-shot)": summary.baselines.zero_shot,
        "linear probe on averaged frames": summary.baselines.probe,
        "trained": summary.best,
    }
    for name, share in rows.items():
        low, high = wilson_interval(round(share * clips), clips)
        table.add_row(name, f"{share:.1%}", f"{low:.0%} to {high:.0%}")
    return table


def _verdict(trained: float, baselines: Any) -> str:
    """Summarise in a sentence or two whether training helped."""
    gain, behind = trained - baselines.zero_shot, baselines.probe - trained
    said = (
        f"Training gained {gain:+.1%} over zero-shot."
        if gain > 0
        else "Training did not improve on zero-shot."
    )
    if round(behind * baselines.clips) > 0:
        said += f" The linear probe is {behind:.1%} better than the trained model."
    if gain <= 0 or behind > 0.05:
        said += " More clips or more descriptive class names may help."
    few = "; they are few, so mind the intervals" if baselines.clips < 50 else ""
    return f"{said} The best step was chosen on these clips{few}."


def silence_stdout() -> None:
    """Prevent an error of Python at exit after the reader of stdout has closed it or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
