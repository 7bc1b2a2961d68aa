"""Files that are written whole or not at all."""

from __future__ import annotations

import difflib
import errno
import itertools
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zsar_cli.encodings import decode
from zsar_cli.errors import UsageError

ASSETS = Path(__file__).resolve().parent / "assets"  # all that ships
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_write(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a path aside to write to; it takes the place of ``path`` when the block ends well, else it goes away.

    The file aside lies in the same directory and has the same suffix. A reader sees the old file or the new one,
    never a part; after a power cut too. A link is replaced itself, and what it points at stays as it is. What takes
    bytes and keeps none (``/dev/stdout``, a pipe) is handed out itself.

    Args:
        replace: False refuses where something has that name when the block ends.

    Raises:
        UsageError: the directory is missing or read-only, the name is taken, or the disk is full.
    """
    if is_stream(path):
        yield Path(path)
        return
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory; name a file to write.")
    target = Path(os.path.realpath(Path(path).parent)) / Path(path).name
    held, aside = _reserve(target, path)
    try:
        yield aside
        _publish(aside, target, path, replace)
    except BaseException as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise UsageError(f"{path} cannot be written: {reason}.") from error
    finally:
        with suppress(OSError):
            aside.unlink()
        if held is not None:
            os.close(held)
    _sync_directory(target.parent)


def _publish(aside: Path, target: Path, path: str | Path, replace: bool) -> None:
    try:
        with open(aside, "rb+") as handle:
            os.fsync(handle.fileno())
        _set_rights(aside, target)
        if replace:
            os.replace(aside, target)
            return
        try:
            os.link(aside, target)  # unlike a rename, never in place of something
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(target):
                raise FileExistsError from None
            os.replace(aside, target)
    except FileExistsError:
        raise UsageError(f"{path} is there already; nothing was replaced.") from None
    except FileNotFoundError:
        raise UsageError(
            f"{path} cannot be written: its directory was deleted or cleared meanwhile."
        ) from None


def _reserve(target: Path, path: str | Path) -> tuple[int | None, Path]:
    """Make a new file aside, and a descriptor that holds it against :func:`sweep` while this process lives."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=_suffix(target))
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise UsageError(f"{path} cannot be written: there is no directory {target.parent}.") from error
        raise UsageError(f"{path} cannot be written: {_reason(error) or error.strerror or error}.") from error
    if _try_lock(handle):
        return handle, Path(name)
    os.close(handle)
    return None, Path(name)


ASIDE = ".zsar-tmp"  # in the names of files aside, which nobody else gives


def shortened(name: str, size: int = 60) -> str:
    """Cut the start of a file name to at most ``size`` bytes: file systems count bytes, not letters."""
    return os.fsencode(name)[:size].decode("utf-8", "ignore")


def _prefix(target: Path) -> str:
    return f".{shortened(target.stem)}."


def _suffix(target: Path) -> str:
    return ASIDE + (target.suffix if len(os.fsencode(target.suffix)) < 20 else "")


def sweep(target: Path) -> None:
    """Remove what writers of ``target``, a file or a folder of files, left aside when they were killed.

    Only names that :func:`atomic_write` gives, only files, no link, and none that a living process holds. For the
    one that has the lock on ``target``.
    """
    if target.is_dir():
        folder, known = target, re.compile(rf"\..*\.[a-z0-9_]{{8}}{re.escape(ASIDE)}(\.[^.]*)?", re.DOTALL)
    else:
        folder = target.parent
        known = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}" + re.escape(_suffix(target)))
    with suppress(OSError), os.scandir(folder) as entries:
        left = [entry.path for entry in entries if known.fullmatch(entry.name)]
        for name in left:
            _remove_dead(name)


def _remove_dead(name: str) -> None:
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(OSError):
        handle = os.open(name, flags)
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode) and _try_lock(handle):
                os.unlink(name)
        finally:
            os.close(handle)


def _try_lock(handle: int) -> bool:
    """Hold an open file; False where another process does, or the file system has no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows; a file system without locks
        return False
    return True


def is_stream(path: str | Path) -> bool:
    """Tell whether a path is a stream: a device, a pipe, an open descriptor (/dev/stdout)."""
    name = os.fspath(path)
    for _ in range(40):
        if re.fullmatch(r"/dev/fd/\d+|/proc/[^/]+(/task/\d+)?/fd/\d+", os.path.abspath(name)):
            return True
        try:
            name = os.path.join(os.path.dirname(name), os.readlink(name))
        except (OSError, ValueError):  # no link
            break
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _set_rights(path: Path, target: Path) -> None:
    """Set the rights of the file that is replaced, else of any new file: mkstemp makes files for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    rights = 0o666 & ~mask
    with suppress(OSError):
        before = os.lstat(target).st_mode
        if stat.S_ISREG(before):
            rights = stat.S_IMODE(before) & 0o777
    path.chmod(rights)


def _reason(error: BaseException) -> str | None:
    """Explain why a file could not be written; None where the error is about something else."""
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


def existing(name: str | Path) -> Path | None:
    """Return the path of that name if something is there; None too for what cannot be a path (too long, a NUL)."""
    try:
        path = Path(name).expanduser()
        return path if str(name) and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~nobody
        return None


def beside(name: str, *, folders: bool = False) -> str:
    """Suggest what lies there with a like name, to end a sentence about a path where nothing is."""
    folder = existing(Path(name).parent) if len(name) < 4096 and "\0" not in name else None
    if folder is None:
        return "; its folder is not there either."
    try:
        there = [
            entry.name
            for entry in itertools.islice(os.scandir(folder), 10_000)
            if entry.is_file() or (folders and entry.is_dir())
        ]
    except OSError:
        return "."
    close = difflib.get_close_matches(Path(name).name, there, n=1, cutoff=0.6)
    return f"; did you mean {Path(name).with_name(close[0])}?" if close else "."


def require_file(path: str | Path, what: str) -> None:
    """Raise UsageError unless the path is a regular file: a pipe would be waited for, and /dev/zero has no end."""
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
    """Compute CRC-32 of a file, 8 hex digits: it tells damage, not malice; about 1 GB/s.

    Raises:
        UsageError: it is missing or no regular file.
    """
    require_file(path, "The file")
    crc = 0
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def read_text(path: str | Path, *, limit: int = 16_000_000, keep_bytes: bool = False) -> str:
    """Read a text file, as :func:`~zsar_cli.encodings.decode` decodes it.

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
