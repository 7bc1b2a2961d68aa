"""The Motion Separation Module (MSM) and the Motion Aggregation Block (MAB).

The names, the roles and the order of the two modules are those of Wang, Li and Wang, "Motion-Guided Semantic
Alignment with Negative Prompts for Zero-Shot Video Action Recognition" (arXiv:2604.17062). The equations are
this project's own reading of them.

Shapes: B clips, T frames, N patch tokens a frame, D the width of the visual tower, M the width of the modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NOISE = 0.15  # e: changes of a patch token, as a share of it, that are as likely noise as motion


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
    difference = tokens - torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)  # torch.diff has no ONNX
    return static, difference, tokens - static.unsqueeze(1)


def motion_amount(static: Tensor, residual: Tensor) -> Tensor:
    """Tell how much a clip moves, from 0 for a still one to nearly 1: ``w = E / (E + e^2)``, ``E = mean rho^2``.

    ``rho = |r|^2 / mean |x|^2`` is the share of a patch token that changes. It is squared, so a few patches that move
    count for more than the noise of a camera or a codec in all of them. ``e`` is not learned: training on clips that
    all move would unlearn it.

    Args:
        static: s, (B, N, D).
        residual: r, (B, T, N, D).

    Returns:
        w, (B,), float32.
    """
    changes = torch.linalg.vector_norm(residual, dim=-1, dtype=torch.float32).square()  # (B, T, N)
    whole = static.float().square().sum(dim=-1).mean(dim=-1) + changes.mean(dim=(1, 2))
    energy = (changes / whole.clamp(min=1e-12)[:, None, None]).square().mean(dim=(1, 2))
    amount: Tensor = energy / (energy + NOISE**2)
    return amount


@dataclass
class Separation:
    """What the Motion Separation Module makes of a clip."""

    motion: Tensor  # M, (B, T, N, M): motion-sensitive tokens
    static: Tensor  # S, (B, N, M): global-static tokens
    saliency: Tensor  # a, (B, T, N) in 0..1: how much of each patch's motion is let through
    amount: Tensor  # w, (B,) in 0..1: how much the clip moves

    @property
    def strength(self) -> Tensor:
        """Root mean square of each motion-sensitive token, (B, T, N), which heat maps show.

        Saliency alone would not do: training uses it to weigh kinds of motion, not to find what moves.
        """
        return self.motion.float().square().mean(dim=-1).sqrt()


class CueNorm(nn.Module):
    """Damped RMS norm ``LN c = g * c / sqrt(mean c^2 + e)``: a cue of about unit size, but zero where nothing moves.

    ``e`` is learned and positive: changes below it are noise.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))  # g
        self.log_floor = nn.Parameter(torch.tensor(0.05).log())  # log e

    def scale(self, cue: Tensor) -> Tensor:
        """Compute ``1 / sqrt(mean c^2 + e)`` for cues (..., D): (..., 1), in float32."""
        return (cue.float().square().mean(dim=-1, keepdim=True) + self.log_floor.float().exp()).rsqrt()

    def forward(self, cue: Tensor) -> Tensor:
        """Normalise cues (..., D)."""
        return self.gain * cue * self.scale(cue).to(cue.dtype)


def map_cues(cues: Sequence[Tensor], norms: Sequence[CueNorm], maps: Sequence[nn.Linear]) -> list[Tensor]:
    """Apply linear maps to ``c_t = [LN d_t ; LN r_t]`` without writing the normalised cues.

    ``W [g d / |d| ; g r / |r|] = (W_d g) d / |d| + (W_r g) r / |r|``: the gains go into the weights, the scales past
    the product, and all maps are one product. Nothing else as large as the patch tokens is then written, and the
    tokens of a frozen tower need no gradient.

    Args:
        cues: difference and residual, (B, T, N, D) each.
        norms: of each cue.
        maps: from 2 D.

    Returns:
        the output of each map, (B, T, N, W).
    """
    weights = torch.cat([linear.weight for linear in maps]).chunk(len(cues), dim=1)
    products = [
        F.linear(cue, weight * norm.gain) * norm.scale(cue).to(cue.dtype)
        for cue, norm, weight in zip(cues, norms, weights, strict=True)
    ]
    outputs = torch.split(products[0] + products[1], [linear.out_features for linear in maps], dim=-1)
    return [
        out if linear.bias is None else out + linear.bias for out, linear in zip(outputs, maps, strict=True)
    ]


