"""``predictions.jsonl``: what an evaluation keeps of each video, written as it comes and read when it goes on."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.cache_files import read_file
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, is_stream
from zsar_cli.outputs import LineFile, Lock, refuse_taken_inside
from zsar_cli.prediction.differences import difference
from zsar_cli.prediction.records import to_json

if TYPE_CHECKING:
    from zsar_cli.evaluation.protocols import EvaluationPart

SETTINGS = "settings.json"
LARGEST = 100_000_000  # bytes of it
Records = dict[str, dict[int, dict[str, Any]]]  # part -> item number -> record


class PredictionsFile:
    """``predictions.jsonl``: read what an earlier run left, then append.

    A last line that was torn when a run was killed is cut off, and records of videos that could not be read are
    taken out: these are tried again. ``settings`` lie beside it, in ``settings.json``: a folder is this evaluation's
    where they are the same, and another's records are not mixed with these.
    """

    def __init__(
        self, directory: Path, settings: dict[str, Any], *, names: Sequence[str] = (), overwrite: bool = False
    ) -> None:
        """Open the folder's records; ``names`` are the other files that the evaluation will write there.

        Raises:
            UsageError: the folder holds another evaluation or other files of these names, another run writes to
                it, or it cannot be written.
        """
        self.path = directory / "predictions.jsonl"
        marker = directory / SETTINGS
        text = to_json(settings, indent=2) + "\n"
        self.done: Records = {}
        with contextlib.ExitStack() as stack:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                stack.callback((lock := Lock(directory)).close)
                before = None if overwrite else _read_settings(marker, settings)
                if before is not None:
                    _check_settings(directory, before, json.loads(text))
                else:
                    names = (self.path.name, SETTINGS, *names)
                    refuse_taken_inside(directory, names, overwrite=overwrite)
                    with atomic_write(marker) as aside:
                        aside.write_text(text, encoding="utf-8")
                if self.path.is_symlink() or is_stream(self.path):
                    refuse_taken_inside(directory, [self.path.name], overwrite=overwrite)
                self._file = LineFile(self.path, overwrite=overwrite, lock=False)
                stack.callback(self._file.abandon)
                self._read()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or error
                raise UsageError(
                    f"Records cannot be written to {directory}: {reason}. Choose another --output."
                ) from error
            stack.pop_all()
        self._lock = lock

    def _read(self) -> None:
        whole, kept, other = 0, 0, False
        for line in self._file.lines():
            record = _record_of(line)
            if record is None and not line.endswith(b"\n"):
                self._file.truncate(whole)  # torn
                break
            whole += len(line)
            if record is None or "error" in record:
                other = True
            else:
                self.done.setdefault(record["part"], {})[record["item"]] = record
                kept += 1
        if other:
            self._file.rewrite([line for line in self._file.lines() if _is_answer(line)])

    def write(self, record: dict[str, Any]) -> None:
        """Append one record. UsageError where the disk is full or the file gone."""
        line = (to_json(record) + "\n").encode()
        self._file.write(line, "Free some space, then repeat the command to continue.")

    def close(self) -> None:
        """Close the file, and let go of the folder."""
        try:
            self._file.close()
        finally:
            self._lock.close()


def _read_settings(path: Path, like: dict[str, Any]) -> dict[str, Any] | None:
    """Read an evaluation's settings; None where there is no such file, or somebody else's of that name."""
    try:
        found = json.loads(read_file(path, LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and (found.keys() & like.keys() or not found)
    return found if ours else None


def _check_settings(directory: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = difference(before, now)
    if changed:
        raise UsageError(
            f"{directory} holds records of another evaluation, with {changed}. "
            "Choose another --output, or start over with --overwrite."
        )


def _record_of(line: bytes) -> dict[str, Any] | None:
    """Read a whole line as a record of an evaluation; None where it is none."""
    try:
        record = json.loads(line)
        usable = isinstance(record["part"], str) and isinstance(record["item"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if usable and line.endswith(b"\n") else None


def _is_answer(line: bytes) -> bool:
    record = _record_of(line)
    return record is not None and "error" not in record


def usable(done: Records, parts: Sequence[EvaluationPart], probes: Sequence[str] = ()) -> Records:
    """Select the records of an earlier run that can be this evaluation's; damaged ones are computed again."""
    return {
        part.name: {
            item: record
            for item, record in done.get(part.name, {}).items()
            if _can_be_of(part, item, record, probes)
        }
        for part in parts
    }


def _can_be_of(part: EvaluationPart, item: Any, record: dict[str, Any], probes: Sequence[str]) -> bool:
    if type(item) is not int or not 0 <= item < len(part.items):
        return False
    known = part.targets[item] >= 0
    ranks = [record.get("rank")]
    top, unknown = record.get("top"), record.get("unknown")
    if probes:
        probed = record.get("probes")
        ranks += [probed.get(probe) for probe in probes] if isinstance(probed, dict) else [-1]
    return (
        record.get("video") == part.items[item].listed
        and record.get("label") == (part.labels[part.targets[item]] if known else None)
        and all(type(r) is int and 0 <= r < len(part.labels) if known else r is None for r in ranks)
        and isinstance(top, list)
        and len(top) > 0
        and all(isinstance(pair, list) and len(pair) == 2 for pair in top)
        and all(label in part.labels and _finite(score) for label, score in top)
        and isinstance(unknown, dict)
        and all(map(_finite, unknown.values()))
    )


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
