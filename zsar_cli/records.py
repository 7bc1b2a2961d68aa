"""What is said about a video, as JSON, and the file that collects it and survives being cut off."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsar_cli.errors import UsageError
from zsar_cli.files import lock_file
from zsar_cli.inputs import same_input

NONE_OF_THESE = "none of these"


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
class Prediction:
    """What was found in one video."""

    video: str
    predictions: list[LabelScore]  # best first
    unknown: float  # 0..1: does none of the labels fit?
    duration: float  # s
    frames: int  # frames the model saw
    answer: str | None = None  # where a threshold was given: the best label, or "none of these"
    warning: str | None = None  # what could not be read, or does not add up
    assumed_fps: float | None = (
        None  # of a folder of frames: the duration rests on it, and on nothing in the files
    )

    def to_record(self) -> dict[str, Any]:
        """The record of the command line."""
        record: dict[str, Any] = {
            "video": self.video,
            "predictions": [found.to_record() for found in self.predictions],
            "unknown": round(self.unknown, 6),
            "duration": round(self.duration, 3),
            "frames": self.frames,
        }
        extra = {"answer": self.answer, "assumed_fps": self.assumed_fps, "warning": self.warning}
        return record | {key: value for key, value in extra.items() if value is not None}


@dataclass(frozen=True)
class Failure:
    """A video that could not be used; ``kind`` is one of :class:`zsar_cli.errors.VideoError`'s words."""

    video: str
    kind: str
    message: str

    def to_record(self) -> dict[str, Any]:
        """The record of the command line."""
        return {"video": self.video, "error": {"kind": self.kind, "message": self.message}}


# Characters that steer a terminal or break lines although JSON allows them as they are
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def to_json(record: Any) -> str:
    """One line of valid JSON in UTF-8.

    A byte of a file name that is not UTF-8 appears as a lone surrogate, ``\\udc80`` to ``\\udcff``, which
    ``os.fsencode(json.loads(line)["video"])`` turns back into the name.
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _found(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The labels of a record, of all its segments where it has them."""
    parts = [record, *record.get("segments", ())]
    return [found for part in parts for found in part.get("predictions", ())]


class RecordFile:
    """JSON Lines on disk, a whole record at a time.

    Each record is one write, so a process killed at any moment leaves at most one torn line at the end (a disk
    that fills up, too); ``resume`` takes it off again and tells what is done.

    Attributes:
        done: the inputs that have a record, as :func:`zsar_cli.inputs.same_input` spells them.
        failed: how many of these records are errors.
    """

    def __init__(self, path: Path, *, resume: bool = False, labels: Iterable[str] | None = None) -> None:
        """Open a new file, or an old one with ``resume``; ``labels`` are those that old answers may contain.

        Raises:
            UsageError: it exists already, is in use, is no such file, was made with other labels, or cannot be
                written.
        """
        self.path = path
        self.done: set[str] = set()
        self.failed = 0
        try:
            if path.exists() and path.is_file() and path.stat().st_size and not resume:
                raise UsageError(f"{path} is there already; add to it with --resume, or remove it first.")
            self._file = open(path, "ab", buffering=0)
            lock_file(self._file, path)  # two runs that add to one file would each do everything
            if resume and path.is_file():
                self._read(frozenset(labels) if labels is not None else None)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {(error.strerror or str(error)).lower()}. Choose another --output."
            ) from error

    def _read(self, labels: frozenset[str] | None) -> None:
        end = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._take(line, number, labels)
                end += len(line)
        if end < self.path.stat().st_size:
            os.truncate(self.path, end)

    def _take(self, line: bytes, number: int, labels: frozenset[str] | None) -> None:
        try:
            record = json.loads(line)
            video, answered = record["video"], {found["label"] for found in _found(record)}
            failed = "error" in record
            key = same_input(video)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UsageError(
                f"{self.path}, line {number}, is no record of zsar predict; choose another --output."
            ) from None
        if labels is not None and not answered <= labels:
            raise UsageError(
                f"{self.path}, line {number}, answers with other labels than these; choose another --output."
            )
        self.done.add(key)
        self.failed += failed

    def write(self, record: dict[str, Any]) -> None:
        """Append one record. UsageError where the disk is full or gone; the file stays whole."""
        data = memoryview((to_json(record) + "\n").encode("utf-8"))
        start = None
        try:
            start = os.fstat(self._file.fileno()).st_size
            while data:
                data = data[self._file.write(data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            if start is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), start)
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"{self.path} cannot be written: {reason}. Make room, then go on with --resume."
            ) from error

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()