class MotionSeparation(nn.Module):
    """Motion Separation Module (MSM).

    With cues ``c_t = [LN d_t ; LN r_t]`` (:class:`CueNorm`): saliency ``a_t = sigmoid(MLP(c_t))``, motion-sensitive
    tokens ``M_t = a_t * W_m c_t``, global-static tokens ``S = (1 - mean_t a_t) * W_s LN s``.
    """

    def __init__(self, token_dim: int, width: int) -> None:
        super().__init__()
        self.norm_difference = CueNorm(token_dim)
        self.norm_residual = CueNorm(token_dim)
        self.norm_static = nn.LayerNorm(token_dim)
        self.to_motion = nn.Linear(2 * token_dim, width, bias=False)  # W_m
        # Motion tokens of unit size at a saliency of 1/2
        nn.init.normal_(self.to_motion.weight, std=(2 / token_dim) ** 0.5)
        self.to_static = nn.Linear(token_dim, width, bias=False)  # W_s
        self.to_saliency = nn.Sequential(
            nn.Linear(2 * token_dim, width // 4), nn.GELU(), nn.Linear(width // 4, 1)
        )

    def forward(self, tokens: Tensor) -> Separation:
        """Separate motion from what stays in patch tokens (B, T, N, D)."""
        s, d, r = motion_cues(tokens)
        first: Any = self.to_saliency[0]
        motion, hidden = map_cues((d, r), (self.norm_difference, self.norm_residual), (self.to_motion, first))
        saliency = self.to_saliency[1:](hidden).sigmoid()
        return Separation(
            motion=saliency * motion,
            static=(1 - saliency.mean(dim=1)) * self.to_static(self.norm_static(s)),
            saliency=saliency.squeeze(-1),
            amount=motion_amount(s, r),
        )


class CrossAttention(nn.Module):
    """Multi-head cross-attention ``CrossAttn(q, x)`` of queries (B, K, M) over tokens (B, L, M)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Attend from the queries to the tokens: (B, K, M)."""

        def split(x: Tensor) -> Tensor:  # (B, L, M) -> (B, heads, L, M / heads)
            return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(tokens).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(
            split(self.query(self.norm_query(queries))), split(key), split(value)
        )
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return output


class AggregationLayer(nn.Module):
    """One layer of the Motion Aggregation Block.

    ``q <- q + CrossAttn(q, m)``, ``c = CrossAttn(q, S)``, ``g = sigmoid(W_g [q ; c])``,
    ``q <- q + tanh(alpha) * g * c``, ``q <- q + MLP(q)``; without the gate, ``q <- q + c``.
    """

    def __init__(self, width: int, heads: int, gated: bool = True) -> None:
        super().__init__()
        self.read_motion = CrossAttention(width, heads)
        self.read_static = CrossAttention(width, heads)
        self.gate = nn.Linear(2 * width, width) if gated else None  # W_g
        self.alpha = nn.Parameter(torch.zeros(())) if gated else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        for parameter in self.mlp[-1].parameters():  # MLP(q) is zero before training
            nn.init.zeros_(parameter)

    def forward(self, queries: Tensor, motion: Tensor, static: Tensor) -> Tensor:
        """Update the queries (B, K, M) from motion (B, T N, M) and static tokens (B, N, M)."""
        q = queries + self.read_motion(queries, motion)
        c = self.read_static(q, static)
        if self.gate is not None and self.alpha is not None:
            g = self.gate(torch.cat([q, c], dim=-1)).sigmoid()
            c = self.alpha.tanh() * g * c
        q = q + c
        output: Tensor = q + self.mlp(q)
        return output


class MotionAggregation(nn.Module):
    """Motion Aggregation Block (MAB): K learned motion queries gather the motion tokens of a clip.

    Motion tokens get their position: ``m = M * (1 + W_t time + W_p place)``, ``m <- m + MLP(m)``, with Fourier
    features of time and place. The position multiplies, and the MLP has no bias, so a patch without motion stays
    at zero; an added position would be some 300 times as large as what differs between clips.

    Then ``q_L`` is what L layers (:class:`AggregationLayer`) make of the learned queries ``q_0``, and the output is
    ``LN(q_L - q_0)``. ``alpha`` is zero before training: appearance enters only as far as training opens the gate.
    Time runs from 0 to 1 over the clip, so any number of frames will do.
    """

    def __init__(
        self, width: int, queries: int = 4, layers: int = 2, heads: int = 4, gated: bool = True
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)  # q_0
        self.to_time = nn.Linear(2 * _FREQUENCIES, width)  # W_t
        self.to_place = nn.Linear(4 * _FREQUENCIES, width)  # W_p
        self.place_motion = nn.Sequential(
            nn.Linear(width, 2 * width, bias=False), nn.GELU(), nn.Linear(2 * width, width, bias=False)
        )
        self.layers = nn.ModuleList(AggregationLayer(width, heads, gated) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, separation: Separation, grid: tuple[int, int]) -> Tensor:
        """Gather the motion of a clip: refined queries (B, K, M).

        Args:
            separation: of the clip, by MSM.
            grid: rows and columns of the N patches.
        """
        motion = separation.motion
        batch, frames = motion.shape[:2]
        time = self.to_time(fourier_features(frames, motion))[None, :, None]
        place = self.to_place(_place_features(*grid, motion))[None, None]
        motion = motion * (1 + time + place)
        motion = (motion + self.place_motion(motion)).flatten(1, 2)
        start = queries = self.queries.to(motion.dtype).expand(batch, -1, -1)
        for layer in self.layers:
            queries = layer(queries, motion, separation.static)
        output: Tensor = self.norm(queries - start)
        return output


_FREQUENCIES = 8


def fourier_features(steps: int, like: Tensor) -> Tensor:
    """Encode the centres ``x`` of ``steps`` equal parts of 0..1: ``sin`` and ``cos`` of ``pi k x / 2``, k = 1 to 8.

    Returns:
        (steps, 16), of the kind and on the device of ``like``.
    """
    position = (torch.arange(steps, device=like.device, dtype=torch.float32) + 0.5) / steps
    angle = position[:, None] * torch.pi * 0.5 * torch.arange(1, _FREQUENCIES + 1, device=like.device)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).to(like.dtype)


def _place_features(rows: int, columns: int, like: Tensor) -> Tensor:
    """Encode the row and the column of each patch: (N, 32)."""
    down, across = fourier_features(rows, like), fourier_features(columns, like)
    return torch.cat(
        [down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], dim=-1
    ).flatten(0, 1)
