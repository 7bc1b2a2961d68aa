"""The colours of heat maps over frames in grey."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zsar_cli.plots import BLUE, VERMILION

STRONGEST = 1.0  # motion that has the strongest colour


def paint_label(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour a frame (H, W, 3) in grey: orange where ``heat`` (rows, columns) is for the label, blue where against it.

    Heat of 1 has the strongest colour. Each patch is averaged with its neighbours: single ones say little.
    """
    strength = np.clip(_as_large(_smooth(heat), frame), -1, 1)[..., None]
    colour = np.where(strength > 0, _rgb(VERMILION), _rgb(BLUE))
    return _blend(frame, colour, np.abs(strength) * 0.9)


def _smooth(heat: np.ndarray) -> np.ndarray:
    """Smooth by the weights 1, 2, 1 down and across."""
    padded = np.pad(heat, 1, mode="edge")
    down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth: np.ndarray = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 16
    return smooth


def paint_motion(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour a frame (H, W, 3) in grey by ``heat`` (rows, columns), in matplotlib's inferno."""
    from matplotlib import colormaps

    strength = np.clip(_as_large(heat / STRONGEST, frame), 0, 1)
    return _blend(frame, colormaps["inferno"](strength)[..., :3] * 255, 0.8 * strength[..., None])


def _as_large(values: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Resize a map to the size of a frame; its patches stay visible."""
    size = (frame.shape[1], frame.shape[0])
    image = Image.fromarray(np.nan_to_num(values).astype(np.float32)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(image)


def _blend(frame: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    grey = frame.mean(axis=-1, keepdims=True) * 0.7 + 55
    mixed: np.ndarray = grey * (1 - share) + colour * share
    return mixed.clip(0, 255).astype(np.uint8)


def _rgb(name: str) -> np.ndarray:
    return np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)], float)
