"""The gradient of one optimiser step: clips in portions that fit the device, added up over all processes.

All classes are negatives, so each clip's loss is its own: with N clips in a step each weighs 1/N, and portions,
batches and shares of any size add up to the same gradient. torch's DistributedDataParallel sums it over the
processes while the last portion's backward pass is still running.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli import distributed
from zsar_cli.features.encoding import to_device
from zsar_cli.model.backbone import Backbone, FrameFeatures
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training.data import Batch
from zsar_cli.training.losses import TERMS, losses
from zsar_cli.training.optimizer import autocast
from zsar_cli.training.prompts import ClassPrompts
from zsar_cli.training.recipe import Recipe
from zsar_cli.video.augment import change_colours


@dataclass(frozen=True)
class Measured:
    """What a step's gradient came to, over all processes."""

    terms: dict[str, float]  # means over the clips
    clips: int
    norm: float  # of the gradient, before it is clipped
    scale: float  # tau


class StepGradient:
    """Adds up the gradient of a step in ``.grad`` of the parameters, and reads the device once."""

    def __init__(
        self,
        model: RecognizerModel,
        recipe: Recipe,
        parameters: list[nn.Parameter],
        pretrained: Backbone | None,
    ) -> None:
        self.model, self.recipe, self.parameters = model, recipe, parameters
        self.pretrained = pretrained
        self.device = model.backbone.device
        self.clips = recipe.batch_size * recipe.accumulate  # of a step, if all can be read
        self.terms: nn.Module = _Terms(self)
        self.shared: nn.parallel.DistributedDataParallel | None = None
        self.processes = 1
        if distributed.world() > 1:
            self.processes = dist.get_world_size()
            self.shared = nn.parallel.DistributedDataParallel(
                self.terms, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self._seen = 0  # clips of this process
        self._begin()

    def _begin(self) -> None:
        self._sums = torch.zeros(len(TERMS), device=self.device)
        self._seen = self._portions = 0

    def add(self, batch: Batch, prompts: ClassPrompts, *, last: bool) -> None:
        """Add the gradient of a batch's clips; ``last``: it is the step's last one."""
        count = len(batch.target)
        if last and not count and self.shared is not None:  # every process takes part in the sum
            self._add_portion(_nothing(self.model, self.recipe, batch), prompts, weight=0.0, last=True)
        elif count:
            self._add_portion(batch, prompts, weight=count / self.clips, last=last)
        self._seen += count

    def _add_portion(self, batch: Batch, prompts: ClassPrompts, *, weight: float, last: bool) -> None:
        key = [self.recipe.seed, batch.step, self._portions, distributed.rank()]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))  # for towers with dropout
        self._portions += 1
        with nullcontext() if last or self.shared is None else self.shared.no_sync():
            terms = (self.shared or self.terms)(batch, prompts)
            # DistributedDataParallel takes the mean over processes
            (terms["total"] * (weight * self.processes)).backward()
        with torch.no_grad():
            found = [terms.get(name, self._sums.new_zeros(())) for name in TERMS]
            self._sums += weight * torch.stack(found).float()

    def finish(self, prompts: ClassPrompts) -> Measured:
        """Complete the gradient, clip it, and tell what it came to."""
        prompts.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(
            torch.stack(torch._foreach_norm(gradients or [self._sums.new_zeros(1)]))
        )
        scale = self.model.log_scale.detach()
        # The one moment of a step that waits for the device
        *terms, length, tau = torch.cat([self._sums, norm.reshape(1), scale.exp().reshape(1)]).tolist()
        *terms, count = distributed.add_up([*terms, self._seen])
        more = self.clips / max(count, 1)  # clips that cannot be read leave the mean to the others
        factor = min(more, self.recipe.clip_norm / max(length, 1e-6))
        if gradients and factor != 1 and np.isfinite(length):
            torch._foreach_mul_(gradients, factor)
        self._begin()
        means = {name: value * more for name, value in zip(TERMS, terms, strict=True)}
        return Measured(means, int(count), length * more, tau)

    # --- one portion

    def compute(self, batch: Batch, prompts: ClassPrompts) -> dict[str, Tensor]:
        """Compute the loss terms of a batch, means over its clips."""
        clips = self._prepare(batch.clips, batch.colours)
        with autocast(self.recipe.precision, self.device.type):
            features = clips if isinstance(clips, FrameFeatures) else self.model.encode_frames(clips)
            encoding = self.model.encode_video(features)
            frozen = self._frozen_video(clips, features) if self.recipe.w_keep else None
        return losses(
            self.model, encoding, to_device(batch.target, self.device), prompts, self.recipe, frozen
        )

    def _prepare(self, clips: Tensor | FrameFeatures, colours: Tensor | None) -> Tensor | FrameFeatures:
        if isinstance(clips, FrameFeatures):
            return FrameFeatures(
                to_device(clips.embedding, self.device), to_device(clips.tokens, self.device)
            )
        pixels = to_device(clips, self.device)
        pixels = pixels if colours is None else change_colours(pixels, colours)
        return self.model.backbone.normalise(pixels, torch.float32)

    @torch.no_grad()
    def _frozen_video(self, clips: Tensor | FrameFeatures, features: FrameFeatures) -> Tensor:
        """Embed the clips by the pretrained CLIP, (B, E); a frozen tower's ``features`` are that already."""
        frames = features.embedding
        if self.pretrained is not None and isinstance(clips, Tensor):
            frames = self.pretrained.encode_clips(clips).embedding
        return F.normalize(frames.float().mean(dim=1), dim=-1)


class _Terms(nn.Module):
    """The loss as a module, as DistributedDataParallel wants it: it watches what goes through ``forward``."""

    def __init__(self, step: StepGradient) -> None:
        super().__init__()
        self.model = step.model
        self._compute: Any = step.compute

    def forward(self, batch: Batch, prompts: ClassPrompts) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._compute(batch, prompts)
        return found


def _nothing(model: RecognizerModel, recipe: Recipe, batch: Batch) -> Batch:
    """Make a clip of noise, whose gradient counts for nothing."""
    size = (1, recipe.frames, *model.preprocess.size, 3)
    clips = torch.randint(0, 256, size, dtype=torch.uint8)
    return Batch(batch.step, batch.epoch, clips, torch.zeros(1, dtype=torch.long))
