"""Camera movement by classical optical flow: tracked corners, a similarity transform by RANSAC, and thresholds.

The baseline of ``benchmarks.camera``. It needs opencv-python-headless (``pip install 'zsar-cli[bench]'``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Of a clip of some 2 s; set by hand before they were tried on any footage, and left so
SHIFT, ZOOM, ROLL, SHAKE = 0.06, 0.06, 3.0, 0.08
FEWEST = 8  # corners that a transform is fitted to


@dataclass(frozen=True)
class Movement:
    """What the picture did over a clip: shift as a share of its width, log of scale, degrees clockwise."""

    right: float
    down: float
    zoom: float
    clockwise: float
    shake: float  # length of the way there and back, beyond the shift


def movement(frames: np.ndarray) -> Movement:
    """Follow corners through the frames of a clip (T, H, W, 3) uint8."""
    import cv2

    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    height, width = grey[0].shape
    centre = np.array([width / 2, height / 2, 1])
    steps = []
    for before, after in pairwise(grey):
        corners = cv2.goodFeaturesToTrack(before, 300, 0.01, 5)
        transform = None
        if corners is not None and len(corners) >= FEWEST:
            moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None)
            kept = found.ravel() == 1
            if kept.sum() >= FEWEST:
                transform, _ = cv2.estimateAffinePartial2D(corners[kept], moved[kept], method=cv2.RANSAC)
        if transform is None:
            steps.append(np.zeros(4))
            continue
        shift = (transform @ centre - centre[:2]) / width
        scale, turn = np.hypot(*transform[:, 0]), np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))
        steps.append(np.array([*shift, np.log(scale), turn]))
    way = np.array(steps).reshape(-1, 4)
    right, down, zoom, clockwise = way.sum(axis=0)
    there_and_back = np.hypot(way[:, 0], way[:, 1]).sum() - np.hypot(right, down)
    return Movement(right, down, zoom, clockwise, float(there_and_back))


def name(found: Movement) -> str:
    """Name a movement by the label of ``camera`` whose threshold it exceeds most: what is seen moves the other way."""
    by_label = {
        "the camera pans left": found.right / SHIFT,
        "the camera pans right": -found.right / SHIFT,
        "the camera tilts up": found.down / SHIFT,
        "the camera tilts down": -found.down / SHIFT,
        "the camera zooms in": found.zoom / ZOOM,
        "the camera zooms out": -found.zoom / ZOOM,
        "the camera rolls clockwise": -found.clockwise / ROLL,
        "the camera rolls counterclockwise": found.clockwise / ROLL,
        "the camera shakes": found.shake / SHAKE,
    }
    best = max(by_label, key=lambda label: by_label[label])
    return best if by_label[best] > 1 else "a static shot"
