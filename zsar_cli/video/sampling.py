"""Which frames of a video the model sees. Pure functions of the frame count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Way: TypeAlias = Literal["segments", "ticks", "spans", "steps", "ends"]


@dataclass(frozen=True)
class Sampling:
    """``views`` clips of ``frames`` frames each, chosen as ``way`` says; see :func:`view_indices`.

    ``seconds``: of a longer video, segments are those of a window that long; None: of the whole video.
    """

    frames: int = 8
    views: int = 1
    way: Way = "segments"
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse a number below 1."""
        if self.frames < 1 or self.views < 1:
            raise ValueError("frames and views must each be at least 1")


def segment_indices(frame_count: int, frames: int, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """Take one frame from each of ``frames`` equal segments (TSN): its centre, or a random one with ``rng``.

    Returns:
        (frames,) int64, sorted. A video with fewer frames than asked for repeats some.

    Raises:
        ValueError: the video has no frame.
    """
    if frame_count < 1:
        raise ValueError("a video without frames cannot be sampled")
    step = np.arange(frames, dtype=np.int64)
    if rng is None:
        return (2 * step + 1) * frame_count // (2 * frames)
    first = step * frame_count // frames
    end = np.maximum((step + 1) * frame_count // frames, first + 1)
    return rng.integers(first, end)


def tick_indices(frame_count: int, frames: int, views: int) -> np.ndarray:
    """Take every N/T-th frame: ``floor(s_v + i N/T)``, with the view starts ``s_v = floor(linspace(0, N/T - 1, V))``.

    As MoTE, BIKE and Text4Vis test (``_get_test_indices`` in MoTE's ``datasets/video.py``).

    Returns:
        (views, frames), not yet cut to the video.
    """
    tick = frame_count / frames
    starts = np.floor(np.linspace(0, max(tick - 1, 0), views))
    found: np.ndarray = np.floor(starts[:, None] + tick * np.arange(frames))
    return found


def span_indices(frame_count: int, frames: int, views: int, rate: float) -> np.ndarray:
    """Take T frames over ``L = T * 16/30 * rate`` frames: ``floor(linspace(s_v, s_v + L - 1, T))``.

    The starts are ``s_v = v * floor(max(N - L, 0) / (V - 1))``, or the middle one of a single view. A clip that is
    longer than the video repeats the last frame. As Open-VCLIP and FROSTER test, with SlowFast's loader
    (``get_start_end_idx`` and ``temporal_sampling``, offset sampling): 16 frames apart at 30 a second.

    Args:
        rate: frames a second.

    Returns:
        (views, frames), not yet cut to the video.
    """
    length = max(frames * 16 / 30 * rate, 1.0)
    room = max(frame_count - length, 0.0)
    starts = (
        np.arange(views) * math.floor(room / (views - 1)) if views > 1 else np.array([math.floor(room / 2)])
    )
    return np.floor(np.linspace(starts, starts + length - 1, frames, axis=-1))


def step_indices(frame_count: int, frames: int) -> np.ndarray:
    """Take every ``N // T``-th frame from the first, as ViCLIP does. Returns (frames,), not yet cut to the video."""
    return np.arange(frames) * max(frame_count // frames, 1)


def end_indices(frame_count: int, frames: int) -> np.ndarray:
    """Take T frames from the first to the last, ``floor(i (N - 1) / (T - 1))``, as PE-Core does. Returns (frames,)."""
    return np.arange(frames) * (frame_count - 1) // max(frames - 1, 1)


def window_starts(room: int, views: int, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """Place windows that have ``room`` frames to spare: evenly, one in the middle, or with ``rng`` anywhere.

    Returns:
        (views,) int64.
    """
    even = np.linspace(0, room, views) if views > 1 else np.array([room / 2])
    places = even if rng is None else rng.integers(room + 1, size=views)
    return np.floor(places).astype(np.int64)


def view_indices(
    frame_count: int, sampling: Sampling, *, rng: np.random.Generator | None = None, rate: float = 30.0
) -> np.ndarray:
    """Choose the frames of every view.

    In segments, without ``rng`` the views interleave: view v takes the v-th of V places inside each segment, so that
    no two repeat each other needlessly. With it, each view is drawn on its own. One view in segments is what
    X-CLIP, ViFi-CLIP, OST, MAXI and TC-CLIP test with, ``floor(i N/T + N/2T)``; several they draw by chance.
    With ``sampling.seconds``, a view of a longer video is a window of it: the middle one, several evenly spaced, or
    with ``rng`` any.

    The other ways are those of published models: :func:`tick_indices`, :func:`span_indices`, and with the same frames
    in every view :func:`step_indices` and :func:`end_indices`.

    Args:
        rate: frames a second, for spans and windows.

    Returns:
        (views, frames) int64, each row sorted.

    Raises:
        ValueError: the video has no frame.
    """
    if frame_count < 1:
        raise ValueError("a video without frames cannot be sampled")
    frames, views = sampling.frames, sampling.views
    length = frame_count if sampling.seconds is None else max(round(sampling.seconds * rate), 1)
    if length < frame_count and (rng is not None or sampling.way == "segments"):
        starts = window_starts(frame_count - length, views, rng=rng)
        return np.stack([start + segment_indices(length, frames, rng=rng) for start in starts])
    if rng is not None:
        return np.stack([segment_indices(frame_count, frames, rng=rng) for _ in range(views)])
    if sampling.way == "segments":
        return np.ascontiguousarray(segment_indices(frame_count, frames * views).reshape(frames, views).T)
    if sampling.way == "ticks":
        found = tick_indices(frame_count, frames, views)
    elif sampling.way == "spans":
        found = span_indices(frame_count, frames, views, rate)
    else:
        one = (step_indices if sampling.way == "steps" else end_indices)(frame_count, frames)
        found = np.broadcast_to(one, (views, frames))
    inside: np.ndarray = np.clip(found, 0, frame_count - 1).astype(np.int64)
    return inside
