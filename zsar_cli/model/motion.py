"""What moves and what stays: the Motion Separation Module and the Motion Aggregation Block.

The names, the roles and the order of the two modules are those of Wang, Li and Wang, "Motion-Guided Semantic
Alignment with Negative Prompts for Zero-Shot Video Action Recognition" (arXiv:2604.17062). The equations are
this project's own reading of them.

Shapes: B clips, T frames, N patch tokens a frame, D the width of the visual tower, M the width in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def motion_cues(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split patch tokens over time.

    ``s = mean_t x_t`` is what stays, ``d_t = x_t - x_(t-1)`` (zero at the first frame) what just changed, and
    ``r_t = x_t - s`` how a frame differs from the clip. Both cues are zero for a still video.

    Args:
        tokens: x, (B, T, N, D).

    Returns:
        static (B, N, D), difference (B, T, N, D), residual (B, T, N, D).
    """
    static = tokens.mean(dim=1)
    difference = torch.diff(tokens, dim=1, prepend=tokens[:, :1])
    return static, difference, tokens - static.unsqueeze(1)


@dataclass
class Separation:
    """What the Motion Separation Module makes of a clip."""

    motion: Tensor  # (B, T, N, M) motion-sensitive tokens
    static: Tensor  # (B, N, M) global-static tokens
    saliency: Tensor  # (B, T, N) in 0..1: a_t, how much of each patch's motion is let through

    @property
    def strength(self) -> Tensor:
        """Length of the motion-sensitive tokens, (B, T, N): what moves where; the heat map people look at.

        ``a_t`` alone is none: it scales cues that are already small where nothing moves, and a trained model uses
        it to weigh kinds of motion, not to find it.
        """
        return self.motion.float().square().mean(dim=-1).sqrt()


class MotionSeparation(nn.Module):
    """Motion Separation Module (MSM).

    With cues ``c_t = [LN d_t ; LN r_t]``: saliency ``a_t = sigmoid(MLP(c_t))``, motion-sensitive tokens
    ``M_t = a_t * W_m c_t``, global-static tokens ``S = (1 - mean_t a_t) * W_s LN s``.

    The layer norms of the cues have no bias and are damped (see :class:`CueNorm`), so that what does not move
    stays at zero instead of being blown up to unit length.
    """

    def __init__(self, token_dim: int, width: int) -> None:
        super().__init__()
        self.norm_difference = CueNorm(token_dim)
        self.norm_residual = CueNorm(token_dim)
        self.norm_static = nn.LayerNorm(token_dim)
        self.to_motion = nn.Linear(2 * token_dim, width, bias=False)  # W_m
        nn.init.normal_(
            self.to_motion.weight, std=(2 / token_dim) ** 0.5
        )  # unit motion tokens at a saliency of 1/2
        self.to_static = nn.Linear(token_dim, width, bias=False)  # W_s
        self.to_saliency = nn.Sequential(
            nn.Linear(2 * token_dim, width // 4), nn.GELU(), nn.Linear(width // 4, 1)
        )

    def forward(self, tokens: Tensor) -> Separation:
        """tokens (B, T, N, D) -> :class:`Separation`."""
        static, difference, residual = motion_cues(tokens)
        first: Any = self.to_saliency[0]
        for_both = torch.cat([self.to_motion.weight, first.weight])  # W_m and the MLP read the same cues
        for_difference, for_residual = for_both.chunk(2, dim=1)
        mapped = self.norm_difference(difference, for_difference) + self.norm_residual(residual, for_residual)
        motion, hidden = mapped.tensor_split([self.to_motion.out_features], dim=-1)
        saliency = self.to_saliency[1:](hidden + first.bias).sigmoid()
        kept = 1 - saliency.mean(dim=1)
        return Separation(
            motion=saliency * motion,
            static=kept * self.to_static(self.norm_static(static)),
            saliency=saliency.squeeze(-1),
        )


class CueNorm(nn.Module):
    """Scale a cue to about unit size per element, but let a vanishing cue vanish: ``g * c / sqrt(mean c^2 + e)``.

    ``e`` is learned and positive: changes below it are noise.
    """

    def __init__(self, dim: int, floor: float = 0.05) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))
        self.log_floor = nn.Parameter(torch.tensor(floor).log())

    def forward(self, cue: Tensor, weight: Tensor) -> Tensor:
        """Map a scaled cue (..., D) with a weight (W, D): (..., W).

        The gain goes to the weight and the square root past the product, which changes nothing, but nothing else as
        large as the patch tokens is written, and those of a frozen tower need no gradient.
        """
        power = cue.float().square().mean(dim=-1, keepdim=True) + self.log_floor.float().exp()
        return F.linear(cue, weight * self.gain) * power.rsqrt().to(cue.dtype)


