"""What is said about a video, as JSON, and the file that collects it and survives being cut off."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream
from zsar_cli.outputs import LineFile, Lock, taken
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.result import Result
from zsar_cli.text.labels import NONE_OF_THESE as NONE_OF_THESE

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Shown:
    """Frames of a video that were shown to the model, for people to look at."""

    frames: np.ndarray  # (T, h, w, 3) uint8
    times: np.ndarray  # (T,) s, on the clock of the video's file


@dataclass(frozen=True)
class LabelScore:
    """One label's part of the answer."""

    label: str
    score: float  # probability among the labels; all of them sum to 1
    yes: float  # 0..1: does the video show this at all, whatever the other labels?

    def to_record(self) -> dict[str, Any]:
        """As it stands in the JSON record."""
        return {"label": self.label, "score": round(self.score, 6), "yes": round(self.yes, 6)}


@dataclass(frozen=True)
class Prediction(Result):
    """What was found in one video."""

    video: str
    predictions: list[LabelScore]  # best first
    unknown: float  # 0..1: does none of the labels fit?
    duration: float  # s
    frames: int  # frames the model saw
    answer: str | None = None  # where a bound was given: the best label, or "none of these"
    warning: str | None = None  # what could not be read, or does not add up
    assumed_fps: float | None = (
        None  # of a folder of frames: the duration rests on it, and on nothing in the files
    )
    written: str | None = None  # the picture about it, where one was asked for
    shown: Shown | None = field(default=None, repr=False, compare=False)  # where they were asked for
    answers: list[str] | None = (
        None  # where several were asked for: all that are sure enough, the surest first
    )
    min_confidence: float | None = None  # the least 1 - unknown (of several answers: yes) of an answer

    def to_record(self) -> dict[str, Any]:
        """The record of the command line."""
        record: dict[str, Any] = {
            "video": self.video,
            "predictions": [found.to_record() for found in self.predictions],
            "unknown": round(self.unknown, 6),
            "duration": round(self.duration, 3),
            "frames": self.frames,
        }
        extra = {
            "answer": self.answer,
            "answers": self.answers,
            "min_confidence": self.min_confidence,
            "assumed_fps": self.assumed_fps,
            "warning": self.warning,
            "written": self.written,
        }
        return record | {key: value for key, value in extra.items() if value is not None}


def answers_of(record: Mapping[str, Any]) -> list[str]:
    """The labels that a record, or a segment of one, has for its answer; none for "none of these"."""
    if "answers" in record:
        return list(record["answers"])
    return [record["answer"]] if record.get("answer", NONE_OF_THESE) != NONE_OF_THESE else []


@dataclass(frozen=True)
class Failure(Result):
    """A video that could not be used; ``kind`` is one of :class:`zsar_cli.errors.VideoError`'s words."""

    video: str
    kind: str
    message: str

    def to_record(self) -> dict[str, Any]:
        """The record of the command line."""
        return {"video": self.video, "error": {"kind": self.kind, "message": self.message}}


