"""The picture as it is meant to be seen: square pixels, turned upright."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer

MOST_PIXELS = 16384 * 8192  # a frame beyond this is a forged header
LONGEST_PIXEL = 4.0  # a pixel's aspect ratio beyond this, or below its inverse, is a mistake of the file
SKEWED = 0.1  # cosine between a matrix's axes above which it neither turns nor mirrors


@dataclass(frozen=True)
class Turn:
    """One of the 8 symmetries of a picture: rows and columns exchanged, then mirrored, then upside down."""

    swap: bool = False
    mirror: bool = False  # left to right
    flip: bool = False  # top to bottom

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (H, W, 3) to (H, W, 3), or to (W, H, 3) where rows and columns are exchanged."""
        if self == STRAIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.swap else pixels
        return np.ascontiguousarray(turned[:: -1 if self.flip else 1, :: -1 if self.mirror else 1])


STRAIGHT = Turn()
EXIF_TAG = 0x0112
EXIF_TURNS = {  # the tag's value says which way the stored picture lies
    2: Turn(mirror=True),
    3: Turn(mirror=True, flip=True),
    4: Turn(flip=True),
    5: Turn(swap=True),
    6: Turn(swap=True, mirror=True),
    7: Turn(swap=True, mirror=True, flip=True),
    8: Turn(swap=True, flip=True),
}


def turn_of_matrix(matrix: bytes) -> Turn:
    """Find the symmetry nearest to FFmpeg's display matrix (9 int32): x' = a x + c y, y' = b x + d y.

    A matrix that is no rotation or reflection counts as none. Some recorders write one of zeros.
    """
    if len(matrix) < 20:
        return STRAIGHT
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).astype(float)
    across, down = math.hypot(a, b), math.hypot(c, d)
    if min(across, down) <= SKEWED * max(across, down) or abs(a * c + b * d) > SKEWED * across * down:
        return STRAIGHT
    straight, swapped = abs(a) / across + abs(d) / down, abs(b) / across + abs(c) / down
    if math.isclose(straight, swapped):  # half way between two
        return STRAIGHT
    if straight > swapped:
        return Turn(mirror=a < 0, flip=d < 0)
    return Turn(swap=True, mirror=c < 0, flip=b < 0)


def turn_of_frame(frame: Any) -> Turn:
    """Say how PyAV's frame is to be turned. A frame carries what its container or its codec says."""
    # Not frame.side_data: the frame would keep that, and that the frame, until the garbage collector comes by
    matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    return STRAIGHT if matrix is None else turn_of_matrix(bytes(matrix))


def pixel_aspect(ratio: Any) -> float:
    """Give the width over the height of a stored pixel. It is 1 where the file says nothing, or nothing likely."""
    aspect = float(ratio or 1)
    return aspect if 1 / LONGEST_PIXEL <= aspect <= LONGEST_PIXEL else 1.0


def to_rgb(frame: Any, aspect: float = 1.0) -> np.ndarray:
    """Convert PyAV's frame to (H, W, 3) uint8 with square pixels, turned upright. Its height as stored stays."""
    size: dict[str, Any] = {}
    if aspect != 1.0:
        width, height = round(frame.width * aspect), frame.height
        if width * height > MOST_PIXELS:
            width, height = frame.width, round(frame.height / aspect)
        size = {"width": max(width, 1), "height": max(height, 1), "interpolation": "BICUBIC"}
    return turn_of_frame(frame).apply(frame.to_ndarray(format="rgb24", **size))
