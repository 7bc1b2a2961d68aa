"""Which frames of a video the model sees. Pure functions of the frame count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """``views`` clips of ``frames`` frames; ``stride`` is the step between neighbours in ``dense`` mode."""

    frames: int = 8
    views: int = 1
    mode: Literal["segments", "dense"] = "segments"
    stride: int = 4

    def __post_init__(self) -> None:
        if self.frames < 1 or self.views < 1 or self.stride < 1:
            raise ValueError("frames, views and stride must each be at least 1")
        if self.mode not in ("segments", "dense"):
            raise ValueError(f"sampling mode must be 'segments' or 'dense', not {self.mode!r}")


def segment_indices(frame_count: int, frames: int, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """One frame from each of ``frames`` equal segments (TSN): its centre, or a random one with ``rng``.

    Returns (frames,) int64, sorted. A video with fewer frames than asked for repeats some.
    """
    _check_count(frame_count)
    step = np.arange(frames, dtype=np.int64)
    if rng is None:
        return (2 * step + 1) * frame_count // (2 * frames)
    first = step * frame_count // frames
    end = np.maximum((step + 1) * frame_count // frames, first + 1)
    return rng.integers(first, end)


def dense_indices(
    frame_count: int,
    frames: int,
    stride: int,
    *,
    rng: np.random.Generator | None = None,
    start: int | None = None,
) -> np.ndarray:
    """``frames`` frames, ``stride`` apart, from ``start`` (default: centred, or a random place with ``rng``).

    Returns (frames,) int64, sorted. Where the video is shorter than the span, the step shrinks to fit it.
    """
    _check_count(frame_count)
    span = min((frames - 1) * stride + 1, frame_count)
    latest = frame_count - span
    if start is None:
        start = latest // 2 if rng is None else int(rng.integers(0, latest + 1))
    start = min(max(start, 0), latest)
    return start + np.arange(frames, dtype=np.int64) * (span - 1) // max(frames - 1, 1)


def view_indices(
    frame_count: int, sampling: Sampling, *, rng: np.random.Generator | None = None
) -> np.ndarray:
    """The indices of every temporal view, (views, frames) int64, each row sorted.

    Without ``rng`` the views interleave (segments: view v takes the v-th of V places inside each segment) or
    are spread evenly from the first to the last possible start (dense), so that no two repeat each other
    needlessly. With it, each view is drawn on its own.
    """
    frames, views = sampling.frames, sampling.views
    if rng is not None:
        if sampling.mode == "dense":
            rows = [dense_indices(frame_count, frames, sampling.stride, rng=rng) for _ in range(views)]
        else:
            rows = [segment_indices(frame_count, frames, rng=rng) for _ in range(views)]
        return np.stack(rows)
    if sampling.mode == "segments":
        return np.ascontiguousarray(segment_indices(frame_count, frames * views).reshape(frames, views).T)
    if views == 1:
        return dense_indices(frame_count, frames, sampling.stride)[None]
    latest = max(frame_count - (frames - 1) * sampling.stride - 1, 0)
    starts = [view * latest // (views - 1) for view in range(views)]
    return np.stack([dense_indices(frame_count, frames, sampling.stride, start=start) for start in starts])


def _check_count(frame_count: int) -> None:
    if frame_count < 1:
        raise ValueError("a video without frames cannot be sampled")
