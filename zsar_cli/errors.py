"""Errors shown to users. Each message says in one or two sentences what is wrong and what to do."""

from __future__ import annotations

import inspect
import reprlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class ZsarError(Exception):
    """An error that the user can fix; ``str(error)`` is the message, shown without a traceback."""


class UsageError(ZsarError):
    """A wrong option, configuration, label list, template file or model: the run cannot start (exit code 2)."""


class VideoError(ZsarError):
    """One video cannot be used; the run goes on and the video's record carries the error (exit code 1).

    ``kind`` is a stable word for programs: ``not_found``, ``permission``, ``not_a_file``, ``no_video``,
    ``encrypted``, ``unreadable``, ``timeout``, ``crashed`` or ``memory``; of objects in a storage also ``refused``,
    ``fetch_timeout``, ``unreachable``, ``truncated``, ``changed``, ``too_large``, ``no_space`` or ``unsupported``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return (VideoError, (self.kind, self.message))


class ZsarWarning(UserWarning):
    """A warning for callers from Python."""


def warn(message: str, category: type[Warning] = ZsarWarning) -> None:
    """Issue a warning for the innermost caller outside this package and ``logging``."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "zsar_cli",
        "logging",
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error of a GPU or of the CPU into a UsageError with advice."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise UsageError(f"The device is out of memory; {advice}, or another --device.") from error


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device has no memory left."""
    # torch's OutOfMemoryError is a RuntimeError; MPS and the CPU have no kind of their own
    words = ("out of memory", "not enough memory", "t allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def shown(value: object, limit: int = 60) -> str:
    """Format a value from a file for a message: short, on one line, without control characters."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, limit, limit, limit
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 3
    try:
        return short.repr(value)[: 2 * limit]
    except ValueError:  # Python prints no number of more than 4,300 digits
        return "a number of thousands of digits"
