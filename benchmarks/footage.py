"""Clips of motion-shapes that look filmed: the motions of a class over pebbles, with light, shadows, blur and grain.

What the bundled model says of them is for it to say; :mod:`benchmarks.pictures` shows clips that it is right about.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageFilter

from zsar_cli.data import motion_shapes

HEIGHT = 288
RATE, SECONDS = 24, 2.0
LIGHT = np.array([-0.5, -0.6])  # where it comes from


@cache
def pebbles(seed: int, size: int = 1536) -> np.ndarray:
    """A picture (size, size, 3) in 0 to 1 of pebbles that lie over each other: dead leaves (Lee et al. 2001), lit."""
    rng = np.random.default_rng(seed)
    stone = rng.uniform([0.36, 0.33, 0.30], [0.52, 0.49, 0.45])
    picture = np.tile(stone * 0.6, (size, size, 1))
    axis = np.arange(size)
    for radius in np.sort((rng.uniform(size=2600) ** -0.6).clip(1, 9) * 9)[::-1]:
        x, y = rng.uniform(0, size, 2)
        flat = rng.uniform(0.7, 1.0)
        left, right = int(max(x - radius, 0)), int(min(x + radius + 2, size))
        top, bottom = int(max(y - radius, 0)), int(min(y + radius + 2, size))
        dx = (axis[None, left:right] - x) / radius
        dy = (axis[top:bottom, None] - y) / (radius * flat)
        inside = dx**2 + dy**2
        bulge = np.clip(1.0 - 0.25 * inside + 0.3 * (LIGHT[0] * dx + LIGHT[1] * dy), 0.3, 1.5)
        colour = stone * rng.uniform(0.75, 1.25) + rng.uniform(-0.03, 0.03, 3)
        part = picture[top:bottom, left:right]
        cover = np.clip((1 - inside) * radius / 3, 0, 1)[..., None]
        part += cover * (bulge[..., None] * colour - part)
    return picture.astype(np.float32).clip(0, 1)


def film(label: str, seed: int, height: int = HEIGHT) -> np.ndarray:
    """A clip (T, H, 4/3 H, 3) uint8 of a class of motion-shapes; ``label`` and ``seed`` decide everything in it."""
    width = height * 4 // 3
    rng = np.random.default_rng([len(label), *label.encode(), seed])
    kind = motion_shapes.find_class(label)
    count = int(RATE * SECONDS)
    t = ((np.arange(count) + 0.5) / count).astype(np.float32)
    speed = np.float32(rng.uniform(0.9, 1.1))
    half = height / 2
    across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / half
    down = (np.arange(height, dtype=np.float32) + 0.5 - half) / half
    screen_y, screen_x = np.meshgrid(down, across, indexing="ij")
    pan_x, pan_y, zoom = motion_shapes._camera(kind.second, t, speed, rng)
    bodies = motion_shapes._bodies(kind, t, speed, motion_shapes.PLAIN, rng)
    ground = pebbles(seed % 3)
    paint = rng.uniform(0.9, 1.1, 3).astype(np.float32)
    x = screen_x[None] * zoom[:, None, None] + pan_x[:, None, None]
    y = screen_y[None] * zoom[:, None, None] + pan_y[:, None, None]
    pixel = np.full((count, 1, 1), 2 / height, np.float32)
    lit = (0.85 + 0.2 * (LIGHT[0] * screen_x + LIGHT[1] * screen_y)).astype(np.float32)[..., None]
    clip = np.stack([_sample(ground, *where) for where in zip(x, y, strict=True)]) * paint
    for body in bodies:
        shadow, _ = body(x - 0.05, y - 0.06, pixel * 14)
        cover, colour = body(x, y, pixel * 1.5)
        for moment, picture in enumerate(clip):
            own = colour if colour.ndim == 1 else colour[moment]
            grain = _sample(ground, x[moment] * 0.3 + 0.7, y[moment] * 0.3)[..., :1] - 0.4
            picture *= 1 - 0.5 * shadow[moment][..., None]
            picture += cover[moment][..., None] * ((0.12 + 0.76 * own) * lit + 0.25 * grain - picture)
    clip += rng.normal(0, 0.015, (*clip.shape[:3], 1)).astype(np.float32)
    lens = (1 - 0.12 * (screen_x**2 + screen_y**2)).astype(np.float32)[..., None]
    done = (clip * lens * 255).clip(0, 255).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(0.6))) for f in done])


def _sample(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A picture at world coordinates (H, W); it reaches from -3 to 3 and repeats."""
    size = len(picture)
    u, v = (x + 3) / 6 * size, (y + 3) / 6 * size
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    du, dv = (u - left)[..., None], (v - top)[..., None]
    left, right, top, bottom = left % size, (left + 1) % size, top % size, (top + 1) % size
    upper = picture[top, left] * (1 - du) + picture[top, right] * du
    lower = picture[bottom, left] * (1 - du) + picture[bottom, right] * du
    return (upper * (1 - dv) + lower * dv).astype(np.float32)


def write(path: Path, frames: np.ndarray) -> Path:
    """Frames as an H.264 video."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for pixels in frames:
            output.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
            )
        output.mux(stream.encode(None))
    return path
