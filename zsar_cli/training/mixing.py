"""Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019): clips of two classes, which count for both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from zsar_cli.training.data import Batch
from zsar_cli.training.recipe import Recipe


@dataclass(frozen=True)
class Mix:
    """How the clips of a batch are mixed with those of its mirror image."""

    share: float  # of a clip itself, and of its own class in the loss
    box: tuple[int, int, int, int] | None = None  # top, left, bottom, right: what the other clip covers

    def apply(self, clips: Tensor, others: Tensor) -> Tensor:
        """Mix clips (B, T, 3, h, w) with others, which takes their place in ``clips``."""
        if self.box is None:
            return clips.lerp_(others, 1 - self.share)
        top, left, bottom, right = self.box
        clips[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return clips

    def combine(self, own: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weigh the loss terms for the clips' own classes and for the others'."""
        return {name: own[name].lerp(other[name], 1 - self.share) for name in own}


def draw_mix(recipe: Recipe, step: int, number: int, size: tuple[int, int]) -> Mix | None:
    """Draw how batch ``number`` of a step is mixed; None where the recipe mixes nothing.

    One share a batch, as timm and the published recipes draw it; where there is both, each has an even chance.
    """
    if not (recipe.mixup or recipe.cutmix):
        return None
    rng = np.random.default_rng([recipe.seed, step, number, 11])
    cut = recipe.cutmix > 0 and (not recipe.mixup or rng.random() < 0.5)
    alpha = recipe.cutmix if cut else recipe.mixup
    share = float(rng.beta(alpha, alpha))
    if not cut:
        return Mix(share)
    height, width = size
    part = math.sqrt(1 - share)
    middle = rng.integers(height), rng.integers(width)
    (top, bottom), (left, right) = (
        [int(np.clip(place + sign * round(side * part) // 2, 0, side)) for sign in (-1, 1)]
        for place, side in zip(middle, size, strict=True)
    )
    return Mix(1 - (bottom - top) * (right - left) / (height * width), (top, left, bottom, right))


def mixed(batch: Batch, mix: Mix | None) -> Batch:
    """Give each clip of a batch the one it is mixed with: that at the same place from the end."""
    if mix is None:
        return batch
    return replace(batch, partner=batch.part(list(reversed(range(len(batch.target))))), mix=mix)
