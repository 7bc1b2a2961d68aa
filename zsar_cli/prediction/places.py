"""A folder of outputs, on this disk or in a storage: whole files come under their names, or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, move_into_place


class Folder:
    """A folder on this disk.

    Raises UsageError where something cannot be read or written.
    """

    def __init__(self, place: str) -> None:
        self.path = Path(place)

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        """Create the folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"{self} cannot be created: {reason}. Choose another folder for --output."
            ) from error

    def names(self) -> list[str]:
        """List the files; none where there is no folder."""
        try:
            return sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self} cannot be listed: {(error.strerror or str(error)).lower()}.") from error

    def size(self, name: str) -> int | None:
        """Tell the size of a file in bytes; None where there is none."""
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, limit: int) -> bytes | None:
        """Read a small file; None where there is none."""
        if self.size(name) is None:
            return None
        with self.open(name) as file:
            return file.read(limit)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to read."""
        try:
            file = open(self.path / name, "rb")
        except OSError as error:
            raise UsageError(
                f"{self}/{name} cannot be read: {(error.strerror or str(error)).lower()}."
            ) from error
        with file:
            yield file

    @contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """Give a path on this disk for a file of that name, before it is complete."""
        yield self.path / name

    def put(self, aside: Path, name: str) -> None:
        """Give a file that is complete its name, in place of what is there."""
        move_into_place(aside, self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with atomic_write(self.path / name) as aside:
            aside.write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        (self.path / name).unlink(missing_ok=True)
