"""Signals that end a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def listening(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGHUP with ``handle`` during the block, except those that are ignored."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before: dict[int, Any] = {}
    for number in (getattr(signal, name) for name in names):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup: asked not to listen
            with contextlib.suppress(ValueError):  # not the main thread
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
