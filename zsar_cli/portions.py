"""Work that goes through a model in portions, half as large each time the device runs out of memory."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from zsar_cli.errors import out_of_memory

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Portion:
    """How many ``what`` go through a model together; what did not fit once is not tried again."""

    size: int
    what: str
    last_resort: Callable[[], bool] = lambda: (
        False
    )  # what else frees memory, where one thing alone is too much

    def map(self, count: int, function: Callable[[slice], T], each: int = 1) -> Iterator[T]:
        """Yield ``function`` of one slice after the other of ``count`` things that are ``each`` so many.

        Raises:
            RuntimeError: there is no memory for a single thing (:func:`zsar_cli.errors.memory_explained`).
        """
        start = 0
        while start < count:
            part = slice(start, min(start + max(1, self.size // each), count))
            with self.trying(part.stop - part.start, each) as attempt:
                found = function(part)
            if not attempt.failed:
                yield found
                start = part.stop

    def trying(self, count: int, each: int = 1) -> Attempt:
        """Make a context for work on ``count`` things: where memory runs out it ends the block, and halves."""
        return Attempt(self, count, each)


class Attempt:
    """Work that may run out of memory; then :attr:`failed` says so, and the portion is half as large."""

    def __init__(self, portion: Portion, count: int, each: int) -> None:
        self.portion, self.count, self.each = portion, count, each
        self.failed = False

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None or not out_of_memory(error):
            return False
        if self.count < 2 and not self.portion.last_resort():
            return False
        self.failed = True
        traceback.clear_frames(trace)  # they hold what filled the memory
        portion = self.portion
        portion.size = max(1, self.count * self.each // 2)
        logger.warning("out of memory: from now on at most %d %s at a time", portion.size, portion.what)
        release()
        return True


def release() -> None:
    """Give back what torch keeps of a GPU's memory for later, so that other sizes find room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
