"""A cache of text embeddings on disk: a text tower may cost 20 GFLOP a phrase, and labels come again."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

LIMIT = 2_000_000_000  # bytes of one model's file, after which it starts afresh
WAIT = 10.0  # seconds for another process to finish writing
AT_ONCE = 500  # keys in one query; SQLite's own limit is 999 in old versions


def cache_directory() -> Path:
    """``$ZSAR_CACHE_DIR``, else ``zsar`` in the user's cache directory (``$XDG_CACHE_HOME`` or ``~/.cache``)."""
    if own := os.environ.get("ZSAR_CACHE_DIR"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zsar"


class TextCache:
    """Embeddings by model and text, one SQLite file for each model, so that a changed label costs only itself.

    Several processes may share it: a write is one transaction. Each vector carries a checksum; what is damaged
    counts as missing. A cache that cannot be used costs time and a logged warning, never a run.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = Path(directory) if directory is not None else cache_directory()
        self._works = True

    def get(self, model: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of ``texts`` that are known, each with its float32 vector (E,). ``model`` is Backbone.text_key."""
        path = self._path(model)
        if not self._works or not path.is_file():
            return {}
        keys = {_key(text): text for text in texts}
        found: dict[str, np.ndarray] = {}
        try:
            with closing(self._open(path)) as database:
                wanted = list(keys)
                for start in range(0, len(wanted), AT_ONCE):
                    part = wanted[start : start + AT_ONCE]
                    marks = ",".join("?" * len(part))
                    rows = database.execute(
                        f"SELECT key, crc, vector FROM texts WHERE key IN ({marks})", part
                    )
                    for key, crc, vector in rows:
                        whole = isinstance(vector, bytes) and len(vector) % 4 == 0 and key in keys
                        if whole and zlib.crc32(key + vector) == crc:
                            found[keys[key]] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
        except sqlite3.Error as error:
            self._give_up(path, error)
        return found

    def put(self, model: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Store float32 vectors (E,) by text."""
        path = self._path(model)
        if not self._works or not vectors:
            return
        rows = []
        for text, vector in vectors.items():
            content = np.ascontiguousarray(vector, dtype="<f4").tobytes()
            rows.append((_key(text), zlib.crc32(_key(text) + content), content))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size > LIMIT:
                _remove(path)
            with closing(self._open(path)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, crc INTEGER, vector BLOB)"
                )
                database.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(path, error)

    def _path(self, model: str) -> Path:
        # any text may name a model; what is no file name becomes one without two of them meeting
        name = (
            model if re.fullmatch(r"[\w.-]{1,80}", model) else hashlib.sha256(model.encode()).hexdigest()[:32]
        )
        return self.directory / f"text-{name}.sqlite"

    def _open(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=WAIT)

    def _give_up(self, path: Path, error: Exception) -> None:
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if damaged or "no such table" in str(error):
            logger.info("the text cache %s is damaged (%s) and starts afresh", path, error)
            _remove(path)
            return
        self._works = False
        logger.warning(
            "Text embeddings cannot be cached in %s (%s); set ZSAR_CACHE_DIR to another place.", path, error
        )


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:20]


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-journal")):
        with suppress(OSError):
            name.unlink()
