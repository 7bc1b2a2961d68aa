"""A cache of text embeddings on disk: a text tower may need 20 GFLOP per phrase, and labels are reused.

One file a model: the line ``zsar texts 1``, the width E as four bytes, then rows of the same length, each the hash of a
text (20 bytes), a checksum (4) and E float32. Rows are only added. What a killed run left half written, or a disk
damaged, is no row; so nothing in the file can do more than cost the time to encode a text again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np

from zsar_cli.cache_files import cache_directory, lock, open_file

logger = logging.getLogger(__name__)

HEAD = b"zsar texts 1\n"
WIDEST = 65536  # values of a vector
LIMIT = 1_000_000_000  # bytes of one model's file, after which it starts afresh
MOST_ROWS = 1_000_000
AT_ONCE = 1 << 24  # bytes that are looked through together
WAIT = 5.0  # s for another process to finish writing

_said: set[str] = set()


class TextCache:
    """Embeddings by model and text, so that a changed label costs only itself.

    Several processes may share it. Each vector carries a checksum; what is damaged counts as missing. A cache that
    cannot be used costs time and a logged warning, never a run.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = Path(directory) if directory is not None else cache_directory()
        self._works = self.directory is not None
        if not self._works:
            _warn(
                "Text embeddings are not cached, as there is no home folder; set ZSAR_CACHE_DIR to a folder."
            )

    def get(self, model: str, texts: Sequence[str], width: int | None = None) -> dict[str, np.ndarray]:
        """Read those of ``texts`` that are known, each with its float32 vector (E,).

        Args:
            model: ``Backbone.text_key``.
            width: E of the model; vectors of another count as missing.
        """
        if not self._works or not texts:
            return {}
        path = self._path(model)
        try:
            with open(open_file(path, os.O_RDONLY), "rb") as file:
                found = _width(file)
                if found is None or found != (width or found) or _too_long(file, found):
                    return {}  # and the next vectors to be stored start a new file
                return _find(file, found, {_key(text): text for text in texts})
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._give_up(path, error)
            return {}

    def put(self, model: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Store float32 vectors (E,) by text."""
        if not self._works or not vectors:
            return
        path = self._path(model)
        rows = b""
        for text, vector in vectors.items():
            content = np.ascontiguousarray(vector, dtype="<f4").tobytes()
            rows += _key(text) + zlib.crc32(_key(text) + content).to_bytes(4, "little") + content
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(path, len(rows) // len(vectors) // 4 - 6, rows)
        except (OSError, ValueError) as error:
            self._give_up(path, error)

    def _append(self, path: Path, width: int, rows: bytes) -> None:
        with open(open_file(path, os.O_RDWR | os.O_CREAT), "rb+") as file:
            if lock(file.fileno(), WAIT) is False:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds it")
            found = _width(file)
            if found == width and not _too_long(file, width):
                end = _start_of(_count(file, width), width)  # a row that is cut short goes
            elif found == width or not _size(file):
                end = 0
            else:  # another program's, or damaged; nothing is deleted that may be somebody's
                numbered = (path.with_name(f"{path.name}.old{number or ''}") for number in count())
                old = next(place for place in numbered if not os.path.lexists(place))
                os.rename(path, old)
                _warn(
                    f"The text cache {path} is damaged and starts over; the old file was renamed to {old.name}."
                )
                return self._append(path, width, rows)
            file.seek(end)
            file.truncate()
            file.write(rows if end else _head(width) + rows)

    def _path(self, model: str) -> Path:
        # any text may name a model; what is no file name becomes one without two of them meeting
        name = (
            model
            if re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", model)
            else hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        )
        assert self.directory is not None
        return self.directory / f"text-{name}.vectors"

    def _give_up(self, path: Path, error: Exception) -> None:
        self._works = False
        reason = error.strerror if isinstance(error, OSError) else None
        _warn(
            f"Text embeddings cannot be cached in {path} ({reason or error}); set ZSAR_CACHE_DIR to another folder."
        )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:20]


def _head(width: int) -> bytes:
    return HEAD + width.to_bytes(4, "little")


def _start_of(row: int, width: int) -> int:
    return len(HEAD) + 4 + row * (24 + 4 * width)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _count(file: IO[bytes], width: int) -> int:
    """Count whole rows."""
    return (_size(file) - _start_of(0, width)) // (24 + 4 * width)


def _width(file: IO[bytes]) -> int | None:
    """Read E from the file's head; None where this is no file of ours."""
    head = file.read(len(HEAD) + 4)
    width = int.from_bytes(head[len(HEAD) :], "little")
    return width if head == _head(width) and 0 < width <= WIDEST else None


def _too_long(file: IO[bytes], width: int) -> bool:
    return _size(file) > LIMIT or _count(file, width) > MOST_ROWS


def _find(file: IO[bytes], width: int, texts: Mapping[bytes, str]) -> dict[str, np.ndarray]:
    """Read the vectors of texts that are undamaged, by the texts' hashes."""
    row = np.dtype([("start", "<u8"), ("rest", f"V{16 + 4 * width}")])
    starts = np.array([int.from_bytes(key[:8], "little") for key in texts], np.uint64)
    found: dict[str, np.ndarray] = {}
    file.seek(_start_of(0, width))
    at_once = max(1, AT_ONCE // row.itemsize)
    left = _count(file, width)
    while left > 0:
        content = file.read(min(left, at_once) * row.itemsize)
        rows = np.frombuffer(content[: len(content) // row.itemsize * row.itemsize], row)
        if not len(rows):  # another process made it shorter
            break
        left -= len(rows)
        for number in np.isin(rows["start"], starts).nonzero()[0]:
            data = rows[number].tobytes()
            key, crc, vector = data[:20], int.from_bytes(data[20:24], "little"), data[24:]
            text = texts.get(key)
            if text is not None and text not in found and zlib.crc32(key + vector) == crc:
                values = np.frombuffer(vector, "<f4").astype(np.float32)
                if np.isfinite(values).all():
                    found[text] = values
    return found


def _warn(message: str) -> None:
    """Warn once a process: every set of labels has its own TextCache."""
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)
