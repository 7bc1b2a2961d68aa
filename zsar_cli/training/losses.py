"""The five terms of the loss, and their weighted sum.

``L = L_pos + w_neg L_neg + w_dis L_dis + w_opp L_opp + w_keep L_keep``

v is a clip's embedding, ``p_c`` and ``n_c`` are the embeddings of the positive and the negative prompt of class c, all
of unit length. Shapes: B clips, C classes, E joint embedding size, M width of the motion modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli.model.alignment import yes_margin
from zsar_cli.model.zsar import RecognizerModel, VideoEncoding
from zsar_cli.training.prompts import ClassPrompts
from zsar_cli.training.recipe import Recipe

TERMS = ("pos", "neg", "dis", "opp", "keep", "total")


class AppearanceProbe(nn.Module):
    """A linear map that tries to read a clip's appearance from its motion, while L_dis keeps it from succeeding.

    It is trained with a model and no part of it afterwards.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width))  # c, of the static tokens over clips
        self.map = nn.Linear(width, width)  # P, b
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)


def make_probes(model: RecognizerModel) -> nn.ModuleDict | None:
    """Make a probe for what MSM gives and one for what MAB does, by what :class:`VideoEncoding` calls them."""
    if model.msm is None:
        return None
    names = ("motion", "refined") if model.mab is not None else ("motion",)
    probes = nn.ModuleDict({name: AppearanceProbe(model.parts.width) for name in names})
    return probes.to(model.backbone.device)


def positive_loss(
    logits: Tensor, target: Tensor, smoothing: float = 0.0, rivals: Tensor | None = None
) -> Tensor:
    """Compute L_pos: cross-entropy of ``tau v·p_c`` (B, C) over the classes; of ``rivals`` (B, C) only, where given."""
    if rivals is None:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    log_score = logits.masked_fill(~rivals, -torch.inf).log_softmax(dim=-1)
    true = log_score.gather(1, target[:, None]).squeeze(1)
    even = log_score.masked_fill(~rivals, 0).sum(dim=-1) / rivals.sum(dim=-1)
    return -((1 - smoothing) * true + smoothing * even).mean()


def negative_loss(margin: Tensor, target: Tensor, rivals: Tensor | None = None) -> Tensor:
    """Compute L_neg: binary cross-entropy of ``margin`` (B, C), yes to the true class and no to every other.

    ``L_neg = (mean softplus(-m_true) + mean softplus(m_other)) / 2`` with ``m = tau_n (v·p_c - v·n_c) + b``. The two
    are averaged apart, so that the many classes that are wrong do not outweigh the right one. Where ``rivals`` (B, C)
    is given, nothing is said of the other classes.
    """
    # Without indexing by a mask, for which the host would wait
    true = margin.gather(1, target[:, None])
    each = F.softplus(margin) if rivals is None else F.softplus(margin) * rivals
    count = margin.numel() if rivals is None else rivals.sum()
    return 0.5 * (F.softplus(-true).mean() + (each.sum() - F.softplus(true).sum()) / (count - len(true)))


def separation_loss(motion: Tensor, static: Tensor, probe: AppearanceProbe) -> Tensor:
    """Compute L_dis: how much of a clip's appearance the probe reads from its motion, ``mean max(0, u·(P m + b))``.

    The appearance is ``u = (s - c) / |s - c|`` with the pooled static tokens s. Of u and a probe that fits it as well
    as it can, the product is the share of the appearance that it explains, R^2. Only m feels that: with u or P free,
    they would turn away from each other and leave the appearance where it is. P, b and c are fitted by least squares
    in the same backward pass, which adds nothing to the value.

    Args:
        motion: m, (B, M).
        static: s, (B, M).
    """
    motion, static = motion.float(), static.detach().float()
    appearance = F.normalize(static - probe.mean.detach(), dim=-1)
    read = F.linear(motion, probe.map.weight.detach(), probe.map.bias.detach())
    explained = (read * appearance).sum(dim=-1).relu().mean()
    errors = probe.map(motion.detach()) - appearance, static - probe.mean
    fit = torch.cat(errors, dim=-1).square().sum(dim=-1).mean()
    return explained + fit - fit.detach()


def opposition_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Compute L_opp: ``2 - |p_c - n_c|``, smallest where a class and its negative are opposite (CLIPN, ICCV 2023)."""
    distance: Tensor = (positive - negative).norm(dim=-1)
    return (2 - distance).mean()


def keep_loss(embedding: Tensor, frozen: Tensor) -> Tensor:
    """Compute L_keep: ``1 - cos`` with the embedding of the frozen CLIP, as in FROSTER (ICLR 2024)."""
    return (1 - F.cosine_similarity(embedding, frozen, dim=-1)).mean()


def losses(
    model: RecognizerModel,
    encoding: VideoEncoding,
    target: Tensor,
    prompts: ClassPrompts,
    recipe: Recipe,
    frozen: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute the terms of the loss for one batch, those that the model and the recipe have, and their sum.

    L_dis is the mean over MSM's motion tokens and MAB's queries, where the model has probes; L_keep the sum over clips
    and labels.

    Args:
        model: gives the scales and the negatives.
        encoding: of the batch.
        target: (B,) class indices.
        prompts: of all classes.
        recipe: gives the weights.
        frozen: (B, E) embeddings of the clips by the pretrained CLIP, for L_keep.

    Returns:
        the terms by their names in :data:`TERMS`.
    """
    video, positive = encoding.embedding.float(), prompts.positive
    similarity = video @ positive.T
    rivals = None if prompts.rivals is None else prompts.rivals[target]
    terms = {"pos": positive_loss(model.log_scale.exp() * similarity, target, recipe.smoothing, rivals)}
    if model.uses_negatives and prompts.negative is not None:
        negative = model.align_negatives(positive, prompts.negative)
        margin = yes_margin(similarity, video @ negative.T, model.log_negative_scale.exp(), model.offset)
        terms["neg"] = negative_loss(margin, target, rivals)
        if model.adapter is not None:
            terms["opp"] = opposition_loss(positive, negative)
    if model.probes is not None and encoding.static is not None:
        probes: Any = model.probes.items()
        separations = [
            separation_loss(getattr(encoding, name), encoding.static, probe) for name, probe in probes
        ]
        terms["dis"] = torch.stack(separations).mean()
    if recipe.w_keep and frozen is not None:
        terms["keep"] = keep_loss(video, frozen)
        if prompts.frozen is not None:
            terms["keep"] = terms["keep"] + keep_loss(positive[: len(prompts.frozen)], prompts.frozen)
    terms["total"] = weighted_sum(terms, recipe)
    return terms


def weighted_sum(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """Add up ``L_pos + w_neg L_neg + w_opp L_opp + w_dis L_dis + w_keep L_keep``, of the terms that there are."""
    weights = {"neg": recipe.w_neg, "opp": recipe.w_opp, "dis": recipe.w_dis, "keep": recipe.w_keep}
    total = terms["pos"]
    for name, weight in weights.items():
        if name in terms:
            total = total + weight * terms[name]
    return total
