"""Twins: the scenes of a batch once more, changed so that their labels change and most of what they show does not."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np

from zsar_cli.data.scenes.classes import changed_label, other_cameras
from zsar_cli.data.scenes.render import render


@dataclass(frozen=True)
class Twin:
    """How a scene is changed: mirrored, backwards or both, or filmed by a camera that moves otherwise."""

    label: str  # of the changed scene
    mirrored: bool = False
    backwards: bool = False
    filmed: bool = False

    def of(self, clip: np.ndarray, label: str, index: int, shown: dict[str, Any]) -> np.ndarray:
        """Make it of a clip (T, H, W, 3) of that label and index, which was rendered as ``shown``."""
        if self.filmed:
            return render(label, index, filmed=self.label, **shown)
        return clip[:: -1 if self.backwards else 1, :, :: -1 if self.mirrored else 1]


def draw_twin(label: str, seed: int, classes: Container[str]) -> Twin:
    """Draw how a scene of that label is changed, so that its class is one of training's: in half of them, the camera.

    A mirror image tells left from right. The same scene under another camera tells the camera from what moves in it.
    """
    if seed % 2:
        others = [other for other in other_cameras(label) if other in classes]
        if others:
            return Twin(str(np.random.default_rng([seed, 2]).choice(others)), filmed=True)
    ways = [(True, False), (False, True), (True, True)]
    twins = [Twin(changed_label(label, mirrored=m, backwards=b), m, b) for m, b in ways]
    known = [twin for twin in twins if twin.label in classes] or [Twin(label)]
    return known[seed // 2 % len(known)]
