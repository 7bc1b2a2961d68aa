"""A set of texts that takes no more memory as it grows: for lists of millions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
import threading

from zsar_cli.errors import UsageError

MEMORY = 16_000  # KB that the set takes; what is more lies in a file without a name in the temporary folder


class SeenTexts:
    """Texts that were seen, by 16 bytes of their hash. SQLite keeps them, and its file goes with the process."""

    def __init__(self) -> None:
        """Open nothing before the first text."""
        self._lock = threading.Lock()
        self._rows: sqlite3.Connection | None = None

    def add(self, text: str) -> bool:
        """Add a text; tell whether it is new."""
        with self._lock:
            try:
                if self._rows is None:
                    self._rows = _open()
                found = self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest(text),))
            except sqlite3.Error as error:
                raise UsageError(
                    f"The temporary folder {_folder()} cannot hold which videos were seen ({error}); set TMPDIR to a "
                    "folder with more room."
                ) from error
            return found.rowcount == 1

    def __contains__(self, text: str) -> bool:
        with self._lock:
            if self._rows is None:
                return False
            found = self._rows.execute("SELECT 1 FROM seen WHERE hash = ?", (digest(text),))
            return found.fetchone() is not None

    def close(self) -> None:
        """Forget all."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._rows is not None:
                self._rows.close()
            self._rows = None


def _open() -> sqlite3.Connection:
    rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in (
        f"cache_size = -{MEMORY}",
        "journal_mode = OFF",
        "synchronous = OFF",
        "locking_mode = EXCLUSIVE",
    ):
        rows.execute(f"PRAGMA {setting}")
    rows.execute("CREATE TABLE seen (hash BLOB PRIMARY KEY) WITHOUT ROWID")
    rows.execute("BEGIN")  # never ended: nothing of it is to last
    return rows


def _folder() -> str:
    """Name the folder that SQLite takes for a file without a name."""
    chosen = os.environ.get("SQLITE_TMPDIR") or os.environ.get("TMPDIR")
    return chosen or (tempfile.gettempdir() if os.name == "nt" else "/var/tmp")


def digest(text: str) -> bytes:
    """Hash a text to 16 bytes: millions of names would fill the memory."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
