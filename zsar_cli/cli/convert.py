"""``zsar predict answers.jsonl``: convert stored answers to another format, without a model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from zsar_cli.cli.output.destination import check_destination, check_subtitles
from zsar_cli.cli.output.formats import Columns, Format
from zsar_cli.cli.output.sink import STORED, SUBTITLES, Target, format_of, open_sink
from zsar_cli.cli.run_lines import counted
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.files import in_temporary_folder
from zsar_cli.outputs import refuse_inputs
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.parquet import made_with_of, read_parquet
from zsar_cli.prediction.parts import refuse_parts
from zsar_cli.prediction.records import LONGEST, MADE_WITH, is_complete, read_record, to_json
from zsar_cli.video.address import is_remote, path_of
from zsar_cli.video.live_source import is_live

if TYPE_CHECKING:
    from zsar_cli.prediction.report import AnswersPage

ENDINGS = (".jsonl", ".ndjson")
PARQUET = ".parquet"
START = b'{"video": '
TAKEN = (
    "videos",
    "format",
    "output",
    "report",
    "overwrite",
    "wide",
    "workers",
    "timeout",
)  # options that it heeds
STDIN = "standard input"
ROUNDED = 0.002  # s


@dataclass
class Answers:
    """Records stored in files: a video's last answer, or else its last error, and all segments of a live source."""

    names: list[str]
    files: list[IO[bytes]]
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # by key: file, start, bytes
    failed: set[str] = field(default_factory=set)
    timelines: bool = False
    whole: bool = False  # holds answers about whole videos
    labels: dict[str, None] = field(default_factory=dict)  # in the order in which they came
    made: list[dict[str, Any]] = field(default_factory=list)  # of each file, what it was made with
    multi: bool = False
    min_confidence: float | None = None

    @property
    def made_with(self) -> dict[str, Any]:
        """What the first file that says so was made with."""
        return next(filter(None, self.made), {})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for file, start, size in self.places.values():
            self.files[file].seek(start)
            record = read_record(self.files[file].read(size))
            assert record is not None
            yield record

    def joined(self) -> Iterator[dict[str, Any]]:
        """Yield the records with the segments of a live source, each of which has its own, together."""
        held: dict[str, Any] | None = None
        for record in self:
            if held is not None and _follows(held, record):
                about = {name: record[name] for name in ("duration", "frames")}
                held["segments"] += record["segments"]
                held |= about
                continue
            if held is not None:
                yield held
            held = record
        if held is not None:
            yield held

    def take(self, record: dict[str, Any], place: tuple[int, int, int]) -> None:
        """Register a record and its position in a file."""
        key, failed = _key(record), "error" in record
        self.made[place[0]] = self.made[place[0]] or record.get(MADE_WITH, {})
        if failed and key in self.places and key not in self.failed:
            return
        self.places[key] = place
        (self.failed.add if failed else self.failed.discard)(key)
        if failed:
            return
        self.timelines |= "segments" in record
        self.whole |= "predictions" in record
        self.multi |= "answers" in record
        self.min_confidence = record.get("min_confidence", self.min_confidence)
        for part in record.get("segments", [record]):
            self.labels |= dict.fromkeys(found["label"] for found in part["predictions"])


def _key(record: dict[str, Any]) -> str:
    """Name what a record is about: its video; of a live source the segment, as each has a record of its own."""
    key, parts = same_input(record["video"]), record.get("segments", [])
    if parts and is_live(record["video"]):
        return f"{key}\0{parts[0]['start']}\0{parts[-1]['end']}\0{record.get('began')}"
    return key


def _follows(before: dict[str, Any], record: dict[str, Any]) -> bool:
    """Tell whether a record goes on with the live source of the one before."""
    return (
        before["video"] == record["video"]
        and is_live(record["video"])
        and "segments" in before
        and "segments" in record
        and record["segments"][0]["start"] >= before["segments"][-1]["end"] - ROUNDED
    )


def find_answers(stack: contextlib.ExitStack, inputs: Sequence[str], *, listed: bool) -> Answers | None:
    """Read stored answers named by the arguments of ``zsar predict``; None if the arguments are videos.

    Args:
        stack: keeps the files open.
        inputs: the arguments.
        listed: whether standard input may hold answers; with labels, it is a list of videos.

    Raises:
        UsageError: a file of JSON Lines has other content, or videos and answers are mixed.
    """
    if list(inputs) == ["-"]:
        return _from_stdin(stack) if listed and not sys.stdin.isatty() else None
    return read_answers(stack, inputs) if are_answers(inputs) else None


