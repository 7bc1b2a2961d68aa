"""Objects of a storage as files of this disk, ahead of decoding: FFmpeg never opens an address.

Whole objects are read, in ranges at the same time, into a folder of this run that holds so many bytes at most. A file
goes as soon as nobody needs it, and the folder at the end. What a killed run left is removed by the next one.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import re
import shutil
import stat
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any, TypeVar

from zsar_cli.cache_files import LEFT_BEHIND, lock
from zsar_cli.errors import VideoError
from zsar_cli.video.address import WEB, is_remote, path_of, public, scheme_of
from zsar_cli.video.find import ending

logger = logging.getLogger(__name__)

PREFIX = "zsar-fetch-"
TOGETHER = 6  # objects that are fetched at the same time
PARTS_TOGETHER = 4  # ranges of each
TRIES = 4
REMEMBERED = 10_000  # signed links
FIRST_WAIT = 0.5  # s; 4 times as long before each further try
Result = TypeVar("Result")


@dataclass
class Limits:
    """What fetching may take, for the whole process. ``max_bytes``: of an object. ``space``: of those on the disk."""

    max_bytes: int = 20 * 10**9
    space: int = 2 * 2**30


LIMITS = Limits()


@dataclass(eq=False)
class Fetch:
    """An object on its way to the disk. ``keep``: leave it there for the next time, as long as there is room."""

    url: str
    keep: bool = False
    users: int = 1
    size: int | None = None  # bytes of the room that it has taken; None: it waits for its turn
    path: str = ""
    error: BaseException | None = None
    ready: threading.Event = field(default_factory=threading.Event)


class Fetcher:
    """Fetches objects in threads, in a folder of its own, as far ahead as there is room.

    Room is given in the order in which objects are asked for: whoever takes them in that order never waits for one
    that waits for a later one.
    """

    def __init__(self) -> None:
        """Make no folder and start no thread before the first object."""
        self.closed = threading.Event()
        self.count = self.bytes = 0  # of what was fetched
        self._changed = threading.Condition()
        self._waiting: queue.SimpleQueue[Fetch | None] = queue.SimpleQueue()
        self._fetches: dict[str, Fetch] = {}
        self._turns: deque[Fetch] = deque()  # those without room
        self._threads = 0
        self._folder: tuple[str, int | None] | None = None
        self._space = 0
        self._number = 0

    def start(self, url: str, *, keep: bool = False) -> Fetch:
        """Begin to fetch an object, or share what is fetched already; :meth:`done` is owed for each."""
        url = _whole_address(url)
        with self._changed:
            known = self._fetches.get(url)
            if known is not None and known.error is None:
                known.users += 1
                known.keep = keep
                return known
            fetch = self._fetches[url] = Fetch(url, keep)
            self._turns.append(fetch)
            if self._threads < TOGETHER:
                self._threads += 1
                threading.Thread(target=self._run, daemon=True, name="zsar-fetch").start()
        self._waiting.put(fetch)
        return fetch

    def path(self, fetch: Fetch, given_up: threading.Event | None = None) -> str:
        """Wait for an object, and give its path on this disk.

        Raises:
            VideoError: it cannot be fetched.
        """
        while not fetch.ready.wait(0.5):
            if self.closed.is_set() or (given_up is not None and given_up.is_set()):
                raise VideoError("crashed", "the run was ended")
        if fetch.error is not None:
            raise fetch.error
        return fetch.path

    def done(self, fetch: Fetch) -> None:
        """Remove an object from the disk, once nobody needs it any more."""
        with self._changed:
            fetch.users -= 1
            if not fetch.users and not fetch.keep and fetch.ready.is_set():
                self._remove(fetch)

    @contextmanager
    def local(self, request: Any) -> Iterator[Any]:
        """Have a request for an address read a file of this disk."""
        if not is_remote(getattr(request, "path", None)):
            yield request
            return
        fetch = self.start(request.path)
        try:
            yield replace(request, path=self.path(fetch))
        finally:
            self.done(fetch)

    def close(self) -> None:
        """Remove everything, whatever is still being fetched."""
        self.closed.set()
        with self._changed:
            for _ in range(self._threads):
                self._waiting.put(None)
            self._changed.notify_all()
            if self._folder is not None:
                logger.info("fetched %d objects, %.1f MB", self.count, self.bytes / 1e6)
                _remove_folder(*self._folder)
                self._folder = None

    def _run(self) -> None:
        while (fetch := self._waiting.get()) is not None and not self.closed.is_set():
            try:
                if fetch.users:
                    self._fetch(fetch)
            except BaseException as error:  # whoever waits for it must hear of it
                fetch.error = error
            with self._changed:
                fetch.ready.set()
                if fetch.error is not None or (not fetch.users and not fetch.keep):
                    self._remove(fetch)

    def _fetch(self, fetch: Fetch) -> None:
        end = ending(path_of(fetch.url))
        with self._changed:
            if self._folder is None:
                self._folder = _make_folder()
                self._space = min(LIMITS.space, shutil.disk_usage(self._folder[0]).free // 2)
            folder, self._number = self._folder[0], self._number + 1
            fetch.path = os.path.join(
                folder, f"{self._number}{'.' + end if re.fullmatch('[a-z0-9]{1,5}', end) else ''}"
            )

        def wait(seconds: float) -> None:
            if self.closed.wait(seconds) or not fetch.users:
                raise VideoError("crashed", "the run was ended")

        from zsar_cli.video.storage_errors import no_room

        try:
            with open(fetch.path, "xb") as out:
                download(fetch.url, out, lambda size: self._take_room(fetch, size), wait)
                self.bytes += out.seek(0, os.SEEK_END)
        except OSError as error:
            raise no_room(error, folder) or error from None
        self.count += 1

    def _take_room(self, fetch: Fetch, size: int | None) -> None:
        """Wait for room. One that is larger than all of it, or of no known size, comes when nothing else is there."""
        wanted = self._space if size is None else size
        with self._changed:
            if (
                fetch.size is not None
            ):  # what was let in once stays in: who waits for it may hold what it would wait for
                fetch.size = wanted
                return
            while not self.closed.is_set() and not (self._turns[0] is fetch and self._has_room(wanted)):
                self._changed.wait(0.5)
            fetch.size = wanted
            self._turns.popleft()
            self._changed.notify_all()

    def _has_room(self, wanted: int) -> bool:
        held = [fetch for fetch in self._fetches.values() if fetch.size is not None]
        taken = sum(fetch.size or 0 for fetch in held)
        for fetch in held:
            if taken + wanted <= self._space:
                break
            if not fetch.users and fetch.ready.is_set():  # kept for a next time that is not known to come
                taken -= fetch.size or 0
                self._remove(fetch)
        return taken == 0 or taken + wanted <= self._space

    def _remove(self, fetch: Fetch) -> None:
        with suppress(OSError):
            if fetch.path:
                os.unlink(fetch.path)
        with suppress(ValueError):
            self._turns.remove(fetch)
        if self._fetches.get(fetch.url) is fetch:
            del self._fetches[fetch.url]
        self._changed.notify_all()


_signed: OrderedDict[str, str] = OrderedDict()  # by public address: what records leave out


def _whole_address(url: str) -> str:
    """Complete the address that a record has of an object that was fetched before by a signed link."""
    name = public(url)
    if name == url:
        return _signed.get(name, url)
    _signed[name] = url
    if len(_signed) > REMEMBERED:
        _signed.popitem(last=False)
    return url


# --- one object ---------------------------------------------------------------------------------------------------


def download(
    url: str, out: IO[bytes], room: Callable[[int | None], None], wait: Callable[[float], None]
) -> None:
    """Write an object to a file. One that changes meanwhile is read once more.

    Args:
        url: its address.
        out: the file, empty.
        room: is told the object's size, or None where that is not known, and returns once there is room.
        wait: waits so many s, or raises where nobody wants the object any more.

    Raises:
        VideoError: not_found, permission, fetch_timeout, unreachable, truncated, changed, too_large, ...
    """
    for again in (False, True):
        try:
            return _download(url, out, room, wait, again)
        except VideoError as error:
            if error.kind != "changed" or again:
                raise


def _download(
    url: str, out: IO[bytes], room: Callable[[int | None], None], wait: Callable[[float], None], fresh: bool
) -> None:
    from zsar_cli.video import storage
    from zsar_cli.video.storage_errors import changed

    source: Any = storage
    if on_web := scheme_of(url) in WEB:
        from zsar_cli.video import web

        source = web

    def begin() -> storage.State:
        out.seek(0)
        out.truncate()
        state: storage.State = source.begin(url, out, LIMITS.max_bytes, room, fresh=fresh)
        return state

    state = patiently(begin, url, wait)
    size = state.size or 0
    parts = [(start, min(start + storage.PART, size)) for start in range(out.tell(), size, storage.PART)]
    for first in range(0, len(parts), PARTS_TOGETHER):
        missing = parts[first : first + PARTS_TOGETHER]

        def read() -> None:
            nonlocal missing
            failed: list[tuple[tuple[int, int], VideoError]] = []
            for part, data in zip(missing, source.read_parts(url, state, missing), strict=True):
                if isinstance(data, VideoError):
                    failed.append((part, data))
                else:
                    out.seek(part[0])
                    out.write(data)
            missing = [part for part, _ in failed]
            for _, error in failed:
                raise error

        wait(0)
        try:
            patiently(read, url, wait)
        except VideoError as error:
            if error.kind == "truncated" and not on_web and storage.state_of(url, fresh=True) != state:
                raise changed() from None
            raise
    if len(parts) > 1 and not on_web and storage.state_of(url, fresh=True) != state:
        raise changed()


_answered: set[str] = set()  # hosts that there are


def patiently(action: Callable[[], Result], url: str, wait: Callable[[float], None]) -> Result:
    """Do it, several times where what fails may pass, and ever longer after each try.

    To a host that has never answered, a connection is tried once: a list may have thousands of addresses of a dead one.
    """
    from zsar_cli.video.storage_errors import AGAIN, NoConnectionError

    host = url.partition("://")[2].partition("/")[0]
    for number in range(TRIES):
        try:
            result = action()
            _answered.add(host)
            return result
        except VideoError as error:
            if not isinstance(error, NoConnectionError):
                _answered.add(host)
            if error.kind not in AGAIN or number == TRIES - 1 or host not in _answered:
                raise
            logger.info("%s: %s (try %d of %d)", public(url), error.message, number + 1, TRIES)
            wait(FIRST_WAIT * 4**number * random.uniform(0.5, 1.5))
        finally:
            if len(_answered) > REMEMBERED:
                _answered.clear()
    raise AssertionError  # the last try returns or raises


# --- the folder ---------------------------------------------------------------------------------------------------


def _make_folder() -> tuple[str, int | None]:
    """Make a folder that only this user can enter, with a lock that ends with this process. Removes dead ones."""
    _sweep(tempfile.gettempdir())
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX)
        handle = _locked(folder)
        if os.path.isdir(folder):  # else another run took it for a dead one before it was locked
            return folder, handle
        _close(handle)


def _locked(folder: str) -> int | None:
    """Lock a folder; None where another process has it, or there are no locks."""
    if os.name == "nt":
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if lock(handle):
            return handle
        os.close(handle)
    return None


def _sweep(parent: str) -> None:
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if re.fullmatch(re.escape(PREFIX) + "[a-z0-9_]{8}", entry.name):
                with suppress(OSError):
                    _remove_if_dead(entry.path)


def _remove_if_dead(folder: str) -> None:
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        return
    handle = _locked(folder)
    if handle is not None or (os.name == "nt" and time.time() - status.st_mtime > LEFT_BEHIND):
        _remove_folder(folder, handle)


def _remove_folder(folder: str, handle: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _close(handle)


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
