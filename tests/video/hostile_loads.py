"""What the pool's tests have workers run. A small module, because every worker imports it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.video.pool import Clip, ClipRequest, load_clip


@dataclass(frozen=True)
class Task:
    number: int
    deed: str = "fine"
    decoder: str = "auto"


def load(task: Task) -> tuple[int, int]:
    if task.deed == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task.deed == "die unless pyav" and task.decoder != "pyav":
        os.abort()
    if task.deed == "hang":
        time.sleep(3600)
    if task.deed == "wait":
        time.sleep(0.5)
    if task.deed == "balloon":
        held = [np.empty(2**24) for _ in range(64)]  # 8 GB in steps of 128 MB
        return task.number, len(held)
    if task.deed == "fail":
        raise VideoError("unreadable", "as planned")
    if task.deed == "bug":
        raise KeyError("a bug")
    if task.deed == "noise":
        os.write(1, b"printed by a library")
        os.write(2, b"logged by a library")
    return task.number, os.getpid()


def modules(_: object) -> list[str]:
    return sorted(sys.modules)


def stream(task: Task) -> Iterator[np.ndarray]:
    for part in range(40):
        if part == 3:
            load(task)
        yield np.full((4, 64, 64, 3), part, np.uint8)


def counted_stream(folder: str) -> Iterator[np.ndarray]:
    """Leaves a file for each chunk that was made, for the test of back-pressure."""
    for part in range(200):
        open(os.path.join(folder, str(part)), "w").close()
        yield np.zeros((4, 224, 224, 3), np.uint8)


def by_name(request: ClipRequest) -> Clip:
    """A clip, unless the file's name says what its decoding is to end in."""
    load(Task(0, Path(request.path).stem))
    return load_clip(request)
