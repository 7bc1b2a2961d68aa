"""Which frames of a video the model sees. Pure functions of the frame count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """``views`` clips of ``frames`` frames each, chosen as ``way`` says; see :func:`view_indices`."""

    frames: int = 8
    views: int = 1
    way: Literal["segments", "ticks", "spans", "steps"] = "segments"

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


SPAN = 16 / 30  # s from one frame to the next, of clips that span a time and not a video


def view_indices(
    frame_count: int, sampling: Sampling, *, rng: np.random.Generator | None = None, rate: float = 30.0
) -> np.ndarray:
    """Choose the frames of every view.

    In segments, without ``rng`` the views interleave: view v takes the v-th of V places inside each segment, so that
    no two repeat each other needlessly. With it, each view is drawn on its own.

    The other ways are those of published models (``assets/families.yaml``). ``ticks``: frame ``floor(start + i N/T)``,
    with V starts from 0 to ``N/T - 1``. ``spans``: T frames evenly in ``16 T / 30`` s, with V starts spread over the
    video. ``steps``: every ``N // T``-th frame from the first.

    Args:
        rate: frames a second, for spans.

    Returns:
        (views, frames) int64, each row sorted.
    """
    frames, views = sampling.frames, sampling.views
    if rng is not None:
        return np.stack([segment_indices(frame_count, frames, rng=rng) for _ in range(views)])
    if sampling.way != "segments":
        return _published_indices(frame_count, sampling, rate)
    return np.ascontiguousarray(segment_indices(frame_count, frames * views).reshape(frames, views).T)


def _published_indices(count: int, sampling: Sampling, rate: float) -> np.ndarray:
    frames, views = sampling.frames, sampling.views
    step = np.arange(frames)
    if count < 1:
        raise ValueError("a video without frames cannot be sampled")
    if sampling.way == "ticks":
        tick = count / frames
        starts = (
            np.linspace(0, max(tick - 1, 0), views).astype(np.int64) if views > 1 else np.array([tick / 2])
        )
        found = np.floor(starts[:, None] + tick * step)
    elif sampling.way == "spans":
        span = min(max(frames * SPAN * rate, 1.0), float(count))
        starts = (count - span) * (np.arange(views) / (views - 1) if views > 1 else np.array([0.5]))
        found = np.floor(starts[:, None] + np.linspace(0, span - 1, frames))
    else:
        found = np.broadcast_to(step * max(count // frames, 1), (views, frames))
    return np.clip(found, 0, count - 1).astype(np.int64)