# Characters that steer a terminal or break lines although JSON allows them as they are
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def to_json(record: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Valid JSON in UTF-8, one line of it unless there is an ``indent``.

    A byte of a file name that is not UTF-8 appears as a lone surrogate, ``\\udc80`` to ``\\udcff``, which
    ``os.fsencode(json.loads(line)["video"])`` turns back into the name. ``ascii_only`` escapes all but ASCII: for
    a stream that takes nothing else.
    """
    text = json.dumps(record, ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# --- the file -------------------------------------------------------------------------------------------------

MADE_WITH = "made_with"  # a key of a file's first record
NOT_COMPARED = ("model",)  # a name, which may change; the weights may not


class RecordFile:
    """JSON Lines on disk: a record for each video, none twice, in the order in which they were first asked for.

    The first record says what the file was made with (``made_with``), so that records of another model, other
    labels or other frames are not added to it. A run that goes on tries the failures again; the new record takes the
    old one's place when the file is closed, or when it is opened the next time.

    Attributes:
        done: the videos that are answered, as :func:`zsar_cli.prediction.inputs.same_input` spells them.
    """

    def __init__(
        self,
        path: Path,
        *,
        made_with: dict[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Open a new file, an old one with ``resume``, or a new one in place of what is there with ``overwrite``.

        Raises:
            UsageError: something is there already, another run writes to it, it is no such file, it was made with
                something else, or it cannot be written.
        """
        self.path = path
        self.done: set[str] = set()
        self._made_with, self._says = made_with, made_with is None
        self._failures: dict[str, bytes] = {}  # as they stand in the file
        self._superseded = False
        behind = resume and not is_stream(path)  # what goes on keeps its place behind a link
        with contextlib.ExitStack() as stack:
            stack.callback((lock := Lock(path)).close)
            check_output(path, resume=resume, overwrite=overwrite)
            where = Path(os.path.realpath(path)) if behind else path
            self._file = LineFile(where, overwrite=overwrite, lock=False)
            stack.callback(self._file.abandon)
            try:
                if resume:
                    self._read()
            except OSError as error:
                raise UsageError(
                    f"{path} cannot be read: {(error.strerror or str(error)).lower()}."
                ) from error
            stack.pop_all()
        self._lock = lock

    def _read(self) -> None:
        end, torn = 0, b""
        for number, line in enumerate(self._file.lines(), start=1):
            if not line.endswith(b"\n"):
                torn = line
                break
            self._take(line, number)
            end += len(line)
        if torn and not _may_be_torn(torn, alone=end == 0):
            raise UsageError(_no_record(self.path, "its end"))
        if end and not self._says:
            raise UsageError(
                f"{self.path} does not say what it was made with, as its first record should. "
                "Choose another --output, or start anew with --overwrite."
            )
        if torn:
            self._file.truncate(end)
        if self._superseded:
            self._put_in_place()

    def _take(self, line: bytes, number: int) -> None:
        record = read_record(line)
        if record is None:
            raise UsageError(_no_record(self.path, f"line {number}"))
        key = same_input(record["video"])
        if self._made_with is not None and (before := record.get(MADE_WITH)) is not None:
            self._says = True
            if changed := difference(before, self._made_with, NOT_COMPARED):
                raise UsageError(
                    f"{self.path} was made with {changed}. Use the same, choose another --output, or start anew "
                    "with --overwrite."
                )
        self._superseded |= key in self.done or key in self._failures
        if "error" not in record:
            self.done.add(key)
            self._failures.pop(key, None)
        elif key not in self.done:
            self._failures[key] = line

    def write(self, record: dict[str, Any]) -> None:
        """Add one record. UsageError where the disk is full or the file gone; what is there stays whole."""
        key = same_input(record["video"])
        before = self._failures.get(key)
        said_there = before is not None and MADE_WITH in (read_record(before) or {})
        if self._made_with is not None and (said_there or not self._says):
            record = record | {MADE_WITH: self._made_with}
        line = (to_json(record) + "\n").encode("utf-8")
        if line != before:
            self._file.write(line)
            self._superseded |= before is not None
        self._says = True
        if "error" in record:
            self._failures[key] = line
        else:
            self.done.add(key)
            self._failures.pop(key, None)

    def _put_in_place(self) -> None:
        """Each video's last word, an answer before an error, where its first one stood."""
        chosen: dict[str, tuple[int, int]] = {}  # in the order of first words: where the last one stands
        answered: set[str] = set()
        start = 0
        for line in self._file.lines():
            record = read_record(line) or {"video": ""}
            key = same_input(record["video"])
            if "error" not in record or key not in answered:
                chosen[key] = (start, len(line))
            if "error" not in record:
                answered.add(key)
            start += len(line)

        def lines() -> Iterator[bytes]:
            with open(self._file.path, "rb") as file:
                for place, size in chosen.values():
                    file.seek(place)
                    yield file.read(size)

        self._file.rewrite(lines())
        self._superseded = False

    def close(self) -> None:
        """Close the file; what was written stays."""
        try:
            if self._superseded:
                self._put_in_place()
        finally:
            try:
                self._file.close()
            finally:
                self._lock.close()


def check_output(path: Path, *, resume: bool, overwrite: bool) -> None:
    """UsageError where records cannot go there; said before a model is loaded, which may take long."""
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there and --overwrite replaces it; give one of them.")
    if overwrite or (why := taken(path)) is None:
        return
    ours = os.path.isfile(path) and os.path.getsize(path) > 0 and _starts_as_ours(path)
    if resume:
        if os.path.islink(path) and not os.path.exists(path):
            raise UsageError(f"{path} is a link to nothing; choose another --output.")
        if not ours and os.path.isfile(path) and os.path.getsize(path):
            raise UsageError(_no_record(path, "its start"))
        return
    way = "go on with it by --resume, replace it with --overwrite" if ours else "replace it with --overwrite"
    raise UsageError(f"{path} {why}; {way}, or choose another --output.")


def _no_record(path: Path, where: str) -> str:
    return f"{path} is not a file that zsar predict wrote ({where} is no record of its); choose another --output."


def _starts_as_ours(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST)
    except OSError:  # said when it is opened to be written
        return True
    return read_record(line) is not None if line.endswith(b"\n") else _may_be_torn(line, alone=True)


LONGEST = 100_000_000  # bytes of a line; an hour of segments with all labels has some 10 MB


def read_record(line: bytes) -> dict[str, Any] | None:
    """A line as a record of predict; None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        return None
    kinds = {"predictions": list, "segments": list, "error": dict}
    found = [key for key in kinds if key in record]
    if len(found) != 1 or not isinstance(record[found[0]], kinds[found[0]]):
        return None
    if not isinstance(record.get(MADE_WITH, {}), dict):
        return None
    return record


_START = re.compile(rb'\{"video": "(?:[^"\\]|\\.)*"(.*)', re.DOTALL)
_KEYS = (b', "predictions": [', b', "segments": [', b', "error": {')


def _may_be_torn(line: bytes, *, alone: bool) -> bool:
    """Whether a last line without its end is what a killed run or a lost disk left of a record.

    ``alone``: no whole record stands before it, so that it alone says whose file this is: it must reach into the
    answers, since anybody's file may begin with a bracket or name a video.
    """
    if not line.strip(b"\0"):
        return not alone
    try:
        json.loads(line)
        return read_record(line) is not None
    except (ValueError, RecursionError):
        pass
    head = b'{"video": "'
    whole = _START.fullmatch(line)
    if alone:
        return whole is not None and whole[1].startswith(_KEYS)
    if len(line) <= len(head):
        return head.startswith(line)
    if whole is None:
        return (
            line.startswith(head)
            and re.fullmatch(rb'(?:[^"\\]|\\.)*\\?', line[len(head) :], re.DOTALL) is not None
        )
    return any(key.startswith(whole[1]) or whole[1].startswith(key) for key in _KEYS)


def difference(before: dict[str, Any], now: dict[str, Any], ignored: Sequence[str] = ()) -> str | None:
    """What two runs were made with that is not the same, in words; None where all is."""
    theirs, ours = dict(_flat(before)), dict(_flat(now))
    changed = [k for k in {**theirs, **ours} if k not in ignored and theirs.get(k) != ours.get(k)]
    if "weights" in changed and len({str(theirs.get("model")), str(ours.get("model"))}) == 2:
        changed[changed.index("weights")] = "model"  # by its name
    told = list(dict.fromkeys(_told(key, theirs.get(key), ours.get(key)) for key in changed))
    more = f", and {len(told) - 3} more that differ" if len(told) > 3 else ""
    return (", ".join(told[:3]) + more) or None


def _flat(settings: dict[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{name}{key} ")
        else:
            yield f"{name}{key}", value


_NAMES = {"zsar": "version", "labels count": "number of labels"}
_OPTIONS = (
    *(
        "frames",
        "views",
        "crops",
        "window",
        "stride",
        "min_confidence",
        "multi",
        "top_k",
        "precision",
        "decoder",
        "seed",
        "fps",
    ),
    *("lr", "steps", "model"),
)


def _told(key: str, before: Any, now: Any) -> str:
    last = key.split()[-1]
    name = _NAMES.get(key) or (
        f"--{last.replace('_', '-')}" if last in _OPTIONS else f"{key:.80}".replace("_", " ")
    )
    plain = all(value is None or isinstance(value, (str, int, float)) for value in (before, now))
    if "hash" in key or key == "weights" or not plain:
        return f"other {name.removesuffix(' hash')} than this run's"
    then, here = (f"no {name}" if value is None else f"{name} {value!s:.80}" for value in (before, now))
    return f"{then} (this run has {here})"
