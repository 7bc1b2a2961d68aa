"""A folder of outputs, on this disk or in a storage: whole files come under their names, or none."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.files import NO_ROOM, atomic_write, in_temporary_folder, move_into_place
from zsar_cli.video.address import WEB, is_remote, public, scheme_of
from zsar_cli.video.fetch import patiently


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

    def refuse_links(self, *names: str) -> None:
        """Raise UsageError where one of these files is a link, a pipe or a device: others may write to this folder."""
        for path in (self.path / name for name in names):
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise UsageError(
                    f"{path} is no plain file, so it is not written or read; choose another --output."
                )

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


class StorageFolder:
    """A folder in a storage that fsspec knows; an object appears when all of it was sent.

    Raises UsageError where something cannot be read or written.
    """

    path = None

    def __init__(self, place: str) -> None:
        self._url = place.rstrip("/")
        from zsar_cli.video.storage import file_system

        try:
            self._system, self._place = file_system(self._url)
        except VideoError as error:
            raise UsageError(f"{self}: {error.message}.") from None

    def __str__(self) -> str:
        return public(self._url)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system, several times where what fails may pass. None where nothing is there."""
        from zsar_cli.video.storage import call
        from zsar_cli.video.storage_errors import explained

        def once() -> Any:
            try:
                return call(self._system, method, *arguments, **options)
            except FileNotFoundError:
                return None
            except Exception as error:  # whatever a driver raises
                if method == "get_file" and getattr(error, "errno", None) in NO_ROOM:  # of this disk
                    raise
                raise explained(error, self._url) from error

        try:
            return patiently(once, self._url, time.sleep)
        except VideoError as error:
            raise UsageError(f"{self}: {error.message}.") from error

    def _at(self, name: str) -> str:
        return f"{self._place.rstrip('/')}/{name}"

    def make(self) -> None:
        """Raise UsageError where nothing can be written; the first object makes the folder."""
        if scheme_of(self._url) in WEB:
            raise UsageError(
                f"{self} cannot be written: web servers take no files from zsar; choose another --output."
            )

    def refuse_links(self, *names: str) -> None:
        """Do nothing: objects are no links."""

    def names(self) -> list[str]:
        """List the objects; none where there is no folder."""
        self._system.invalidate_cache()
        found = self._call("ls", self._place, detail=False) or []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def size(self, name: str) -> int | None:
        """Tell the size of an object in bytes; None where there is none."""
        self._system.invalidate_cache()
        found = self._call("info", self._at(name))
        return None if found is None or found.get("type") != "file" else int(found["size"])

    def read(self, name: str, limit: int) -> bytes | None:
        """Read a small object; None where there is none."""
        size = self.size(name)
        return None if size is None else self._call("cat_file", self._at(name), start=0, end=min(size, limit))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Copy an object to this disk, to read it there."""
        with self.aside(name) as copy:
            with in_temporary_folder():
                self._call("get_file", self._at(name), str(copy))
            if not copy.is_file():
                raise UsageError(f"{self}/{name} is not there any more.")
            with open(copy, "rb") as file:
                yield file

    def write(self, name: str, content: bytes) -> None:
        """Write a small object."""
        self._call("pipe_file", self._at(name), content)

    def remove(self, name: str) -> None:
        """Remove an object, if there is one."""
        if self.size(name) is not None:
            self._call("rm_file", self._at(name))

    @contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """Give a path on this disk for an object of that name, before it is complete."""
        with in_temporary_folder():
            folder = Path(tempfile.mkdtemp(prefix="zsar-part-"))
        try:
            yield folder / name
        finally:
            if not (folder / KEPT).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def put(self, aside: Path, name: str) -> None:
        """Send a file that is complete; where that fails, it stays on this disk."""
        try:
            self._call("put_file", str(aside), self._at(name))
        except UsageError as error:
            (aside.parent / KEPT).touch()
            raise UsageError(f"{str(error)[:-1]}; what was to be sent is kept as {aside}.") from error


KEPT = "not-sent"
AnyFolder: TypeAlias = "Folder | StorageFolder"


def open_folder(place: str) -> AnyFolder:
    """Open a folder by its path or its address."""
    return StorageFolder(place) if is_remote(place) else Folder(place)
