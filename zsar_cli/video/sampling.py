"""Which frames of a video the model sees. Pure functions of the frame count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """``views`` clips of ``frames`` frames each."""

    frames: int = 8
    views: int = 1

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


def view_indices(
    frame_count: int, sampling: Sampling, *, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Choose the frames of every view.

    Without ``rng`` the views interleave: view v takes the v-th of V places inside each segment, so that no two repeat
    each other needlessly. With it, each view is drawn on its own.

    Returns:
        (views, frames) int64, each row sorted.
    """
    frames, views = sampling.frames, sampling.views
    if rng is not None:
        return np.stack([segment_indices(frame_count, frames, rng=rng) for _ in range(views)])
    return np.ascontiguousarray(segment_indices(frame_count, frames * views).reshape(frames, views).T)
