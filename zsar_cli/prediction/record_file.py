"""Output files of records that survive interruption and can be resumed with the same settings."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream
from zsar_cli.outputs import LineFile, Lock, taken
from zsar_cli.prediction.differences import difference
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.records import LONGEST, MADE_WITH, OBJECT, read_record, to_json
from zsar_cli.video.live_source import is_live

NOT_COMPARED = ("model",)  # a name, which may change; the weights may not


@dataclass(frozen=True)
class Stored:
    """What a file says of a video, as far as going on needs it."""

    key: str  # equal for two spellings of one video's name
    kind: str | None  # of its error; None for an answer
    made_with: dict[str, Any] | None = None
    whole: bool = True  # False: a cut may have taken a part of it that leaves no trace
    ended: bool = True  # False: its end shows by the record that follows alone
    clear: bool = True  # False: the key may stand for two different names
    object: dict[str, Any] | None = None  # in a storage: its size and etag
    live: bool = False  # a segment of a live source, which has a record for each

    @property
    def failed(self) -> bool:
        """Tell whether it is an error."""
        return self.kind is not None


class Form(Protocol):
    """How records lie in a file: JSON Lines, or CSV."""

    head: bytes  # what stands before the records

    def parts(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of each record, without the head."""

    def read(self, part: bytes) -> Stored | None:
        """Read what a record says; None where it is none of ours."""

    def part(self, record: dict[str, Any]) -> bytes:
        """Return a record as it is written."""

    def key(self, video: str) -> str:
        """Compute :attr:`Stored.key` of this video."""

    def starts(self, line: bytes) -> bool:
        """Tell whether a file that begins with this line is a file of this form."""

    def torn(self, part: bytes, *, alone: bool) -> bool:
        """Tell whether an unfinished end is what a killed run or a lost disk left of a record.

        ``alone``: no whole record stands before it, so that it alone says whose file this is.
        """


