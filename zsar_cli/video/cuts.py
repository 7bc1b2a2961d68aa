"""Hard cuts: where neighbouring frames of a video share nothing, so that a new shot begins.

A frame is compared with the one before it block by block: each block may have come from anywhere near it, as under a
pan, a zoom or a shaken camera. Of frames of two shots hardly any block is found again. What is left unexplained is
measured against the frames' contrast, after brightness and contrast are made equal (a lamp that is switched on is no
cut). Two more conditions keep out what only looks like a cut: frames around it must not be alike (a flash), and most
of the steps around it must be much smaller (wild movement, a quick fade).

PySceneDetect's plain content measure, the yardstick, takes each of these for cuts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.lib.stride_tricks import sliding_window_view

Frame = TypeVar("Frame")

WIDTH, HEIGHT, BLOCK = 32, 16, 4  # of the small pictures that are compared
FAR, HIGH = 10, 5  # how far a block may have moved: a third of the picture
REACH = 5  # frames on both sides that are looked at: a longer flash counts as a shot
DIFFERENT = 6.0  # mean difference of neighbours below which nothing is looked at (of 255)
UNLIKE = (
    0.5  # share of the contrast that stays unexplained between two shots; within one, 99% have less than 0.4
)
LEAST_CONTRAST, FLAT = 6.0, 2.0  # of a picture, and that of black, white or fog
APART = 2.0  # how many times as unlike as other neighbours the frames at a cut are
BUSY = 3  # so many other steps within reach that are as large make it movement


def shrinker() -> Callable[[Any], np.ndarray]:
    """Make what shrinks decoded frames (``av.VideoFrame``) to (3, HEIGHT, WIDTH) float32: luma and two of colour."""
    scaler = VideoReformatter()  # one for all frames: to make it costs more than to use it

    def shrink(frame: Any) -> np.ndarray:
        small = scaler.reformat(frame, WIDTH, HEIGHT, "yuv444p", interpolation="AREA")
        return np.asarray(small.to_ndarray(), np.float32)

    return shrink


def mark_cuts(
    frames: Iterable[Frame], picture: Callable[[Frame], np.ndarray]
) -> Iterator[tuple[Frame, bool]]:
    """Yield each frame, and whether a shot begins with it; ``REACH`` frames later than they come.

    Args:
        frames: of a video, in order.
        picture: gives a frame as :func:`shrinker` has it.
    """
    finder = CutFinder()
    held: deque[Frame] = deque()
    for frame in frames:
        held.append(frame)
        finder.take(picture(frame))
        if len(held) > REACH:
            yield held.popleft(), finder.cut_comes_next()
    while held:
        yield held.popleft(), finder.cut_comes_next()


class CutFinder:
    """Decides of one frame after the other whether a shot begins with it."""

    def __init__(self) -> None:
        self._pictures: dict[int, np.ndarray] = {}
        self._unlike: dict[tuple[int, int], Unlikeness] = {}
        self._number = 0  # of the frame that is decided next
        self._end = 0  # frames that came
        self._latest = -REACH  # cut

    def take(self, picture: np.ndarray) -> None:
        """Take the small picture of the next frame."""
        self._pictures[self._end] = picture
        self._end += 1

    def cut_comes_next(self) -> bool:
        """Decide of the next frame; those within reach behind it must have come, where there are any."""
        number = self._number
        found = number - self._latest >= REACH and self._cut(number)
        if found:
            self._latest = number
        self._number += 1
        self._pictures.pop(number - REACH - 1, None)
        self._unlike = {pair: value for pair, value in self._unlike.items() if pair[0] >= number - REACH}
        return found

    def _cut(self, number: int) -> bool:
        step = self._pair(number - 1, number)
        if step.in_content < UNLIKE:
            return False
        after = range(number + 1, min(number + REACH, self._end))
        before = range(max(number - REACH, 0), number - 1)
        same = any(self._pair(number - 1, later).in_content < UNLIKE for later in after)
        if same or any(self._pair(earlier, number).in_content < UNLIKE for earlier in before):
            return False
        around = range(max(number - REACH + 1, 1), min(number + REACH, self._end))
        others = [self._pair(other - 1, other).in_all for other in around if other != number]
        return sum(APART * other > step.in_all for other in others) < BUSY

    def _pair(self, first: int, second: int) -> Unlikeness:
        if first < 0:
            return Unlikeness(0.0, 0.0)
        if (first, second) not in self._unlike:
            self._unlike[first, second] = unlikeness(self._pictures[first], self._pictures[second])
        return self._unlike[first, second]


class Unlikeness(NamedTuple):
    """What of a picture is not in another: 0 where all is, about 1 between two shots."""

    in_all: float
    in_content: float  # whatever the light


def unlikeness(first: np.ndarray, second: np.ndarray) -> Unlikeness:
    """Measure what of the second picture is not in the first."""
    if float(np.abs(first - second).mean()) < DIFFERENT:
        return Unlikeness(0.0, 0.0)
    least = min(_contrast(first), _contrast(second))
    contrast = max(least, LEAST_CONTRAST)
    plain = _unexplained(first, second)
    if plain < UNLIKE * contrast or least < FLAT:  # anything can be made as flat
        return Unlikeness(plain / contrast, plain / contrast)
    matched = _unexplained(_as_bright(first, second), second)
    return Unlikeness(plain / contrast, min(plain, matched) / contrast)


def _contrast(picture: np.ndarray) -> float:
    return float(np.abs(picture - picture.mean(axis=(1, 2), keepdims=True)).mean())


def _as_bright(picture: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Give a picture the brightness and contrast of another, within reason."""
    gain = np.clip(like[0].std() / picture[0].std(), 1 / 3, 3)
    matched: np.ndarray = (picture - 128) * gain + 128  # colours fade with the light
    matched[0] += like[0].mean() - matched[0].mean()
    return matched


def _unexplained(first: np.ndarray, second: np.ndarray) -> float:
    """Average the differences of the second picture's blocks from what is most like them nearby in the first."""
    padded = np.pad(
        first, ((0, 0), (HIGH, HIGH), (FAR, FAR)), constant_values=1e4
    )  # nothing comes from outside
    moved = sliding_window_view(padded, second.shape[1:], axis=(1, 2))
    difference = np.abs(moved - second[:, None, None]).mean(axis=0)
    places = difference.shape[:2]
    blocks = difference.reshape(*places, HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK).mean(axis=(3, 5))
    return float(blocks.min(axis=(0, 1)).mean())
