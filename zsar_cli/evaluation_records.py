"""``predictions.jsonl``: what an evaluation keeps of each video, written as it comes and read when it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, lock_file
from zsar_cli.records import to_json

if TYPE_CHECKING:
    from zsar_cli.protocols import Part

Records = dict[str, dict[int, dict[str, Any]]]  # part -> item number -> record


class RecordFile:
    """``predictions.jsonl``: read what an earlier run left, then append.

    A last line that was torn when a run was killed is cut off, and records of videos that could not be read are
    taken out: these are tried again. ``settings`` lie beside it: records made with others are not mixed with
    these (UsageError), nor are those of two runs at a time.
    """

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self.path = directory / "predictions.jsonl"
        marker = directory / "settings.json"
        text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
        self.done: Records = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            try:
                lock_file(self._file, self.path)
                if self.path.stat().st_size == 0:
                    marker.write_text(text, encoding="utf-8")
                elif not marker.exists() or marker.read_text(encoding="utf-8") != text:
                    raise UsageError(
                        f"{directory} holds records of another evaluation. Give another --output, or remove it."
                    )
                self._read()
            except BaseException:
                self._file.close()
                raise
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"Records cannot be kept in {directory}: {reason}. Choose another --output."
            ) from error

    def _read(self) -> None:
        kept: list[bytes] = []
        whole = failures = 0
        with self.path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    part, item, failed = record["part"], record["item"], "error" in record
                except (ValueError, KeyError, TypeError, RecursionError):
                    break
                if not (line.endswith(b"\n") and isinstance(part, str) and isinstance(item, int)):
                    break
                whole += len(line)
                failures += failed
                if not failed:
                    self.done.setdefault(part, {})[item] = record
                    kept.append(line)
        if failures:
            with atomic_write(self.path) as aside:
                aside.write_bytes(b"".join(kept))
            self._file.close()
            self._file = self.path.open("ab", buffering=0)
            lock_file(self._file, self.path)
        elif whole < self.path.stat().st_size:
            self._file.truncate(whole)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record: a single write, so that a process killed at any moment leaves one torn line at most."""
        try:
            self._file.write((to_json(record) + "\n").encode())
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written: {(error.strerror or str(error)).lower()}. Make room, then run "
                "the same command again: it goes on from here."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def usable(done: Records, parts: Sequence[Part], probes: Sequence[str] = ()) -> Records:
    """The records of an earlier run that can be this evaluation's; what a disk or an editor spoilt is done again."""
    return {
        part.name: {
            item: record
            for item, record in done.get(part.name, {}).items()
            if _can_be_of(part, item, record, probes)
        }
        for part in parts
    }


def _can_be_of(part: Part, item: Any, record: dict[str, Any], probes: Sequence[str]) -> bool:
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
