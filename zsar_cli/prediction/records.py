"""What is said about a video, as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
        """Make the JSON record."""
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
    # float32, where it was asked for: what the scores are made of (docs/archives.md)
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)

    def to_record(self) -> dict[str, Any]:
        """Make the record of the command line."""
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
            "embedding": None if self.embedding is None else rounded(self.embedding.tolist()),
        }
        return record | {key: value for key, value in extra.items() if value is not None}


def rounded(numbers: Iterable[float]) -> list[float]:
    """Round numbers of a float32 to the nine digits that tell it apart from all others."""
    return [float(f"{number:.9g}") for number in numbers]


def answers_of(record: Mapping[str, Any]) -> list[str]:
    """List the labels that a record, or a segment of one, has for its answer; none for "none of these"."""
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
        """Make the record of the command line."""
        return {"video": self.video, "error": {"kind": self.kind, "message": self.message}}


# Characters that steer a terminal or break lines although JSON allows them as they are
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def to_json(record: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    r"""Write valid JSON in UTF-8, one line of it unless there is an ``indent``.

    A byte of a file name that is not UTF-8 appears as a lone surrogate, ``\udc80`` to ``\udcff``, which
    ``os.fsencode(json.loads(line)["video"])`` turns back into the name. ``ascii_only`` escapes all but ASCII: for
    a stream that takes nothing else.
    """
    text = json.dumps(record, ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# --- read again ---

MADE_WITH = "made_with"  # a key of a file's first record
OBJECT = "object"  # of a video in a storage: its size and etag when it was fetched
LONGEST = 100_000_000  # bytes of a line; an hour of segments with all labels has some 10 MB


def read_record(line: bytes) -> dict[str, Any] | None:
    """Read a line as a record of predict; None where it is none."""
    try:
        record = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        return None
    kinds = {"predictions": list, "segments": list, "error": dict}
    found = [key for key in kinds if key in record]
    if len(found) != 1 or not isinstance(record[found[0]], kinds[found[0]]):
        return None
    if not all(isinstance(record.get(key, {}), dict) for key in (MADE_WITH, OBJECT)):
        return None
    return record


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def is_complete(record: dict[str, Any]) -> bool:
    """Tell whether a record that was read has all that is shown of one, each thing of its kind."""
    if "error" in record:
        return all(isinstance(record["error"].get(name), str) for name in ("kind", "message"))
    parts = record.get("segments", [record])
    good = isinstance(record.get("warning", ""), str) and _are_numbers(record, "duration", "frames")
    good = good and _is_number(record.get("min_confidence", 0))
    try:
        to_json(record)
    except (ValueError, RecursionError):  # a number that is none, in what else it says
        return False
    return (
        good
        and len(parts) > 0
        and all(isinstance(part, dict) and _is_part(part, "segments" in record) for part in parts)
    )


def _is_part(part: dict[str, Any], timed: bool) -> bool:
    found, answers = part.get("predictions"), part.get("answers", [])
    return (
        isinstance(found, list)
        and len(found) > 0
        and all(isinstance(x, dict) and isinstance(x.get("label"), str) for x in found)
        and all(_are_numbers(x, "score", "yes") for x in found)
        and isinstance(answers, list)
        and all(isinstance(answer, str) for answer in answers)
        and isinstance(part.get("answer", None if timed else ""), str)
        and _are_numbers(part, "unknown", *(("start", "end") if timed else ()))
    )


def _are_numbers(record: dict[str, Any], *names: str) -> bool:
    return all(_is_number(record.get(name)) for name in names)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
