"""The gradient of one optimiser step: clips in portions that fit the device, added up over all processes.

All classes are negatives, so each clip's loss is its own: with N clips in a step each weighs 1/N, and portions,
batches and shares of any size add up to the same gradient. torch's DistributedDataParallel sums it over the
processes while the last portion's backward pass is still running.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli import distributed
from zsar_cli.errors import UsageError, out_of_memory
from zsar_cli.features.encoding import to_device
from zsar_cli.model.backbone import Backbone, FrameFeatures
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.portions import Portion
from zsar_cli.training import fit
from zsar_cli.training.data import Batch
from zsar_cli.training.losses import TERMS, losses
from zsar_cli.training.mixing import draw_mix, mixed
from zsar_cli.training.optimizer import autocast
from zsar_cli.training.prompts import ClassPrompts
from zsar_cli.training.recipe import Recipe
from zsar_cli.video.augment import change_colours

logger = logging.getLogger(__name__)


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
        optimizer: torch.optim.Optimizer,
        pretrained: Backbone | None,
        micro_batch: int | None = None,
    ) -> None:
        self.model, self.recipe, self.optimizer = model, recipe, optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.pretrained = pretrained
        self.device = model.backbone.device
        # fp16 has no room for small gradients
        self.scaler = torch.amp.GradScaler(self.device.type) if recipe.precision == "fp16" else None
        self.clips = recipe.batch_size * recipe.accumulate  # of a step, if all can be read
        self.terms: nn.Module = _Terms(self)
        self.shared: nn.parallel.DistributedDataParallel | None = None
        self.processes = 1
        if distributed.world() > 1:
            self.processes = dist.get_world_size()
            self.shared = nn.parallel.DistributedDataParallel(
                self.terms, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self._tried = 0  # steps in which a portion was tried out
        share = -(-recipe.batch_size // self.processes)
        size, self.checkpointing = fit.micro_batch(model, recipe, share)
        self.portion = Portion(micro_batch or size, "clips", self._checkpoint)
        if self.checkpointing:
            model.backbone.set_grad_checkpointing(True)
        self._begin()

    def _begin(self) -> None:
        self._batches: list[tuple[Batch, bool]] = []
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.zeros(len(TERMS), device=self.device)
        self._portions = 0

    def _checkpoint(self) -> bool:
        """Turn gradient checkpointing on, unless it is or is not wanted."""
        if self.checkpointing or self.recipe.gradient_checkpointing is not None:
            return False
        logger.warning("out of memory: gradient checkpointing from now on, which takes more time")
        self.checkpointing = True
        self.model.backbone.set_grad_checkpointing(True)
        return True

    def add(self, batch: Batch, prompts: ClassPrompts, *, last: bool) -> None:
        """Add the gradient of a batch's clips; ``last``: it is the step's last one.

        Where memory runs out, the step begins anew with its clips in smaller portions.

        Raises:
            RuntimeError: there is no memory for one clip.
        """
        size = self.model.preprocess.size
        batch = mixed(batch, draw_mix(self.recipe, batch.step, len(self._batches), size))
        self._batches.append((batch, last))
        coming = [(batch, last)]
        while not all(self._add_batch(*each, prompts) for each in coming):
            self._forget(prompts)
            coming = list(self._batches)

    def _forget(self, prompts: ClassPrompts) -> None:
        """Drop the gradient so far: what is left of a portion that did not fit cannot be told from the rest."""
        for parameter in self.parameters:
            parameter.grad = None
        prompts.positive.grad = None
        self._clear()

    def _add_batch(self, batch: Batch, last: bool, prompts: ClassPrompts) -> bool:
        """Add a batch in portions; False where one did not fit."""
        count = len(batch.target)
        if last and not count and self.shared is not None:  # every process takes part in the sum
            nothing = _nothing(self.model, self.recipe, batch)
            self._add_portion(nothing, prompts, weight=0.0, last=True)
        start = 0
        while start < count:
            part = batch.part(slice(start, start + self.portion.size))
            here = len(part.target)
            start += here
            with self.portion.trying(here) as attempt:
                self._try_out(part, prompts)
                self._add_portion(part, prompts, weight=here / self.clips, last=last and start == count)
            if attempt.failed:
                return False
        return True

    def _try_out(self, part: Batch, prompts: ClassPrompts) -> None:
        """Find out whether a portion fits while nothing is shared yet: a sum over processes cannot be taken back.

        Once before the first step and once before the second, when AdamW's moments have taken their place.
        """
        if self.shared is None or self._portions or self._tried == 2:
            return
        self._add_portion(part, prompts, weight=0.0, last=False)
        self._forget(prompts)
        self._tried += 1

    def _add_portion(self, batch: Batch, prompts: ClassPrompts, *, weight: float, last: bool) -> None:
        key = [self.recipe.seed, batch.step, self._portions, distributed.rank()]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))  # for towers with dropout
        self._portions += 1
        with nullcontext() if last or self.shared is None else self.shared.no_sync():
            terms = (self.shared or self.terms)(batch, prompts)
            # DistributedDataParallel takes the mean over processes
            loss = terms["total"] * (weight * self.processes)
            loss = loss if self.scaler is None else self.scaler.scale(loss)
            with _summing(self.portion.size) if last and self.shared is not None else nullcontext():
                loss.backward()
        with torch.no_grad():
            found = [terms.get(name, self._sums.new_zeros(())) for name in TERMS]
            self._sums += weight * torch.stack(found).float()

    def finish(self, prompts: ClassPrompts) -> Measured:
        """Complete the gradient, clip it, and tell what it came to."""
        prompts.backward()
        if self.scaler is not None and self.parameters[0].grad is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(
            torch.stack(torch._foreach_norm(gradients or [self._sums.new_zeros(1)]))
        )
        scale = self.model.log_scale.detach()
        # The one moment of a step that waits for the device
        *terms, length, tau = torch.cat([self._sums, norm.reshape(1), scale.exp().reshape(1)]).tolist()
        seen = sum(len(batch.target) for batch, _ in self._batches)
        *terms, count = distributed.add_up([*terms, seen])
        more = self.clips / max(count, 1)  # clips that cannot be read leave the mean to the others
        factor = min(more, self.recipe.clip_norm / max(length, 1e-6))
        if gradients and factor != 1 and np.isfinite(length):
            torch._foreach_mul_(gradients, factor)
        self._begin()
        means = {name: value * more for name, value in zip(TERMS, terms, strict=True)}
        return Measured(means, int(count), length * more, tau)

    def update(self) -> None:
        """Take the optimiser's step; in fp16 not where the gradient overflowed, and with a smaller scale then."""
        if self.scaler is None:
            self.optimizer.step()
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()

    # --- one portion

    def compute(self, batch: Batch, prompts: ClassPrompts) -> dict[str, Tensor]:
        """Compute the loss terms of a batch, means over its clips."""
        clips, target = self._prepare(batch), to_device(batch.target, self.device)
        if batch.mix is not None and batch.partner is not None and isinstance(clips, Tensor):
            clips = batch.mix.apply(clips, self._prepare(batch.partner))
        with autocast(self.recipe.precision, self.device.type):
            features = clips if isinstance(clips, FrameFeatures) else self.model.encode_frames(clips)
            encoding = self.model.encode_video(features)
            frozen = self._frozen_video(clips, features) if self.recipe.w_keep else None
        terms = losses(self.model, encoding, target, prompts, self.recipe, frozen)
        if batch.mix is None or batch.partner is None:
            return terms
        target = to_device(batch.partner.target, self.device)
        return batch.mix.combine(terms, losses(self.model, encoding, target, prompts, self.recipe, frozen))

    def _prepare(self, batch: Batch) -> Any:
        """Bring clips to the device as the model takes them, or the features that a cache holds of them."""
        clips, colours = batch.clips, batch.colours
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


@contextmanager
def _summing(size: int) -> Iterator[None]:
    """Say what to do where memory runs out while gradients are on their way to other processes."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise UsageError(
            f"Rank {distributed.rank()} ran out of memory while the processes summed their gradients. Continue with "
            f"--resume --micro-batch {max(1, size // 2)}."
        ) from error


def _nothing(model: RecognizerModel, recipe: Recipe, batch: Batch) -> Batch:
    """Make a clip of noise, whose gradient counts for nothing."""
    size = (1, recipe.frames, *model.preprocess.size, 3)
    clips = torch.randint(0, 256, size, dtype=torch.uint8)
    return Batch(batch.step, batch.epoch, clips, torch.zeros(1, dtype=torch.long))
