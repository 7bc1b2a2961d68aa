"""Whether objects in a storage are still the same, asked ahead of need: one answer takes as long as many."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zsar_cli.errors import VideoError
from zsar_cli.video.address import is_remote

TOGETHER = 32  # objects that are asked for at the same time
AHEAD = 128  # items that are read ahead
Item = TypeVar("Item")


@dataclass(eq=False)
class _Asked:
    item: Any
    url: str | None = None
    error: BaseException | None = None
    known: threading.Event = field(default_factory=threading.Event)
    taken: threading.Event = field(default_factory=threading.Event)


def with_states(items: Iterable[Item], url_of: Callable[[Item], Any]) -> Iterator[Item]:
    """Yield the items, in order, once the state of each one's object is known, or cannot be.

    Then :func:`zsar_cli.video.storage.known_state` has it. An item is out as soon as that is so, even if the next one
    is long in coming. What is no address asks nothing, and nothing behind it is read before it is taken.

    Args:
        items: read in a thread.
        url_of: the address of an item's object, or anything else.
    """
    ahead = _Ahead()
    threading.Thread(target=ahead.feed, args=(items, url_of), daemon=True, name="zsar-states-feed").start()
    try:
        while (asked := ahead.order.get()) is not None:
            if asked.error is not None:
                raise asked.error
            asked.known.wait()
            yield asked.item
            asked.taken.set()
            if asked.url is not None:
                ahead.room.release()
    finally:
        ahead.left.set()


class _Ahead:
    """What the threads share."""

    def __init__(self) -> None:
        self.order: queue.Queue[_Asked | None] = queue.Queue()  # as they are to be yielded; None: the end
        self.waiting: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self.room = threading.Semaphore(AHEAD)
        self.left = threading.Event()
        self.threads = 0

    def feed(self, items: Iterable[Any], url_of: Callable[[Any], Any]) -> None:
        """Read the items, and have those with an address asked for."""
        try:
            for item in items:
                url = url_of(item)
                asked = _Asked(item, url if is_remote(url) else None)
                self.order.put(asked)
                if not self._goes_on(asked):
                    return
            self.order.put(None)
        except BaseException as error:
            self.order.put(_Asked(None, error=error))
        finally:
            for _ in range(self.threads):
                self.waiting.put(None)

    def _goes_on(self, asked: _Asked) -> bool:
        """Tell, once there is room for the next item, whether anybody still wants it."""
        if asked.url is None:
            asked.known.set()
        else:
            if self.threads < TOGETHER:
                self.threads += 1
                threading.Thread(target=self._ask, daemon=True, name="zsar-states").start()
            self.waiting.put(asked)
        while not (self.room.acquire(timeout=0.5) if asked.url else asked.taken.wait(0.5)):
            if self.left.is_set():
                return False
        return not self.left.is_set()

    def _ask(self) -> None:
        from zsar_cli.video.storage import state_of

        while (asked := self.waiting.get()) is not None:
            with suppress(VideoError):
                if asked.url is not None and not self.left.is_set():
                    state_of(asked.url)
            asked.known.set()
