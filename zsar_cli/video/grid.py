"""Frames of a long video on a regular grid of times, and which of them each sliding window sees.

A window of W seconds shows T frames to the model, so the grid's step is W / T and its ticks are the middles of
the steps. A window is T ticks in a row: neighbouring windows share frames, and each is decoded once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from zsar_cli.video.decode import VideoInfo, iter_frames, planned_info
from zsar_cli.video.transforms import Preprocess, resize_and_crop


@dataclass(frozen=True)
class GridRequest:
    """A long video's frames for windows of ``window`` s and ``frames`` frames each, ``chunk`` at a time."""

    path: str
    window: float
    frames: int = 8
    preprocess: Preprocess = field(default_factory=Preprocess)
    decoder: str = "auto"
    chunk: int = 32


@dataclass
class GridChunk:
    """Frames in order. A tick shows the frame with the highest tick number that is not above it."""

    pixels: np.ndarray  # (n, h, w, 3) uint8
    ticks: np.ndarray  # (n,) int64, rising
    step: float  # s between ticks
    info: VideoInfo
    warning: str | None = None


def load_grid(request: GridRequest) -> Iterator[GridChunk]:
    """Decodes a video once, in sequence. One shorter than a window gets a window of its own length.

    Raises VideoError.
    """
    planned = planned_info(request.path)
    step = min(request.window, planned.duration) / request.frames
    # The frame on show at a tick is the last that began before it; as times are rounded, a hair after will do
    frame = 1 / planned.fps
    first = step / 2 - frame + min(0.001, frame / 4)
    for part in iter_frames(
        request.path,
        rate=1 / step,
        first=first,
        decoder=request.decoder,
        resize=lambda pixels: resize_and_crop(pixels, request.preprocess),
        chunk=request.chunk,
    ):
        ticks = np.floor((part.times - first) / step + 1e-6).astype(np.int64)
        yield GridChunk(part.frames, ticks, step, part.info, part.warning)


def window_start(number: int, stride: float, step: float) -> int:
    """The first tick of the window that starts ``number`` strides into the video."""
    return round(number * stride / step)


def window_starts(duration: float, frames: int, stride: float, step: float) -> list[int]:
    """The first tick of every window over ``duration`` s; the last ends with the video."""
    total = max(frames, round(duration / step))
    starts: list[int] = []
    while (start := window_start(len(starts), stride, step)) + frames <= total:
        starts.append(start)
    if starts[-1] + frames < total:
        starts.append(total - frames)
    return starts


def cells(starts: list[int], frames: int) -> list[tuple[int, int, range]]:
    """Cut time where a window starts or ends: (first tick, end, the windows that cover it), without gaps."""
    edges = sorted({*starts, *(start + frames for start in starts)})
    found = []
    for first, end in pairwise(edges):
        covering = range(bisect_left(starts, end - frames), bisect_right(starts, first))
        if covering:
            found.append((first, end, covering))
    return found
