"""Frames of a long video on a regular grid of times, and which of them each sliding window sees.

A window of W seconds shows T frames to the model, so the grid's step is W / T and its ticks are the middles of
the steps. A window is T ticks in a row: neighbouring windows share frames, and each is decoded once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.video.decode import iter_frames, planned_info
from zsar_cli.video.frames import DecodedVideo
from zsar_cli.video.images import IMAGE_RATE, ImageSequence
from zsar_cli.video.looks import Cropper
from zsar_cli.video.times import VideoInfo
from zsar_cli.video.transforms import Preprocess

CHUNK_FRAMES = 32  # that a chunk holds at most
CHUNK_SECONDS = 60.0  # of video that a chunk spans at most, where a frame does not: --timeout is for each
MOST_TICKS = 2**50  # whole numbers that floats still tell apart, with room to reckon


@dataclass(frozen=True)
class GridRequest:
    """A long video's frames for windows of ``window`` s and ``frames`` frames each."""

    path: str | ImageSequence
    window: float
    frames: int = 8
    preprocess: Preprocess = field(default_factory=Preprocess)
    image_rate: float = IMAGE_RATE  # frames a second of a folder of images
    look: bool = False  # whether frames are wanted at a size for people besides
    shots: bool = False  # whether windows lie inside shots: a grid for each
    threads: int = 1  # that decode


@dataclass
class GridChunk:
    """Frames of a shot in order. A tick shows the frame with the highest tick number that is not above it."""

    pixels: np.ndarray  # (n, h, w, 3) uint8
    ticks: np.ndarray  # (n,) int64, rising
    step: float  # s between ticks
    indices: np.ndarray  # (n,) which frames of the file these are
    info: VideoInfo
    warning: str | None = None
    look: np.ndarray | None = None  # (n, H, W, 3), where it was wanted and is larger than ``pixels``
    start: float = 0.0  # s from the video's first frame to the shot's, with which its ticks begin


def load_grid(request: GridRequest) -> Iterator[GridChunk]:
    """Decode a video once, in sequence. One shorter than a window, and a shot, gets a window of its own length.

    Raises:
        VideoError: the file cannot be read, or its time stamps make no sense.
    """
    planned = planned_info(request.path, image_rate=request.image_rate)
    step = min(request.window, planned.duration) / request.frames
    # NaN is none of these
    if not (planned.duration > 0 and planned.fps > 0 and step > 0 and planned.duration / step < MOST_TICKS):
        raise VideoError(
            "unreadable",
            "the time stamps of this video make no sense; it is damaged, or --window is far too short",
        )
    frame = planned.interval or 1 / planned.fps  # the mean says nothing of a video with long gaps
    # Time stamps may crowd at the start of what the last frame's length makes of the duration
    first = min(first_tick(step, frame), (planned.frame_count - 1) / planned.fps)
    cropper = Cropper(request.preprocess, look=request.look)
    opening = min(step * request.frames, CHUNK_SECONDS) if request.shots else None
    parts = iter_frames(
        request.path,
        rate=1 / step,
        first=first,
        resize=cropper,
        chunk=max(1, min(CHUNK_FRAMES, int(CHUNK_SECONDS / step))),
        image_rate=request.image_rate,
        opening=opening,
        threads=request.threads,
    )
    empty = True
    for chunk in grid_chunks(parts, cropper, step, first, opening, frame):
        yield chunk
        empty = False
    if empty:
        raise VideoError("unreadable", "too few frames of this video could be read; it is damaged")


def first_tick(step: float, frame: float) -> float:
    """Say when the first tick is, in s from the first frame: the middle of a step, as seen a frame earlier.

    The frame on show at a tick is the last that began before it; as times are rounded, a hair after will do.
    """
    return step / 2 - frame + min(0.001, frame / 4)


def grid_chunks(
    parts: Iterator[DecodedVideo],
    cropper: Cropper,
    step: float,
    first: float,
    opening: float | None,
    frame: float,
) -> Iterator[GridChunk]:
    """Yield what ``cropper`` made of frames, on the grid of their shot.

    Args:
        parts: frames in order, of one shot each.
        cropper: which resized them.
        step: s between ticks.
        first: when the first tick is, s from the first frame.
        opening: s at the start of a shot in which frames are denser, where cuts were looked for.
        frame: s from one frame to the next.
    """
    whole = _Grid(step, first)
    for part, grid in (
        ((part, whole) for part in parts) if opening is None else _shots(parts, whole, opening, frame)
    ):
        chunk = grid.chunk(part, cropper)
        if chunk is not None:
            yield chunk


