"""Outputs of a run: only one run at a time writes to an output, and foreign files are never replaced."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import stat
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, is_stream, shortened, sweep

LOCK = ".zsar-lock"


def taken(path: str | Path, *, inside: bool = False) -> str | None:
    """Explain why a new file at this path would replace something; None if the path is free.

    An empty file counts as free, unless it is reached through a link, and so does a stream such as /dev/stdout that
    the user named. ``inside``: the path was chosen by zsar in a folder that the user named; a pipe there would
    have no reader.
    """
    if not os.path.lexists(path) or (is_stream(path) and not inside):
        return None
    if os.path.islink(path):
        return "is a link to something else"
    if is_stream(path):
        return "is a device or a pipe"
    empty = os.path.isfile(path) and os.path.getsize(path) == 0
    return None if empty else "already exists"


def refuse_taken_inside(
    folder: Path, names: Iterable[str], *, overwrite: bool, option: str = "--output"
) -> None:
    """Raise UsageError if files with these names would replace something, or be written elsewhere through a link.

    With ``overwrite``, pipes, devices and links to them are removed, since writing would not replace them.
    """
    paths = [folder / name for name in names]
    for path in paths:
        for between in path.parents[: len(path.relative_to(folder).parts) - 1]:
            if between.is_symlink():
                raise UsageError(f"{between} is a link to something else; choose another {option}.")
        if overwrite and is_stream(path):
            os.unlink(path)
    refuse_taken(paths, overwrite=overwrite, option=option, inside=True)


def may_replace(path: str | Path, overwrite: bool) -> bool:
    """Tell whether an existing path may be replaced: with ``overwrite``, or if it is an empty file."""
    return overwrite or (os.path.lexists(path) and taken(path) is None)


def refuse_taken(
    paths: Iterable[str | Path], *, overwrite: bool, option: str = "--output", inside: bool = False
) -> None:
    """Raise UsageError if one of ``paths`` would replace something."""
    if overwrite:
        return
    found = [(path, why) for path in paths if (why := taken(path, inside=inside))]
    if found:
        path, why = found[0]
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UsageError(f"{path} {why}{others}; choose another {option}, or replace it with --overwrite.")


def refuse_inputs(output: Path, inputs: Iterable[str | Path | None]) -> None:
    """Raise UsageError if ``output`` is one of the run's inputs, under any path."""
    with contextlib.suppress(OSError, ValueError):
        own = os.stat(output)
        if not stat.S_ISREG(own.st_mode):
            return
        for given in inputs:
            with contextlib.suppress(OSError, ValueError):
                if given is not None and os.path.samestat(own, os.stat(given)):
                    raise UsageError(f"{output} is an input of this run; choose another --output.")


