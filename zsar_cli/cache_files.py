"""Files in a folder that others may write to: no link is followed, and nothing but regular files is opened.

A file is written aside and renamed. Whoever writes it holds a lock on it, so what killed runs left can be told from
what another run is writing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
# Not to wait for the other end of a pipe
_FLAGS = _NO_LINKS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_ASIDE = re.compile(r"[0-9a-f]{32}")
LEFT_BEHIND = (
    86400  # s after which a file aside is taken for what a killed run left, where nothing can be locked
)


def cache_directory() -> Path | None:
    """Locate the cache: ``$ZSAR_CACHE_DIR``, else ``zsar`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    None where that user has no home, as in containers that run under a number without a name.
    """
    if own := os.environ.get("ZSAR_CACHE_DIR"):
        own = os.path.expanduser(own)
        return None if own.startswith("~") else Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(base):  # ignored, says the XDG specification
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "zsar" if os.path.isabs(base) else None


def open_file(path: str | Path, flags: int, *, inside: int | None = None) -> int:
    """Open a regular file (``inside`` the open folder). OSError where it is a link, a pipe or a device."""
    try:
        handle = os.open(path, flags | _FLAGS, 0o666, dir_fd=inside)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return handle


def read_file(path: str | Path, limit: int) -> bytearray:
    """Read a regular file. OSError where it is none, or longer than ``limit`` bytes."""
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, "it is larger than it can be", str(path))
        content = bytearray(size)
        del content[file.readinto(content) :]  # another process made it shorter
        return content


def is_folder(path: str | Path) -> bool:
    """Tell whether it is a folder itself, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def make_folder(path: str | Path) -> None:
    """Make a folder, unless it is there. OSError where something else is there, such as a link."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not is_folder(path):
            raise NotADirectoryError(errno.ENOTDIR, "it is a link or no folder", str(path)) from None


def write_file(path: Path, content: bytes, aside: Path) -> None:
    """Write a file whole or not at all, by way of the folder ``aside`` on the same disk. OSError."""
    while True:
        temporary = aside / uuid.uuid4().hex
        with open(open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            lock(file.fileno())
            if not os.fstat(file.fileno()).st_nlink:
                continue  # another run took it for left behind before it was locked
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            return


def sweep(aside: Path) -> None:
    """Remove what killed runs left in ``aside``: files with names of ours that no process is writing."""
    with suppress(OSError):
        folder = os.open(aside, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINKS)
        try:
            for name in os.listdir(folder):
                if _ASIDE.fullmatch(name):
                    with suppress(OSError):
                        _remove_if_left(name, folder)
        finally:
            os.close(folder)


def _remove_if_left(name: str, folder: int) -> None:
    handle = open_file(name, os.O_RDWR, inside=folder)
    try:
        locked = lock(handle)
        old = time.time() - os.fstat(handle).st_mtime > LEFT_BEHIND
        if locked or (locked is None and old):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(handle)


def lock(handle: int, wait: float = 0.0, sleep: Callable[[float], None] = time.sleep) -> bool | None:
    """Lock an open file for this process, within ``wait`` s: whether it could be, None where there are no locks."""
    if fcntl is None:
        return None
    last = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= last:
                return False
            sleep(0.02)
        except OSError:  # a file system without locks
            return None
