"""Clips that need no decoder: rendered motion-shapes, and folders of frame images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from zsar_cli.errors import VideoError
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.transforms import Preprocess, resize_and_crop

RENDERED = "motion-shapes:"
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def needs_worker(path: str) -> bool:
    """Whether the path is a video file, to be decoded where a crash does no harm."""
    return not path.startswith(RENDERED) and not Path(path).is_dir()


def load_local_clip(path: str, sampling: Sampling, preprocess: Preprocess, crops: int = 1) -> np.ndarray:
    """Pixels (views * crops, T, h, w, 3) uint8 of a rendered clip or a folder of frames. Raises VideoError."""
    frames = _render(path, sampling) if path.startswith(RENDERED) else _read_folder(Path(path), sampling)
    views = frames.reshape(sampling.views, sampling.frames, *frames.shape[1:])
    pixels = resize_and_crop(views, preprocess, crops=crops)  # several crops come first
    if crops == 1:
        return pixels
    return pixels.swapaxes(0, 1).reshape(sampling.views * crops, sampling.frames, *pixels.shape[-3:])


def _render(path: str, sampling: Sampling) -> np.ndarray:
    from zsar_cli.data import motion_shapes

    split, rest = path[len(RENDERED) :].split("/", 1)
    label, index = rest.rsplit("/", 1)
    if sampling.views == 1:
        return motion_shapes.render(label, int(index), split=split, frames=sampling.frames)
    count = int(motion_shapes.SECONDS * motion_shapes.FRAMES_PER_SECOND)
    times = (view_indices(count, sampling).reshape(-1) + 0.5) / count
    return motion_shapes.render(label, int(index), split=split, times=times)


def _read_folder(folder: Path, sampling: Sampling) -> np.ndarray:
    """The sampled frames of ``img_00001.jpg``, ...; in the order of the numbers in their names."""
    names = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGES]
    if not names:
        raise VideoError("no_video", f"{folder} holds no frame images.")
    names.sort(key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)])
    frames = []
    for index in view_indices(len(names), sampling).reshape(-1):
        try:
            with Image.open(names[index]) as image:
                frames.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError) as error:
            raise VideoError("unreadable", f"{names[index]} cannot be read: {error}") from error
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError("unreadable", f"The frames of {folder} differ in size.")
    return np.stack(frames)
