"""Files that are written atomically."""

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
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY_FULL = "temporary folder {} is full; set TMPDIR to a folder with more room"
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_write(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path, which replaces ``path`` when the block succeeds and is removed when it fails.

    The temporary file lies in the same directory and has the same suffix. Readers see the old file or the new one,
    never a part, even after a power failure. If ``path`` is a link, the link is replaced and its target is unchanged.
    For a stream (``/dev/stdout``, a pipe), ``path`` itself is yielded.

    Args:
        path: the file to write.
        replace: if False, an existing ``path`` is an error.

    Raises:
        UsageError: the directory is missing or read-only, ``path`` exists, or the disk is full.
    """
    if is_stream(path):
        yield Path(path)
        return
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory; name an output file.")
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
        raise UsageError(f"{path} already exists and was not replaced.") from None
    except FileNotFoundError:
        raise UsageError(
            f"{path} cannot be written: its directory was deleted or emptied during the run."
        ) from None


@contextmanager
def in_temporary_folder() -> Iterator[None]:
    """Turn the error of a full temporary folder into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UsageError(f"The {TEMPORARY_FULL.format(tempfile.gettempdir())}.") from error


def move_into_place(aside: Path, target: Path) -> None:
    """Give a finished file its name, in place of what is there; it is on the disk before, even at a power failure."""
    try:
        with open(aside, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(aside, target)
    except OSError as error:
        reason = _reason(error) or (error.strerror or str(error)).lower()
        raise UsageError(f"{target} cannot be written: {reason}.") from error
    _sync_directory(target.parent)


def _reserve(target: Path, path: str | Path) -> tuple[int | None, Path]:
    """Create a temporary file, and a descriptor whose lock protects it from :func:`sweep` during this process."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=_suffix(target))
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise UsageError(
                f"{path} cannot be written: the directory {target.parent} does not exist."
            ) from error
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
    """Remove temporary files of killed writers of ``target``, a file or a folder of files.

    Only regular files named by :func:`atomic_write` that no running process has locked are removed. The caller must
    hold the lock on ``target``.
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
    """Lock an open file; False if another process has it, or the file system has no locks."""
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
    """Set the permissions of the replaced file, else of a new file: mkstemp creates files private to their owner."""
    mask = os.umask(0)
    os.umask(mask)
    rights = 0o666 & ~mask
    with suppress(OSError):
        before = os.lstat(target).st_mode
        if stat.S_ISREG(before):
            rights = stat.S_IMODE(before) & 0o777
    path.chmod(rights)


def _reason(error: BaseException) -> str | None:
    """Explain why a file could not be written; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    # safetensors reports a full disk as an error of its own kind, with the system's number in its text
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    if number in NO_ROOM:
        return "the disk is full"
    return "permission denied for its directory" if number in _NOT_ALLOWED else None


def _sync_directory(directory: Path) -> None:
    with suppress(OSError):  # not every file system can
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def existing(name: str | Path) -> Path | None:
    """Return the path if it exists; None if not, or if it cannot be a path (too long, a NUL)."""
    try:
        path = Path(name).expanduser()
        return path if str(name) and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~nobody
        return None


def beside(name: str, *, folders: bool = False) -> str:
    """Suggest a similar existing name, as the end of a sentence about a missing path."""
    folder = existing(Path(name).parent) if len(name) < 4096 and "\0" not in name else None
    if folder is None:
        return "; its folder does not exist either."
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
    """Raise UsageError unless the path is a regular file: a pipe would block, and /dev/zero is endless."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "no such file"
        raise UsageError(f"{what} {path} cannot be read: {reason}.") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory; name the file in it.")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{what} {path} cannot be read: it is a device or a pipe, not a file.")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{what} {path} cannot be read: permission denied.")


def checksum(path: str | Path) -> str:
    """Compute the CRC-32 of a file, 8 hex digits, at about 1 GB/s. It detects damage, not manipulation.

    Raises:
        UsageError: the file is missing or not a regular file.
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
