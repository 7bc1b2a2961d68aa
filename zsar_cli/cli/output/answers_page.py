"""``zsar predict --report``: writing the report page from the command line."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zsar_cli.cli.options import refuse_directory
from zsar_cli.files import atomic_write
from zsar_cli.outputs import Lock, may_replace, refuse_busy, refuse_taken
from zsar_cli.prediction.confidence import DEFAULT
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.records import read_record
from zsar_cli.video.address import public

if TYPE_CHECKING:
    from zsar_cli.cli.predict_run import Run
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.prediction.report import AnswersPage, FilmSize
    from zsar_cli.video.pool import DecodePool
    from zsar_cli.video.transforms import Preprocess

NAMED = 3  # inputs that the page's command line names
LEFT_OUT = (
    *("min_confidence", "threshold"),
    *("wide", "output", "format", "report", "resume", "overwrite", "explain", "explain_label"),
)


def check_report(path: Path, *, overwrite: bool, resume: bool) -> None:
    """Raise UsageError if the page cannot be written there; ``--resume`` may replace its own page."""
    from zsar_cli.prediction.report import is_page

    refuse_directory(path)
    refuse_busy(path)
    if not (resume and is_page(path)):
        refuse_taken([path], overwrite=overwrite, option="--report")


def new_page(
    path: Path, model: RecognizerModel, run: Run, labels: Sequence[str], command: str
) -> AnswersPage:
    """Make an empty page for a run."""
    from zsar_cli.prediction.report import AnswersPage

    window = run.windows
    seen = f"{run.options.frames or model.frames} frames a {'window' if window else 'video'}"
    if window is not None:
        inside = " inside shots" if window.shots else ""
        seen = f"windows of {window.window:g} s every {window.stride:g} s{inside}, " + seen
    chosen = run.rule.min_confidence
    return AnswersPage(
        labels,
        path.parent,
        summary=f"{model.name}, {seen}, {date.today().isoformat()}",
        command=command,
        confidence=DEFAULT if chosen is None else chosen,
        multi=run.rule.multi,
    )


@contextlib.contextmanager
def open_page(path: Path, page: AnswersPage, *, overwrite: bool, resume: bool) -> Iterator[AnswersPage]:
    """Write the page when the block ends, also by an interruption, with the answers so far."""
    from zsar_cli.prediction.report import is_page

    with Lock(path):
        replace = overwrite or (resume and is_page(path, page.run))
        refuse_taken([path], overwrite=replace, option="--report")
        with atomic_write(path, replace=may_replace(path, replace)) as aside:
            yield page
            page.write(aside)


def add_earlier(
    page: AnswersPage,
    output: Path,
    pool: DecodePool,
    size: FilmSize,
    preprocess: Preprocess,
    stop: threading.Event,
) -> None:
    """Add the earlier answers in ``output``, which ``--resume`` skipped.

    Their videos are decoded for their frames until ``stop`` is set.
    """
    from zsar_cli.prediction.report import decoded_again

    with open(output, "rb") as file:
        found = [record for line in file if (record := read_record(line))]
    left = [record for record in found if same_input(record["video"]) not in page]
    strips = decoded_again(left, pool, size, preprocess)
    for record in left:
        page.add(record, None if stop.is_set() else next(strips))


def command_line(context: typer.Context) -> str:
    """Reconstruct the command line without its outputs and thresholds, for the page to complete."""
    inputs, options = [], []
    for parameter in context.command.params:
        name, source = str(parameter.name), context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE" or name in LEFT_OUT:
            continue
        value = context.params[name]
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            more = ["..."] if len(values) > NAMED else []
            inputs += [shlex.quote(public(str(part))) for part in values[:NAMED]] + more
        elif value is True:
            options.append(parameter.opts[0])
        else:
            options += [f"{parameter.opts[0]} {shlex.quote(str(part))}" for part in values]
    return " ".join(["zsar predict", *inputs, *options])