def are_answers(inputs: Sequence[str]) -> bool:
    """Tell whether these are files of stored answers. UsageError if only some of them are, or for a folder of parts."""
    for path in inputs:
        if not is_remote(path):  # a folder in a storage is looked at once it has no videos
            refuse_parts(path)
    stored = [path for path in inputs if _is_answers(path)]
    if 0 < len(stored) < len(inputs):
        other = next(path for path in inputs if path not in stored)
        raise UsageError(
            f"{stored[0]} holds stored answers, but {other!r} does not; convert stored answers separately."
        )
    return len(stored) > 0


def _is_answers(path: str) -> bool:
    name = path_of(path) if is_remote(path) else path
    if is_remote(path):
        if not name.lower().endswith((*ENDINGS, PARQUET)):
            return False
    elif not os.path.isfile(path):
        return False
    with contextlib.suppress(OSError, VideoError), contextlib.ExitStack() as stack:
        file = stack.enter_context(_peek(path))
        if name.lower().endswith(PARQUET):
            return made_with_of(file) is not None
        start = file.read(len(START))
        ours = name.lower().endswith(ENDINGS) or start == START
        return ours and not _is_of_list(start + file.readline(LONGEST))
    return False


def _peek(path: str) -> IO[bytes]:
    """Open a file, or an object in a storage of which only the parts that are asked for are fetched."""
    if not is_remote(path):
        return open(path, "rb")
    from zsar_cli.video.storage import file_system
    from zsar_cli.video.storage_errors import explained

    system, place = file_system(path)
    try:
        return io.BufferedReader(system.open(place, "rb"))  # files of fsspec read no line of a limited length
    except Exception as error:  # whatever a driver raises
        raise explained(error, path) from None


def on_disk(stack: contextlib.ExitStack, name: str) -> str:
    """Find a file on this disk: itself, or a copy of the object, which the stack removes."""
    if not is_remote(name):
        return name
    from zsar_cli.prediction.places import StorageFolder

    place, _, last = name.rpartition("/")
    return str(stack.enter_context(StorageFolder(place).open(last)).name)


