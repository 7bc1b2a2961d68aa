"""The weights of a tuned backbone that are released: their average over the run (SWA), then WiSE-FT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zsar_cli.model.backbone import Backbone
from zsar_cli.training.recipe import Recipe


class WeightAverage:
    """SWA of a backbone over a run, and its interpolation towards the pretrained weights.

    The average is over the pretrained weights and those at ``swa`` steps, evenly spaced. WiSE-FT then takes it part
    of the way back to the pretrained weights (:func:`interpolate`).
    """

    def __init__(self, backbone: Backbone, pretrained: Backbone | None, recipe: Recipe, steps: int) -> None:
        self.backbone, self.pretrained, self.recipe = backbone, pretrained, recipe
        self.mean = _copies(backbone) if recipe.tune == "full" and recipe.swa else None
        # Of a run with fewer steps, each of them, once
        snapshots = min(recipe.swa, steps)
        self.moments = [round(steps * number / snapshots) for number in range(1, snapshots + 1)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after so many steps to the average, where this is one of its steps."""
        if self.mean is None or step not in self.moments:
            return
        count = 1 + sum(moment <= step for moment in self.moments)  # with the pretrained weights
        for name, tensor in self.backbone.state_dict().items():
            if tensor.is_floating_point():
                self.mean[name].lerp_(tensor, 1 / count)

    @contextmanager
    def released(self, weight: float | None = None) -> Iterator[None]:
        """Give the backbone the weights that would be released, for the length of the block.

        ``weight``: of the pretrained backbone, in place of the recipe's.
        """
        if self.mean is None and self.pretrained is None:
            yield
            return
        before = _copies(self.backbone)
        self.release(weight)
        try:
            yield
        finally:
            self.backbone.load_state_dict(before)

    def release(self, weight: float | None = None) -> None:
        """Give the backbone the weights that are released."""
        part = self.recipe.pretrained_weight if weight is None else weight
        if self.mean is not None:
            self.backbone.load_state_dict(self.mean)
        if self.pretrained is not None:
            interpolate(self.backbone, self.pretrained.state_dict(), part)


def _copies(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def interpolate(module: torch.nn.Module, pretrained: dict[str, Tensor], weight: float) -> None:
    """Set ``w <- (1 - weight) * w + weight * pretrained``, as in WiSE-FT: 0 keeps what was tuned, 1 undoes it."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(pretrained[name].to(tensor), weight)
