"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zsar_cli.encodings import decode
from zsar_cli.errors import UsageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path aside to write to; it takes the place of ``path`` when the block ends well, else it goes away.

    The file aside lies in the same directory and has the same suffix. A reader sees the old file or the new one,
    never a part; after a power cut too. What is not a regular file (``/dev/stdout``) is handed out itself.

    Raises:
        UsageError: the directory is missing or read-only, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # a link stays a link, and what it points at is replaced
    if target.is_dir():
        raise UsageError(f"{path} is a directory; name a file to write.")
    if target.exists() and not target.is_file():
        yield target
        return
    aside = _reserve(target, path)
    try:
        yield aside
        with open(aside, "rb+") as handle:
            os.fsync(handle.fileno())
        _open_to_others(aside)
        os.replace(aside, target)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        reason = _reason(error)
        if reason is None:
            raise
        raise UsageError(f"{path} cannot be written: {reason}.") from error
    _sync_directory(target.parent)


def _reserve(target: Path, path: str | Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem[:100]}.", suffix=f".tmp{target.suffix}"
        )
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise UsageError(f"{path} cannot be written: there is no directory {target.parent}.") from error
        raise UsageError(f"{path} cannot be written: {_reason(error) or error.strerror or error}.") from error
    os.close(handle)
    return Path(name)


def _open_to_others(path: Path) -> None:
    """The rights of any new file: mkstemp and safetensors make files that only their owner may read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _reason(error: BaseException) -> str | None:
    """Why a file could not be written, in words; None where the error is about something else."""
    number = error.errno if isinstance(error, OSError) else None
    # safetensors reports a full disk as an error of its own kind, with the system's number in its text
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    if number in _NO_ROOM:
        return "there is no room left on its disk"
    return "its directory does not allow it" if number in _NOT_ALLOWED else None


def _sync_directory(directory: Path) -> None:
    with suppress(OSError):  # not every file system can
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock_file(file: IO[bytes], path: Path) -> None:
    """Hold an open file against other runs of this program. UsageError where one has it already."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"Another run is writing {path}; wait for it, or choose another --output.") from None
    except OSError:  # a file system without locks
        pass


def existing(name: str | Path) -> Path | None:
    """The path of that name if something is there; None too for what cannot be a path (too long, a NUL in it)."""
    try:
        path = Path(name).expanduser()
        return path if str(name) and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~nobody
        return None


def require_file(path: str | Path, what: str) -> None:
    """UsageError unless the path is that of a regular file: a pipe would be waited for, and /dev/zero has no end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "no such file"
        raise UsageError(f"{what} {path} cannot be read: {reason}.") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory; name the file in it.")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{what} {path} cannot be read: it is a device or a pipe and no file.")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{what} {path} cannot be read: permission denied.")


def checksum(path: str | Path) -> str:
    """CRC-32 of a file, 8 hex digits: tells damage on a disk or on the way, not malice; about 1 GB/s."""
    crc = 0
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def read_text(path: str | Path, *, limit: int = 16_000_000, keep_bytes: bool = False) -> str:
    """A text file, as :func:`~zsar_cli.encodings.decode` opens it.

    Raises:
        UsageError: it is missing, a directory, no text, or longer than ``limit`` bytes.
    """
    try:
        with open(path, "rb") as handle:
            content = handle.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "no such file"
        raise UsageError(f"{path} cannot be read: {reason or error}.") from error
    if len(content) > limit:
        raise UsageError(f"{path} is longer than {limit // 1_000_000} MB; is it the file you meant?")
    return decode(content, path, keep_bytes=keep_bytes)


class OwnNames:
    """A name for each video's own file in one folder: its stem, numbered where two videos share it."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, video: str) -> str:
        """The name, without an ending; never the same twice."""
        stem = name = Path(video).stem or "video"
        number = 2
        while name in self._taken:
            name, number = f"{stem}-{number}", number + 1
        self._taken.add(name)
        return name