def load_info(request: GridRequest) -> Iterator[VideoInfo]:
    """Yield what a video's index promises, once. Raises VideoError where it cannot be read."""
    yield planned_info(request.path, image_rate=request.image_rate)


@dataclass
class _Grid:
    """Ticks ``step`` s apart, the first ``first`` s from the start of a shot."""

    step: float
    first: float
    last: int = -1  # tick that has its frame

    def chunk(self, part: DecodedVideo, cropper: Cropper) -> GridChunk | None:
        """Keep of the next frames the first at or after each tick; None where that is none of them."""
        places = (part.times - part.shot - self.first) / self.step + 1e-6
        ticks = np.floor(np.minimum(places, MOST_TICKS)).astype(np.int64)
        kept = np.flatnonzero(np.diff(np.maximum.accumulate(np.maximum(ticks, self.last)), prepend=self.last))
        if not len(kept):
            return None
        self.last = int(ticks[kept[-1]])
        pixels, look = cropper.split(part.frames[kept])
        numbers, start = part.indices[kept], part.shot
        return GridChunk(pixels[:, 0], ticks[kept], self.step, numbers, part.info, part.warning, look, start)


def _shots(
    parts: Iterator[DecodedVideo], whole: _Grid, opening: float, frame: float
) -> Iterator[tuple[DecodedVideo, _Grid]]:
    """Yield frames with the grid of their shot: one that is over before a window is has a finer one.

    Args:
        parts: of one shot each, denser in the first ``opening`` s of it.
        whole: the grid of a shot that is long enough.
        frame: s from one frame to the next.
    """
    held: list[DecodedVideo] = []  # of a shot of which it is not known yet
    grid: _Grid | None = None

    def short(end: float) -> Iterator[tuple[DecodedVideo, _Grid]]:
        length, step = end - held[0].shot, whole.step
        first = whole.first
        if length < opening * 0.999:
            step *= max(length, frame) / opening
            first = min(first_tick(step, frame), held[-1].times[-1] - held[0].shot)
        own = _Grid(step, first)
        return ((part, own) for part in held)

    shot = 0.0
    for part in parts:
        if part.shot != shot:
            if held:
                yield from short(part.shot)
            held, grid, shot = [], None, part.shot
        if grid is None:
            held.append(part)
            if part.times[-1] - shot < opening:
                continue
            grid = replace(whole)
            yield from ((early, grid) for early in held)
            held = []
        else:
            yield part, grid
    if held:
        yield from short(held[-1].info.duration)


@dataclass(frozen=True)
class Span:
    """Windows in a row that see the same, as one: the first tick of the first, and the end of the last."""

    start: int
    end: int


def spans(
    shown: Sequence[int], number: int, end: int, frames: int, stride: float
) -> Iterator[tuple[int, Span]]:
    """Yield windows, each with the number of the one behind it.

    However long a frame stays on show, the windows that see nothing else are one span: as many spans as the frames
    call for, and not as many as the time stamps, which may be anything.

    Args:
        shown: the ticks at which frames come on show, rising.
        number: of the first window.
        end: the tick by which windows end.
        frames: that a window has.
        stride: in ticks, at least 1.
    """
    while (start := round(number * stride)) + frames <= end:
        place = bisect_right(shown, start)
        until = min(shown[place], end) if place < len(shown) else end
        last = max(number, int((until - frames) / stride))
        while last > number and round(last * stride) + frames > until:
            last -= 1
        number = last + 1
        yield number, Span(start, round(last * stride) + frames)


def last_span(last: Span | None, duration: float, frames: int, step: float) -> Span | None:
    """Find the window that ends with a video of ``duration`` s, where the ``last`` on the grid ends before."""
    total = max(frames, round(duration / step))
    return Span(total - frames, total) if last is None or last.end < total else None


def cells(windows: Sequence[Span]) -> list[tuple[int, int, range]]:
    """Cut time where a window starts or ends: (first tick, end, the windows that cover it), without gaps."""
    starts, ends = [window.start for window in windows], [window.end for window in windows]
    found = []
    for first, end in pairwise(sorted({*starts, *ends})):
        covering = range(bisect_left(ends, end), bisect_right(starts, first))
        if covering:
            found.append((first, end, covering))
    return found