class JsonLines:
    """A record a line."""

    head = b""

    def parts(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines."""
        return iter(lines)

    def read(self, part: bytes) -> Stored | None:
        """Read the record of a line."""
        record = read_record(part)
        if record is None:
            return None
        kind = str(record["error"].get("kind")) if "error" in record else None
        live = "segments" in record and is_live(record["video"])
        about = record.get(MADE_WITH)
        return Stored(same_input(record["video"]), kind, about, object=record.get(OBJECT), live=live)

    def part(self, record: dict[str, Any]) -> bytes:
        """Write a record as a line."""
        return (to_json(record) + "\n").encode("utf-8")

    def key(self, video: str) -> str:
        """Return the path, whatever its spelling."""
        return same_input(video)

    def starts(self, line: bytes) -> bool:
        """Tell whether it is a record, or may be the torn start of one."""
        return read_record(line) is not None if line.endswith(b"\n") else _may_be_torn(line, alone=True)

    def torn(self, part: bytes, *, alone: bool) -> bool:
        """Tell whether it may be the start of a record."""
        return _may_be_torn(part, alone=alone)


JSON_LINES = JsonLines()


class RecordFile:
    """A file on disk: a record for each video, none twice, in the order in which they were first asked for.

    The first record says what the file was made with (``made_with``), so that records of another model, other
    labels or other frames are not added to it. A run that goes on tries the failures again; the new record takes the
    old one's place when the file is closed, or when it is opened the next time.

    Attributes:
        done: the videos that the file answered when it was opened, as ``form.key`` spells them.
        objects: what it says of those of them that lie in a storage (``object`` in their records).
    """

    def __init__(
        self,
        path: Path,
        *,
        form: Form = JSON_LINES,
        made_with: dict[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Open a new file, an old one with ``resume``, or a new one in place of what is there with ``overwrite``.

        Raises:
            UsageError: the file exists, another run writes to it, it is not such a file, it was made with
                other settings, or it cannot be written.
        """
        self.path, self.form = path, form
        self.done: set[str] = set()
        self.objects: dict[str, dict[str, Any]] = {}
        self._made_with, self._says = made_with, made_with is None
        self._failures: dict[
            str, tuple[bytes, bool]
        ] = {}  # as they stand in the file; whether made_with is there
        self._superseded = False
        self._empty = True
        behind = resume and not is_stream(path)  # what goes on keeps its place behind a link
        with contextlib.ExitStack() as stack:
            stack.callback((lock := Lock(path)).close)
            check_output(path, form=form, resume=resume, overwrite=overwrite)
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
        found, torn = 0, b""
        parts = chain(self.form.parts(self._file.lines()), [None])
        for part, following in pairwise(parts):
            assert part is not None
            if torn:
                raise UsageError(_no_record(self.path, f"record {found + 1}"))
            if not part.endswith(b"\n"):
                torn = part
                continue
            stored = self.form.read(part)
            if stored is None:
                raise UsageError(_no_record(self.path, f"record {found + 1}"))
            self._check_made_with(stored)
            if not stored.clear:
                raise UsageError(
                    f"{self.path}: {stored.key:.200} has characters that CSV cannot restore, so it cannot be resumed; "
                    "use --format jsonl."
                )
            if stored.whole and (stored.ended or following is not None):
                found += 1
                self._says |= stored.made_with is not None
                self._take(stored, part)
            else:
                torn = part
        if torn and not self.form.torn(torn, alone=not found):
            raise UsageError(_no_record(self.path, "its end"))
        if found and not self._says:
            raise UsageError(
                f"{self.path} does not store its settings (made_with) in the first record. "
                "Choose another --output, or start over with --overwrite."
            )
        if torn:
            size = sum(map(len, self._file.lines()))
            self._file.truncate(size - len(torn))
        self._empty = not found and not any(self._file.lines())
        if self._superseded:
            self._put_in_place()

    def _check_made_with(self, stored: Stored) -> None:
        if self._made_with is None or stored.made_with is None:
            return
        if changed := difference(stored.made_with, self._made_with, NOT_COMPARED):
            raise UsageError(
                f"{self.path} was made with {changed}. Use the same settings, choose another --output, or start "
                "over with --overwrite."
            )

    def _take(self, stored: Stored, part: bytes) -> None:
        key = stored.key
        if stored.live and key in self.done:  # only the last segment would be kept
            raise UsageError(
                f"{self.path} has the segments of a live source, which are not continued; choose another --output."
            )
        self._superseded |= key in self.done or key in self._failures
        if not stored.failed:
            self.done.add(key)
            self._failures.pop(key, None)
            if stored.object is not None:
                self.objects[key] = stored.object
        elif key not in self.done:
            self._failures[key] = part, stored.made_with is not None

    def write(self, record: dict[str, Any]) -> None:
        """Add one record. UsageError where the disk is full or the file gone; what is there stays whole."""
        key = self.form.key(record["video"])
        before, said_there = self._failures.get(key, (None, False))
        if self._made_with is not None and (said_there or not self._says):
            record = record | {MADE_WITH: self._made_with}
        part = self.form.part(record)
        if part != before:
            self._file.write(self.form.head + part if self._empty else part)
            self._superseded |= before is not None or key in self.done
            self._empty = False
        self._says = True
        if "error" in record:
            self._failures[key] = part, MADE_WITH in record
        else:
            self._failures.pop(key, None)

    def _put_in_place(self) -> None:
        """Write each video's last record, an answer before an error, where its first one stood."""
        chosen: dict[str, tuple[int, int]] = {}  # in the order of first words: where the last one stands
        answered: set[str] = set()
        parts = list(map(len, self.form.parts(self._file.lines())))
        start = before = sum(map(len, self._file.lines())) - sum(parts)  # the head
        for part in self.form.parts(self._file.lines()):
            stored = self.form.read(part) or Stored("", "damaged")
            if not stored.failed or stored.key not in answered:
                chosen[stored.key] = (start, len(part))
            if not stored.failed:
                answered.add(stored.key)
            start += len(part)

        def lines() -> Iterator[bytes]:
            with open(self._file.path, "rb") as file:
                yield file.read(before)
                for place, size in chosen.values():
                    file.seek(place)
                    yield file.read(size)

        self._file.rewrite(lines())
        self._superseded = False

    def close(self) -> None:
        """Close the file; what was written stays."""
        try:
            if self._empty and self.form.head:
                self._file.write(self.form.head)
                self._empty = False
            if self._superseded:
                self._put_in_place()
        finally:
            try:
                self._file.close()
            finally:
                self._lock.close()


def check_output(path: Path, *, form: Form = JSON_LINES, resume: bool, overwrite: bool) -> None:
    """Raise UsageError where records cannot go there; said before a model is loaded, which may take long."""
    if resume and overwrite:
        raise UsageError("--resume continues an output and --overwrite replaces it; give only one of them.")
    if overwrite or (why := taken(path)) is None:
        return
    ours = os.path.isfile(path) and os.path.getsize(path) > 0 and _starts_as_ours(path, form)
    if resume:
        if os.path.islink(path) and not os.path.exists(path):
            raise UsageError(f"{path} is a broken link; choose another --output.")
        if not ours and os.path.isfile(path) and os.path.getsize(path):
            raise UsageError(_no_record(path, "its start"))
        return
    way = "continue it with --resume, replace it with --overwrite" if ours else "replace it with --overwrite"
    raise UsageError(f"{path} {why}; {way}, or choose another --output.")


def _no_record(path: Path, where: str) -> str:
    return f"{path} was not written by zsar predict ({where} is no record of it); choose another --output."


def _starts_as_ours(path: Path, form: Form) -> bool:
    try:
        with open(path, "rb") as file:
            return form.starts(file.readline(LONGEST))
    except OSError:  # said when it is opened to be written
        return True


_START = re.compile(rb'\{"video": "(?:[^"\\]|\\.)*"(.*)', re.DOTALL)
_KEYS = (b', "predictions": [', b', "segments": [', b', "error": {')


def _may_be_torn(line: bytes, *, alone: bool) -> bool:
    # Alone, it must reach into the answers: anybody's file may begin with a bracket or name a video
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
