"""When frames are shown, how long a video is, and what is known to be missing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zsar_cli.video.probe import Index

OUT_OF_ORDER = 1.0  # s that time stamps may go back where a container has those of decoding


@dataclass(frozen=True)
class VideoInfo:
    """``duration`` in s; ``width`` and ``height`` as shown; ``frame_count`` readable frames.

    ``start``: s from the start of the container's clock to the first frame (sound may begin before it).
    ``assumed``: the times rest on a frame rate that nothing in the file tells.
    ``interval``: s from one frame to the next, the median; 0 where it is 1 / ``fps`` everywhere.
    """

    duration: float
    width: int
    height: int
    frame_count: int
    fps: float
    start: float = 0.0
    assumed: bool = False
    interval: float = 0.0


class Clock:
    """Times of frames while they come: time stamps where the index found good ones, else the frame rate."""

    def __init__(self, index: Index) -> None:
        """Begin before the first frame."""
        self.index = index
        self.first: int | None = None
        self.latest = -1.0

    def time(self, number: int, pts: int | None) -> float:
        """Give the time of the next frame, s from the first. It never falls."""
        if not self.index.timed or pts is None:
            time = number / self.index.rate
        elif self.index.shuffled and number < self.index.frame_count:
            time = float(self.index.seconds[number])
        else:
            self.first = pts if self.first is None else self.first
            time = (pts - self.first) * self.index.time_base
        self.latest = max(time, self.latest)
        return self.latest


def timing(
    pts: Sequence[int | None], index: Index, size: tuple[int, int]
) -> tuple[VideoInfo, np.ndarray, bool]:
    """Say when the frames of a video are shown, by the time stamps of all of them.

    Args:
        pts: of each frame, in the order in which the decoder gives them.
        index: of the file.
        size: height and width of a frame.

    Returns:
        Info, each frame's time in s from the first, and whether that rests on time stamps or on the frame rate.
    """
    count = len(pts)
    stamps = _in_order(pts, index)
    seconds = np.arange(count) / index.rate if stamps is None else (stamps - stamps[0]) * index.time_base
    tail = 1 / index.rate if stamps is None else index.tail
    duration = float(seconds[-1]) + tail
    fps = (count - 1) / float(seconds[-1]) if count > 1 else index.rate
    interval = float(np.median(np.diff(seconds))) if count > 1 else tail
    info = VideoInfo(duration, size[1], size[0], count, fps, index.start, interval=interval)
    return info, seconds, stamps is not None


def _in_order(pts: Sequence[int | None], index: Index) -> np.ndarray | None:
    """Put time stamps in the order in which frames are shown. None where they do not tell frames apart.

    Some containers have the times of decoding only, and a decoder hands them out with its frames in another order:
    those are sorted. Stamps that go back further are of a clock that was set anew.
    """
    if any(value is None for value in pts):
        return None
    stamps = np.asarray(pts, np.int64)
    steps = np.diff(stamps) * index.time_base
    if (steps < 0).any() and steps.min() > -OUT_OF_ORDER:
        stamps = np.sort(stamps)
    return stamps if (np.diff(stamps) > 0).all() else None


def planned_timing(index: Index, size: tuple[int, int]) -> VideoInfo:
    """Say what the index promises, without decoding. ``size``: height and width of a frame."""
    pts = index.pts[index.order].tolist() if index.timed else [None] * index.frame_count
    return timing(pts, index, size)[0]


def shortfall(info: VideoInfo, index: Index, problems: list[str], timed: bool = True) -> str | None:
    """Say what is known to be missing: time that the file promises, or what the decoder met errors in.

    A difference of counts says nothing: a packet may hold one field, two frames or none that is shown.
    """
    claimed = index.claimed or 0.0
    if timed and claimed - info.duration > max(2.5 / info.fps, 0.03 * claimed):
        return f"only {info.duration:.1f} of {claimed:.1f} s could be read"
    if problems:
        whole = max(claimed, info.duration)
        read = whole - max(len(problems) / info.fps, 0.1)
        return f"damaged: only {max(read, 0):.1f} of {whole:.1f} s could be read"
    return None
