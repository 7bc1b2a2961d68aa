"""Clips that need no decoder: motion-shapes is rendered where it is used."""

from __future__ import annotations

import numpy as np

from zsar_cli.video.pool import Clip, ClipRequest
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.times import VideoInfo
from zsar_cli.video.transforms import Preprocess, resize_and_crop

RENDERED = "motion-shapes:"


def is_rendered(path: str) -> bool:
    """Tell whether the path names a clip of motion-shapes and not something on disk."""
    return path.startswith(RENDERED)


def render_request(request: ClipRequest) -> Clip | None:
    """Render the clip of motion-shapes that a request names; None for what must be decoded."""
    if not is_rendered(request.path):
        return None
    return load_rendered_clip(request.path, request.sampling, request.preprocess, request.crops)


def load_rendered_clip(path: str, sampling: Sampling, preprocess: Preprocess, crops: int = 1) -> Clip:
    """Render the clip ``motion-shapes:SPLIT/LABEL/INDEX``, in the form that the decode workers give those of files."""
    from zsar_cli.data import motion_shapes

    count = int(motion_shapes.SECONDS * motion_shapes.FRAMES_PER_SECOND)
    frames = _render(path, sampling)
    indices = view_indices(count, sampling, rate=motion_shapes.FRAMES_PER_SECOND)
    views = frames.reshape(sampling.views, sampling.frames, *frames.shape[1:])
    pixels = resize_and_crop(views, preprocess, crops=crops)  # several crops come first
    if crops > 1:
        pixels = pixels.swapaxes(0, 1).reshape(sampling.views * crops, sampling.frames, *pixels.shape[-3:])
    size, rate = motion_shapes.SIZE, float(motion_shapes.FRAMES_PER_SECOND)
    info = VideoInfo(motion_shapes.SECONDS, size, size, count, rate)
    return Clip(pixels, indices, indices / rate, info)


def _render(path: str, sampling: Sampling) -> np.ndarray:
    from zsar_cli.data import motion_shapes

    split, rest = path[len(RENDERED) :].split("/", 1)
    label, index = rest.rsplit("/", 1)
    whole = sampling.seconds is None or sampling.seconds >= motion_shapes.SECONDS
    if sampling.views == 1 and sampling.way == "segments" and whole:
        return motion_shapes.render(label, int(index), split=split, frames=sampling.frames)
    count = int(motion_shapes.SECONDS * motion_shapes.FRAMES_PER_SECOND)
    times = (view_indices(count, sampling, rate=motion_shapes.FRAMES_PER_SECOND).reshape(-1) + 0.5) / count
    return motion_shapes.render(label, int(index), split=split, times=times)