class Lock:
    """An exclusive lock on an output file or folder, for all processes and machines that see the folder.

    A small file beside the output, or in the folder, names its owner. The system releases the lock when the process
    ends for any reason. A lock file of a dead process is taken over, and its temporary files are removed.

    Raises:
        UsageError: another run holds the lock; the message gives its process, host and start time.
    """

    def __init__(self, output: str | Path) -> None:
        self._handle: int | None = None
        target = Path(os.path.realpath(output))
        self._name = _lock_name(target)
        if is_stream(output):
            return
        while self._handle is None:
            handle = self._open(output)
            if handle is None:
                return
            if not _flock(handle):
                holder = _holder(handle)
                os.close(handle)
                raise UsageError(
                    f"Another run{holder} is writing {output}; wait for it, or choose another --output."
                )
            if _is(handle, self._name):  # else the one before let go of it and removed it just now
                self._handle = handle
            else:
                os.close(handle)
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, _about_me())
        sweep(target)

    def _open(self, output: str | Path) -> int | None:
        """Open the lock file; None if it cannot be created, as writing the output will then report the reason."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            handle = os.open(self._name, flags, 0o666)
        except OSError:
            if not os.path.lexists(self._name):
                return None
            handle = None
        if handle is None or not _is_lock(handle):
            if handle is not None:
                os.close(handle)
            raise UsageError(
                f"{output} cannot be locked: {self._name} is not a lock file of zsar, or belongs to another user. "
                "Remove it, or choose another --output."
            )
        return handle

    def close(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                if _is(self._handle, self._name):
                    os.unlink(self._name)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock_name(target: Path) -> str:
    if target.is_dir():
        return str(target / LOCK)
    name = target.name
    if shortened(name) != name:  # two long names that start alike have each their own
        name = f"{shortened(name)}-{zlib.crc32(os.fsencode(name)):08x}"
    return str(target.parent / f".{name}{LOCK}")


def _flock(handle: int) -> bool:
    """Lock the file; False where another process holds it. Where a file system has no locks, none does."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is(handle: int, name: str | Path) -> bool:
    """Tell whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name))
    except OSError:
        return False


def _about_me() -> bytes:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"zsar": "lock", "pid": os.getpid(), "host": platform.node(), "since": since}).encode()


def _read_lock(handle: int) -> dict[str, Any] | None:
    """Read a lock; empty where it was made just now, None where it is none."""
    os.lseek(handle, 0, os.SEEK_SET)
    content = os.read(handle, 1000)
    if not content:
        return {}
    try:
        found = json.loads(content)
        return found if isinstance(found, dict) and found.get("zsar") == "lock" else None
    except (ValueError, RecursionError):
        return None


def _is_lock(handle: int) -> bool:
    return stat.S_ISREG(os.fstat(handle).st_mode) and _read_lock(handle) is not None


def _holder(handle: int) -> str:
    found = _read_lock(handle) or {}
    if not {"pid", "host", "since"} <= set(found):
        return ""
    return f" (process {found['pid']!s:.20} on {found['host']!s:.80}, since {found['since']!s:.40})"


def refuse_busy(output: str | Path) -> None:
    """Raise UsageError if another run writes to this output, before any work; leaves no lock file."""
    Lock(output).close()


class LineFile:
    """A file that is appended to line by line, and locked by this run.

    Each line is one write, so a killed process leaves at most one incomplete line at the end; a full disk leaves
    none.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, lock: bool = True) -> None:
        """Open a file to add to, or a new one; with ``overwrite``, a new one in place of what is there.

        ``lock=False``: the folder is this run's already.

        Raises:
            UsageError: another run has it, or it cannot be written.
        """
        self.path = path
        self._stream = is_stream(path)
        self._lock = Lock(path) if lock else None
        try:
            if overwrite and not self._stream and os.path.lexists(path):
                with atomic_write(path):
                    pass
            self._open()
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> None:
        try:
            self._file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise self._cannot(error, "Choose another --output.") from error
        if not self._stream and not _flock(self._file.fileno()):  # under another name, by a hard link
            self._file.close()
            raise UsageError(f"Another run is writing {self.path}; wait for it, or choose another --output.")

    def _cannot(self, error: OSError, what_to_do: str) -> UsageError:
        return UsageError(
            f"{self.path} cannot be written: {(error.strerror or str(error)).lower()}. {what_to_do}"
        )

    def lines(self) -> Iterator[bytes]:
        """Read what is there, a line at a time; nothing of a device or a pipe."""
        if not self._stream:
            with open(self.path, "rb") as file:
                yield from file

    def write(self, line: bytes, way_out: str = "Free some space, then continue with --resume.") -> None:
        """Add a line, which ends with a line end.

        Raises:
            UsageError: the disk is full, or the file is not there any more; what was there stays whole.
        """
        self.check()
        data, start = memoryview(line), None
        try:
            start = None if self._stream else os.fstat(self._file.fileno()).st_size
            while data:
                data = data[self._file.write(data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            if start is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), start)
            raise self._cannot(error, way_out) from error

    def check(self) -> None:
        """Raise UsageError where the file was deleted, moved or replaced since it was opened."""
        if not self._stream and not _is(self._file.fileno(), self.path):
            raise UsageError(
                f"{self.path} was deleted, moved or replaced while this run wrote to it. Leave it where it is, and "
                "run the same command again."
            )

    def truncate(self, size: int) -> None:
        """Cut the file to its first ``size`` bytes."""
        self._file.truncate(size)

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Put these lines in place of the file's, all or none of them; they may come from :meth:`lines`."""
        self.check()
        with atomic_write(self.path) as aside, open(aside, "wb") as file:
            file.writelines(lines)
        self._file.close()
        self._open()

    def abandon(self) -> None:
        """Close the file without a look at it: something else went wrong."""
        self._file.close()
        self._let_go()

    def close(self) -> None:
        """Close the file; what was written stays. UsageError where it is not there any more."""
        try:
            if not self._file.closed:
                with contextlib.closing(self._file):
                    self.check()
        finally:
            self._let_go()
