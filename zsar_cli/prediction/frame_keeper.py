"""Some frames of a video of any length, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zsar_cli.prediction.records import Shown
from zsar_cli.video.grid import GridChunk


@dataclass
class FrameKeeper:
    """Some frames of a video of any length, evenly spread: every k-th; k doubles when there are too many."""

    most: int = 48
    every: int = 1
    step: float = 0.0  # s from tick to tick
    kept: list[tuple[int, float, np.ndarray]] = field(default_factory=list)  # (tick, s, frame)

    def take(self, chunk: GridChunk) -> None:
        """Look at the next frames, in order."""
        frames = chunk.pixels if chunk.look is None else chunk.look
        self.step = self.step or chunk.step
        for own, frame in zip(chunk.ticks.tolist(), frames, strict=True):
            time = chunk.start + (own + 0.5) * chunk.step
            tick = int(time / self.step)  # of the video, whose shots have ticks of their own
            if self.kept and tick // self.every == self.kept[-1][0] // self.every:
                continue
            self.kept.append((tick, chunk.info.start + time, frame.copy()))
            while len(self.kept) > self.most:
                self.every *= 2
                self.kept = [
                    first
                    for first, before in zip(self.kept, [None, *self.kept], strict=False)
                    if before is None or first[0] // self.every != before[0] // self.every
                ]

    def shown(self) -> Shown | None:
        """Return what was kept."""
        if not self.kept:
            return None
        return Shown(
            np.stack([frame for _, _, frame in self.kept]), np.array([time for _, time, _ in self.kept])
        )