def _is_of_list(line: bytes) -> bool:
    """Tell whether a line of JSON is one of a list of videos: a text, or an object without answers."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        return isinstance(value, str) or (
            isinstance(value, dict) and not value.keys() & {"predictions", "segments", "error"}
        )
    return False


def read_answers(stack: contextlib.ExitStack, names: Sequence[str]) -> Answers:
    """Read files of stored answers, which the stack keeps open."""
    return _read(list(names), [_open(stack, name) for name in names])


def _open(stack: contextlib.ExitStack, name: str) -> IO[bytes]:
    """Open a file as JSON Lines; parquet is copied to them."""
    path = on_disk(stack, name)
    if not path.lower().endswith(PARQUET):
        return stack.enter_context(open(path, "rb"))
    about = {MADE_WITH: made_with_of(path)}
    with in_temporary_folder():
        file = stack.enter_context(tempfile.TemporaryFile())
        for record in read_parquet(path):
            file.write((to_json(record | about) + "\n").encode())
            about = {}
        file.seek(0)
    return file


def _from_stdin(stack: contextlib.ExitStack) -> Answers | None:
    first = sys.stdin.buffer.readline(LONGEST)
    if not first.startswith(START):
        return None
    with in_temporary_folder():
        file = stack.enter_context(tempfile.TemporaryFile())
        file.write(first)
        while block := sys.stdin.buffer.read(1 << 20):
            file.write(block)
        file.seek(0)
    return _read([STDIN], [file])


def _read(names: list[str], files: list[IO[bytes]]) -> Answers:
    found = Answers(names, files, made=[{} for _ in files])
    for number, (name, file) in enumerate(zip(names, files, strict=True)):
        start = 0
        for count, line in enumerate(iter(lambda file=file: file.readline(LONGEST), b""), start=1):  # type: ignore[misc]
            record = read_record(line)
            if record is not None and is_complete(record):
                found.take(record, (number, start, len(line)))
            elif line.strip() and (line.endswith(b"\n") or not found.places):
                raise UsageError(
                    f"{name} is not an output of zsar predict: line {count} is no record of it. Give videos, or a file "
                    "written by --output."
                )
            start += len(line)
    if not found.places:
        raise UsageError(f"{names[0]} is empty: there are no answers to convert.")
    return found


def convert(
    context: typer.Context,
    answers: Answers,
    format: Format | None,
    output: Path | None,
    report: Path | None,
    *,
    wide: bool,
    overwrite: bool,
    shown: str | None = None,
) -> None:
    """Write the answers in the requested format, with a note on stderr; ``shown``: the output as it was given."""
    from zsar_cli.cli import console

    chosen = format_of(output, format)
    _check(context, answers, chosen, wide)
    check_destination(output, False, overwrite, format)

    def records() -> Iterator[dict[str, Any]]:
        # Programs get the records as they were stored, and people a live source as a whole
        return iter(answers) if chosen in STORED else answers.joined()

    videos = [record["video"] for record in records()]
    check_subtitles(output, format, several=len(set(videos)) > 1, overwrite=overwrite)
    for written in (output, report):
        if written is not None:
            refuse_inputs(written, answers.names)
    wide_labels = tuple(answers.labels) if wide else None
    columns = Columns(answers.timelines, wide_labels, embeddings=bool(answers.made_with.get("embeddings")))
    target = Target(output, chosen, videos, videos, overwrite=overwrite, columns=columns)
    target = replace(target, made_with=answers.made_with if chosen == "parquet" else None)
    with open_sink(target) as sink:
        for record in records():
            sink.write(record)
    if report is not None:
        _write_page(report, answers, overwrite)
    good, bad = len(answers.places) - len(answers.failed), len(answers.failed)
    failed = f" and {counted(bad, 'failure')}" if bad else ""
    to = f", written to {shown or output}" if output is not None else ""
    page = f", page in {report}" if report is not None else ""
    console.note(
        f"{', '.join(answers.names)}: {counted(good, 'answer')}{failed} as {chosen}{to}{page}; no model was run."
    )


def refuse_options(context: typer.Context, name: str, heeded: Sequence[str], why: str) -> None:
    """Raise UsageError for an option that stored answers leave nothing to do for."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in heeded:
            raise UsageError(f"{name} holds stored answers, which {why}; remove {parameter.opts[0]}.")


def _check(context: typer.Context, answers: Answers, chosen: Format, wide: bool) -> None:
    name = answers.names[0]
    refuse_options(context, name, TAKEN, "are converted without running a model")
    if chosen in SUBTITLES and not (answers.timelines and not answers.whole):
        raise UsageError(f"{name} has answers for whole videos; subtitles need answers of --window.")
    if chosen in ("csv", "parquet") and answers.timelines and answers.whole:
        raise UsageError(
            f"{name} has answers for whole videos and answers of --window, which have different columns; "
            "convert them separately."
        )
    if wide and chosen != "csv":
        raise UsageError("--wide needs --format csv.")


def _write_page(path: Path, answers: Answers, overwrite: bool) -> None:
    """Write the report page, with frames of the videos that are still readable."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.answers_page import check_report, open_page
    from zsar_cli.prediction.report import FilmSize, decoded_again
    from zsar_cli.resources import default_workers
    from zsar_cli.video.pool import DecodePool

    check_report(path, overwrite=overwrite, resume=False)
    records = list(answers.joined())
    size = FilmSize.for_videos(len(records))
    with (
        DecodePool(default_workers()) as pool,
        open_page(path, _new_page(path, answers), overwrite=overwrite, resume=False) as page,
        console.progress(len(records)) as advance,
    ):
        for record, strip in zip(records, decoded_again(records, pool, size), strict=True):
            page.add(record, strip)
            advance(1)


def _new_page(path: Path, answers: Answers) -> AnswersPage:
    from zsar_cli.prediction.confidence import DEFAULT
    from zsar_cli.prediction.report import AnswersPage

    model = answers.made_with.get("model")
    least = DEFAULT if answers.min_confidence is None else answers.min_confidence
    return AnswersPage(
        list(answers.labels),
        path.parent,
        summary=", ".join(map(str, filter(None, [model, *answers.names]))),
        confidence=least,
        multi=answers.multi,
    )
