"""What a person or a service manager sends to end a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def listening(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Let ``handle`` have SIGINT, SIGTERM and SIGHUP for the length of the block, less those that are ignored."""
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