class CrossAttention(nn.Module):
    """Multi-head attention of queries (B, K, M) over tokens (B, L, M)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        def split(x: Tensor) -> Tensor:  # (B, L, M) -> (B, heads, L, M / heads)
            return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(tokens).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(
            split(self.query(self.norm_query(queries))), split(key), split(value)
        )
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return result


class AggregationLayer(nn.Module):
    """One layer of the Motion Aggregation Block: read the motion, look at the static context through a gate, think."""

    def __init__(self, width: int, heads: int, gated: bool = True) -> None:
        super().__init__()
        self.read_motion = CrossAttention(width, heads)
        self.read_static = CrossAttention(width, heads)
        self.gate = nn.Linear(2 * width, width) if gated else None  # W_g
        self.alpha = nn.Parameter(torch.zeros(())) if gated else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        for parameter in self.mlp[-1].parameters():  # at the start a layer only gathers
            nn.init.zeros_(parameter)

    def forward(self, queries: Tensor, motion: Tensor, static: Tensor) -> Tensor:
        queries = queries + self.read_motion(queries, motion)
        context = self.read_static(queries, static)
        if self.gate is not None and self.alpha is not None:
            gate = self.gate(torch.cat([queries, context], dim=-1)).sigmoid()
            context = self.alpha.tanh() * gate * context
        queries = queries + context
        result: Tensor = queries + self.mlp(queries)
        return result


class MotionAggregation(nn.Module):
    """Motion Aggregation Block (MAB): K learned motion queries gather the motion tokens of a clip.

    The tokens are first told where and when they are: ``m = M * (1 + W_t time + W_p place)``, ``m <- m + MLP(m)``.
    The position multiplies and the maps have no bias, so that a patch that does not move says nothing; added to M
    instead, the position was some 300 times what differs between clips, and training stood still for hundreds of
    steps. Each of L layers then does ``q <- q + CrossAttn(q, m)``, ``c = CrossAttn(q, S)``,
    ``g = sigmoid(W_g [q ; c])``, ``q <- q + tanh(alpha) * g * c`` and ``q <- q + MLP(q)``. ``alpha`` starts at
    zero: appearance comes in only as far as training opens the gate, so motion is refined and not coupled with
    appearance again. What comes out is what the queries have gathered, ``LN(q_L - q_0)``. Time is the position in
    the clip from 0 to 1, so any number of frames will do.
    """

    def __init__(
        self, width: int, queries: int = 4, layers: int = 2, heads: int = 4, gated: bool = True
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.to_time = nn.Linear(2 * _TIME_WAVES, width)
        self.to_place = nn.Linear(4 * _TIME_WAVES, width)
        self.place_motion = nn.Sequential(
            nn.Linear(width, 2 * width, bias=False), nn.GELU(), nn.Linear(2 * width, width, bias=False)
        )
        self.layers = nn.ModuleList(AggregationLayer(width, heads, gated) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, separation: Separation, grid: tuple[int, int]) -> Tensor:
        """Refined motion queries (B, K, M); ``grid``: rows and columns of the N patches."""
        motion = separation.motion
        batch, frames = motion.shape[:2]
        time = self.to_time(waves(frames, motion))[None, :, None]
        place = self.to_place(_patch_places(*grid, motion))[None, None]
        motion = motion * (1 + time + place)
        motion = (motion + self.place_motion(motion)).flatten(1, 2)  # what moved, with where and when
        start = queries = self.queries.to(motion.dtype).expand(batch, -1, -1)
        for layer in self.layers:
            queries = layer(queries, motion, separation.static)
        result: Tensor = self.norm(queries - start)
        return result


_TIME_WAVES = 8


def waves(steps: int, like: Tensor) -> Tensor:
    """Sines and cosines of the centre of each of ``steps`` equal parts of 0..1: (steps, 2 * 8), for any ``steps``."""
    position = (torch.arange(steps, device=like.device, dtype=torch.float32) + 0.5) / steps
    angle = position[:, None] * torch.pi * 0.5 * torch.arange(1, _TIME_WAVES + 1, device=like.device)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).to(like.dtype)


def _patch_places(rows: int, columns: int, like: Tensor) -> Tensor:
    """Where each patch lies, (N, 4 * 8): waves of its row and its column."""
    down, across = waves(rows, like), waves(columns, like)
    return torch.cat(
        [down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], dim=-1
    ).flatten(0, 1)


def separation_loss(motion: Tensor, static: Tensor) -> Tensor:
    """L_dis: the squared cosine between a clip's pooled motion (B, M) and pooled static embedding (B, M), averaged."""
    return F.cosine_similarity(motion.float(), static.float(), dim=-1).square().mean()
