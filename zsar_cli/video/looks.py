"""Frames as the model sees them, and beside them the same part of the picture at a size for people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zsar_cli.video.transforms import Preprocess, resize_and_crop

LOOK = 192  # pixels of the shorter side; a model that sees more is shown what it sees


def look_size(preprocess: Preprocess, height: int, width: int, look: int = LOOK) -> tuple[int, int] | None:
    """Choose height and width of frames for people, of a video of this size; None where the model's own will do.

    Never more than the video itself has.
    """
    rows, columns = preprocess.size
    factor = min(look / min(rows, columns), min(height / rows, width / columns))
    return (round(rows * factor), round(columns * factor)) if factor > 1 else None


class Cropper:
    """Resizes each frame twice, and packs both into one array: for :func:`zsar_cli.video.decode.read_frames`.

    Args:
        look: whether frames for people are wanted besides.
    """

    def __init__(self, preprocess: Preprocess, crops: int = 1, look: bool = False) -> None:
        self.preprocess, self.crops, self.look = preprocess, crops, look
        self._larger: Preprocess | None = None
        self._seen = False

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Pack a frame (H, W, 3) as (crops, h, w, 3); with ``look``, all bytes of that and of the centre in large."""
        small = resize_and_crop(frame[None], self.preprocess, crops=self.crops)
        small = small.reshape(self.crops, *self.preprocess.size, 3)
        if not self.look:
            return small
        if not self._seen:  # a stream may change its size half way; the first frame decides
            size = look_size(self.preprocess, *frame.shape[:2])
            self._larger = None if size is None else replace(self.preprocess, size=size)
            self._seen = True
        if self._larger is None:
            return small.reshape(-1)
        large = resize_and_crop(frame[None], self._larger, crops=self.crops)
        large = large.reshape(self.crops, *self._larger.size, 3)[self.crops // 2]
        return np.concatenate([small.reshape(-1), large.reshape(-1)])

    def split(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Unpack n frames: (n, crops, h, w, 3), and (n, H, W, 3) for people or None."""
        shape = (len(packed), self.crops, *self.preprocess.size, 3)
        if not self.look:
            return packed.reshape(shape), None
        count = int(np.prod(shape[1:]))
        small = np.ascontiguousarray(packed[:, :count]).reshape(shape)
        if self._larger is None:
            return small, None
        return small, np.ascontiguousarray(packed[:, count:]).reshape(len(packed), *self._larger.size, 3)
