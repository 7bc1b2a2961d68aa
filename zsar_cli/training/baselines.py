"""Baselines on the held-out clips: the model before training, and a linear probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from zsar_cli.features.encoding import map_features
from zsar_cli.text.embeddings import embed_labels
from zsar_cli.training.holdout import batches, top1

if TYPE_CHECKING:
    from zsar_cli.data.dataset import Item
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.templates import Templates
    from zsar_cli.training.clips import TrainingData
    from zsar_cli.training.recipe import Recipe
    from zsar_cli.video.pool import DecodePool

STRENGTHS = [10.0**-power for power in range(1, 8)]  # of L2, of which the held-out clips choose one


@dataclass(frozen=True)
class Baselines:
    """Top-1 on the held-out clips."""

    clips: int
    zero_shot: float
    probe: float


def measure_baselines(
    model: RecognizerModel,
    recipe: Recipe,
    data: TrainingData,
    templates: Templates,
    pool: DecodePool,
    cache: FeatureCache,
    advance: Callable[[float], None] = lambda clips: None,
) -> Baselines | None:
    """Measure both before training; None where no held-out clip can be read.

    ``advance`` is told how many more clips were looked at.
    """
    train, held_out = (
        frame_averages(model, items, recipe.frames, pool, cache, advance)
        for items in (data.dataset.items, data.held_out)
    )
    if not len(train[1]) or not len(held_out[1]):
        return None
    classes = data.dataset.classes
    words = embed_labels(model, classes, templates, bank=False, learned=False)
    zero_shot = top1(model, data.held_out, words, frames=recipe.frames, pool=pool, batch_size=16, cache=cache)
    probe = accuracy(linear_probe(train, held_out, len(classes)), *held_out)
    return Baselines(len(held_out[1]), zero_shot, probe)


def frame_averages(
    model: RecognizerModel,
    items: Sequence[Item],
    frames: int,
    pool: DecodePool,
    cache: FeatureCache,
    advance: Callable[[float], None] = lambda clips: None,
) -> tuple[Tensor, Tensor]:
    """Average frame embeddings (n, E), of unit length, with the classes (n,) of the clips that can be read."""

    def average(features: FrameFeatures, _: list[int]) -> Tensor:
        return F.normalize(features.embedding.float().mean(dim=1), dim=-1).cpu()

    found = []
    for clips, target in batches(items, model.choose(frames, 1), model.preprocess, pool, 16, cache):
        found.append((map_features(model, clips, average, cache).squeeze(1), target))
        advance(len(clips))
    if not found:
        return torch.zeros(0, model.backbone.embed_dim), torch.zeros(0, dtype=torch.long)
    return torch.cat([video for video, _ in found]), torch.cat([target for _, target in found])


def linear_probe(train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], classes: int) -> Tensor:
    """Fit logistic regression on averages and classes of clips: weights (E + 1, C), the last row the bias.

    The held-out clips choose its L2, as they choose a model's step.
    """
    found = [_regression(*train, classes, strength) for strength in STRENGTHS]
    return max(found, key=lambda weight: accuracy(weight, *held_out))


def _regression(video: Tensor, target: Tensor, classes: int, strength: float) -> Tensor:
    weight = torch.zeros(video.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = video @ weight[:-1] + weight[-1]
        value = F.cross_entropy(logits, target) + strength * weight[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach()


def accuracy(weight: Tensor, video: Tensor, target: Tensor) -> float:
    """Compute top-1 of a linear probe."""
    return float(((video @ weight[:-1] + weight[-1]).argmax(dim=-1) == target).float().mean())
