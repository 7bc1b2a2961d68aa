"""Clips that need no decoder: motion-shapes and scenes are rendered where they are used."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from zsar_cli.video.pool import Clip, ClipRequest
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.times import VideoInfo
from zsar_cli.video.transforms import Preprocess, resize_and_crop

RENDERED = ("motion-shapes:", "scenes:")


def is_rendered(path: str) -> bool:
    """Tell whether the path names a rendered clip and not something on disk."""
    return path.startswith(RENDERED)


def renderer(path: str) -> ModuleType:
    """Find the module that renders a clip: its ``render``, ``SIZE``, ``SECONDS`` and ``FRAMES_PER_SECOND``."""
    if path.startswith("scenes:"):
        from zsar_cli.data.scenes import render

        return render
    from zsar_cli.data import motion_shapes

    return motion_shapes


def rendered_id(path: str) -> tuple[str, str, int]:
    """Take ``SET:SPLIT/LABEL/INDEX`` apart: split, label and index."""
    split, rest = path.split(":", 1)[1].split("/", 1)
    label, index = rest.rsplit("/", 1)
    return split, label, int(index)


def render_request(request: ClipRequest) -> Clip | None:
    """Render the clip that a request names; None for what must be decoded."""
    if not is_rendered(request.path):
        return None
    return load_rendered_clip(request.path, request.sampling, request.preprocess, request.crops)


def load_rendered_clip(path: str, sampling: Sampling, preprocess: Preprocess, crops: int = 1) -> Clip:
    """Render the clip ``SET:SPLIT/LABEL/INDEX``, in the form that the decode workers give those of files."""
    kind = renderer(path)
    count = int(kind.SECONDS * kind.FRAMES_PER_SECOND)
    frames = _render(path, sampling)
    indices = view_indices(count, sampling, rate=kind.FRAMES_PER_SECOND)
    views = frames.reshape(sampling.views, sampling.frames, *frames.shape[1:])
    pixels = resize_and_crop(views, preprocess, crops=crops)  # several crops come first
    if crops > 1:
        pixels = pixels.swapaxes(0, 1).reshape(sampling.views * crops, sampling.frames, *pixels.shape[-3:])
    info = VideoInfo(kind.SECONDS, kind.SIZE, kind.SIZE, count, float(kind.FRAMES_PER_SECOND))
    return Clip(pixels, indices, indices / kind.FRAMES_PER_SECOND, info)


def _render(path: str, sampling: Sampling) -> np.ndarray:
    kind = renderer(path)
    split, label, index = rendered_id(path)
    whole = sampling.seconds is None or sampling.seconds >= kind.SECONDS
    if sampling.views == 1 and sampling.way == "segments" and whole:
        frames: np.ndarray = kind.render(label, index, split=split, frames=sampling.frames)
        return frames
    count = int(kind.SECONDS * kind.FRAMES_PER_SECOND)
    times = (view_indices(count, sampling, rate=kind.FRAMES_PER_SECOND).reshape(-1) + 0.5) / count
    frames = kind.render(label, index, split=split, times=times)
    return frames
