"""What training minimises: the terms of the loss for one batch, and the labels' prompts that they compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zsar_cli.model.alignment import keep_loss, negative_loss, opposition_loss, positive_loss, yes_margin
from zsar_cli.model.motion import separation_loss
from zsar_cli.model.zsar import RecognizerModel, VideoEncoding
from zsar_cli.text.embeddings import Templates
from zsar_cli.training.recipe import Recipe

TERMS = ("pos", "neg", "dis", "opp", "keep", "total")


def draw_templates(templates: Templates, step: int, seed: int) -> tuple[str, str]:
    """The positive and the negative template of a step."""
    rng = np.random.default_rng([seed, step, 7])
    positive = templates.positive[rng.integers(len(templates.positive))]
    return positive, templates.negative[rng.integers(len(templates.negative))]


def fill_template(template: str, labels: Sequence[str]) -> list[str]:
    """The template with each label in its place."""
    return [template.replace("{}", label) for label in labels]


@dataclass
class Prompts:
    """The embeddings of all labels at one step, each (C, E) of unit length.

    The losses of a step's batches gather their gradient in ``positive``; :meth:`backward` then takes it through
    the text tower once, however many batches there were.
    """

    positive: Tensor
    negative: Tensor | None  # without gradient: what negatives learn, the shared adapter learns
    frozen: Tensor | None = None  # the pretrained text tower's, for L_keep
    source: Tensor | None = (
        None  # what the text tower or the classes' residuals gave, where these are trained
    )

    def backward(self) -> None:
        """Take the gradient on into the text tower, or the residuals."""
        if self.source is not None and self.positive.grad is not None:
            self.source.backward(self.positive.grad)


def losses(
    model: RecognizerModel,
    encoding: VideoEncoding,
    target: Tensor,
    prompts: Prompts,
    recipe: Recipe,
    frozen: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms of the loss for one batch, by name; ``total`` is their weighted sum.

    Args:
        encoding: what the model makes of the batch.
        target: (B,) class indices.
        frozen: (B, E) embeddings of the clips by the pretrained CLIP, for L_keep. As in FROSTER (ICLR 2024) both
            towers stay near it: ``w_keep`` weighs the mean of ``1 - cos`` over the clips plus that over the labels.
    """
    video, positive = encoding.embedding.float(), prompts.positive
    similarity = video @ positive.T
    terms = {"pos": positive_loss(model.log_scale.exp() * similarity, target, recipe.smoothing)}
    total = terms["pos"]
    if model.uses_negatives and prompts.negative is not None:
        moved = model.align_negatives(positive, prompts.negative)
        margin = yes_margin(similarity, video @ moved.T, model.log_negative_scale.exp(), model.offset)
        terms["neg"] = negative_loss(margin, target)
        total = total + recipe.w_neg * terms["neg"]
        if model.adapter is not None:
            terms["opp"] = opposition_loss(positive, moved)
            total = total + recipe.w_opp * terms["opp"]
    if encoding.motion is not None and encoding.static is not None and encoding.refined is not None:
        terms["dis"] = separation_loss(encoding.motion, encoding.static)
        if model.mab is not None:
            terms["dis"] = 0.5 * (terms["dis"] + separation_loss(encoding.refined, encoding.static))
        total = total + recipe.w_dis * terms["dis"]
    if recipe.w_keep and frozen is not None:
        terms["keep"] = keep_loss(video, frozen)
        if prompts.frozen is not None:
            terms["keep"] = terms["keep"] + keep_loss(positive, prompts.frozen)
        total = total + recipe.w_keep * terms["keep"]
    terms["total"] = total
    return terms
