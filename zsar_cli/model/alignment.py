"""From prompts to scores: alignment with positive prompts and with negative, "non-class" ones.

For class c, ``p_c`` is the embedding of its positive prompts and ``n_c`` that of its negative prompts
(:mod:`zsar_cli.text.embeddings`); v is the video embedding; all have unit length. The arrangement is the paper's
(arXiv:2604.17062), the equations are this project's reading of it; the shared, learned residual that makes
negatives carry over to new names follows the finding of NegPrompt (CVPR 2024), the term that keeps positive
and negative apart that of CLIPN (ICCV 2023).

Shapes: B clips, C classes, P bank phrases, E joint embedding size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLOSEST = 0.55  # of a bank phrase to a label: see is_usable


class NegativeAdapter(nn.Module):
    """Moves every ``n_c`` by a small learned residual, the same function for all classes: so also for new labels.

    ``n_c <- normalize(n_c + W_2 gelu(W_1 [n_c ; p_c]))`` with ``W_2`` zero at the start. A text tower barely
    tells "no X" from "X"; the residual learns what the words leave out.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * embed_dim, embed_dim)
        self.outer = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Move the negatives (C, E) of positives (C, E); all of unit length."""
        residual = self.outer(F.gelu(self.inner(torch.cat([negative, positive], dim=-1))))
        return F.normalize(negative + residual, dim=-1)


@dataclass
class Scores:
    """How well each label fits each clip."""

    similarity: Tensor  # (B, C) cosine with the positive prompts, v·p_c
    logits: Tensor  # (B, C)
    score: Tensor  # (B, C) softmax of the logits over the labels
    yes: Tensor  # (B, C) in 0..1: does the clip show this label at all?
    unknown: Tensor  # (B,) in 0..1: does no label fit?
    opposed: Tensor | None = None  # (B, C) cosine with the negative prompts, v·n_c


def average_views(views: Tensor) -> Tensor:
    """Average V views of a video (..., V, E), each of unit length, to its embedding (..., E).

    ``v = normalize(mean_k v_k)``: an ensemble in embedding space, normalised like each of its members, as CLIP
    averages its prompts (Radford et al. 2021, section 3.1.4) and CLIP4Clip its frames (Luo et al. 2021). The
    temperatures were learned for embeddings of unit length; a mean that is not normalised would lower every logit.
    """
    return F.normalize(views.float().mean(dim=-2), dim=-1)


def yes_margin(similarity: Tensor, opposed: Tensor, negative_scale: Tensor, offset: Tensor) -> Tensor:
    """Compute ``tau_n (v·p_c - v·n_c) + b`` (B, C): its sigmoid is ``yes``, and L_neg trains it."""
    return negative_scale * (similarity - opposed) + offset


def score_with_negatives(
    video: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    scale: Tensor,
    negative_scale: Tensor,
    offset: Tensor,
    beta: float,
) -> Scores:
    """Score by positive and negative prompts, for a trained model.

    ``yes_c = sigmoid(tau_n (v·p_c - v·n_c) + b)``, logit ``tau v·p_c + beta log yes_c``, ``unknown = 1 - max_c yes_c``.
    """
    similarity, opposed = video @ positive.T, video @ negative.T
    margin = yes_margin(similarity, opposed, negative_scale, offset)
    logits = scale * similarity
    if beta:
        logits = logits + beta * F.logsigmoid(margin)
    yes = margin.sigmoid()
    return Scores(similarity, logits, logits.softmax(dim=-1), yes, 1 - yes.amax(dim=-1), opposed)


def score_with_bank(video: Tensor, positive: Tensor, bank: Tensor, *, scale: Tensor) -> Scores:
    """Score by positive prompts and a bank of other phrases, for a plain CLIP without trained negatives.

    ``yes_c`` is the probability of c against the mean of the five bank phrases that fit best, and
    ``unknown = 1 - max_c yes_c``: the bank's share of the probability, in the manner of NegLabel (ICLR 2024).

    Args:
        bank: (P, E) of unit length, without the phrases too close to a label (:func:`is_usable`).
    """
    return score_cosines(video @ positive.T, video @ bank.T, scale=scale)


def score_cosines(similarity: Tensor, rivals: Tensor, *, scale: Tensor) -> Scores:
    """Score by the cosines of videos with labels (B, C), and with the phrases of a bank (B, P)."""
    logits = scale * similarity
    if not rivals.shape[-1]:  # nothing to compete with: the labels' own softmax is all there is
        score = logits.softmax(dim=-1)
        return Scores(similarity, logits, score, score, 1 - score.amax(dim=-1))
    count = min(5, rivals.shape[-1])
    best = (scale * rivals).topk(count, dim=-1).values
    best_rivals = best.logsumexp(dim=-1) - math.log(count)
    yes = (logits - best_rivals[:, None]).sigmoid()
    return Scores(similarity, logits, logits.softmax(dim=-1), yes, 1 - yes.amax(dim=-1))


def is_usable(bank: Tensor, positive: Tensor) -> Tensor:
    """Tell which bank phrases (P, E) do not all but repeat one of the labels (C, E), (P,) bool.

    A phrase goes when its cosine with a label exceeds :data:`CLOSEST` of the way from the bank's median cosine to 1:
    text embeddings of one tower all lie in a narrow cone, at an angle that differs from tower to tower.
    """
    if not len(bank):
        return bank.new_zeros(0, dtype=torch.bool)
    typical = (bank @ bank.T).median()
    limit = typical + (1 - typical) * CLOSEST
    return (bank @ positive.T).amax(dim=-1) <= limit
