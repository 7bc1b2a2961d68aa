"""The frames that were asked for: which they are, kept as they come, and put in order at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from zsar_cli.video.times import VideoInfo

Choose = Callable[..., Sequence[int]]  # of the number of frames, and of their rate where that is wanted
MOST_REORDERED = 16  # frames that H.264 and HEVC decode before one that is shown earlier
Resize = Callable[[np.ndarray], np.ndarray]


@dataclass
class DecodedVideo:
    """``frames`` (n, H, W, 3) uint8 in the order asked for, or what ``resize`` made of them.

    ``times`` in s from the first frame; ``warning``: how much of the video could not be read. ``shot``: where the shot
    begins that they are of, in s from the first frame, where cuts are looked for.
    """

    frames: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    info: VideoInfo
    warning: str | None = None
    shot: float = 0.0


class KeptFrames:
    """Converted frames by number, and their size before any resizing: (height, width), 0 without a frame."""

    def __init__(self, resize: Resize | None) -> None:
        """Keep no frame yet."""
        self.resize = resize
        self.pixels: dict[int, np.ndarray] = {}
        self.size = (0, 0)

    def keep(self, number: int, frame: np.ndarray) -> None:
        """Resize and keep a frame (H, W, 3) uint8."""
        if not self.pixels:
            self.size = (frame.shape[0], frame.shape[1])
        self.pixels[number] = self.resize(frame) if self.resize else frame

    def video(
        self, indices: Sequence[int], seconds: np.ndarray, info: VideoInfo, warning: str | None
    ) -> DecodedVideo:
        """Put frames in the order of ``indices``. ``seconds``: of every frame of the video, by number."""
        frames = stack([self.pixels[number] for number in indices])
        numbers = np.asarray(indices, np.int64)
        return DecodedVideo(frames, numbers, seconds[numbers], info, warning)


def chosen(choose: Choose, frame_count: int) -> list[int]:
    """Ask for the frames of a video of so many; numbers beyond its ends mean its ends."""
    return [min(max(int(number), 0), frame_count - 1) for number in choose(frame_count)]


def settled(frames: Iterator[tuple[int, Any]], order: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Yield frames with their numbers up to the first damage that shows in one, as by several threads.

    Each waits for all that were decoded before it: it may lean on one that is shown later and damaged.

    Args:
        frames: as they are shown.
        order: for each frame its place in the order they are decoded in.
    """
    # For each frame: the last to come of those that are decoded no later
    awaited = np.maximum.accumulate(np.argsort(order))[order]
    waiting: deque[tuple[int, Any]] = deque()
    for number, frame in frames:
        waiting.append((number, frame))
        if frame.is_corrupt or number >= len(order) or len(waiting) > MOST_REORDERED:
            return
        while waiting and awaited[waiting[0][0]] <= number:
            yield waiting.popleft()


def stack(frames: list[np.ndarray]) -> np.ndarray:
    """Make one array of frames. Where a stream changes its size half way, they follow the first."""
    shape = frames[0].shape
    if len(shape) == 3 and any(frame.shape != shape for frame in frames):
        size = (shape[1], shape[0])
        frames = [np.asarray(Image.fromarray(frame).resize(size)) for frame in frames]
    return np.stack(frames)
