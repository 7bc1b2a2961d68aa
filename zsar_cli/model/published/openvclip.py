"""Open-VCLIP (Weng et al., ICML 2023) and FROSTER (Huang et al., ICLR 2024): a frame also looks at its neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.published.family import Family, enter, join_heads, leave, patches, project, unit


class OpenVCLIP(Family):
    """A CLIP whose visual attention has the keys and values of the frames before and after as well."""

    across_frames = True

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W): frame embeddings and patch tokens after the final norm."""
        shape = pixels.shape[:2]
        x = enter(clip.visual, patches(clip.visual, pixels.flatten(0, 1)))
        for block in clip.visual.transformer.resblocks:
            x = x + attend_across(block.attn, block.ln_1(x), shape[1])
            x = x + block.mlp(block.ln_2(x))
        embedding, tokens = leave(clip.visual, x[:, 0]), clip.visual.ln_post(x[:, 1:])
        return FrameFeatures(embedding.unflatten(0, shape), tokens.unflatten(0, shape))

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """``mean_t u(f_t)``, not of unit length: cosines with it are the mean of the frames' cosines."""
        return unit(features.embedding.float()).mean(dim=1)


def attend_across(attention: Any, x: Tensor, frames: int) -> Tensor:
    """Attend from the tokens x (B·T, N, D) of each frame to those of itself, of the frame before and of that after.

    Beyond the ends of a clip keys and values are zeros that keep their share of the softmax.
    """
    q, k, v = project(attention, x)
    k, v = (_with_neighbours(part, frames) for part in (k, v))
    attended: Tensor = attention.out_proj(join_heads(F.scaled_dot_product_attention(q, k, v)))
    return attended


def _with_neighbours(x: Tensor, frames: int) -> Tensor:
    """(B·T, heads, N, d) to (B·T, heads, 3N, d): the frame, the one before it, the one after it."""
    clips = x.unflatten(0, (-1, frames))
    nothing = torch.zeros_like(clips[:, :1])
    before, after = torch.cat([nothing, clips[:, :-1]], dim=1), torch.cat([clips[:, 1:], nothing], dim=1)
    return torch.cat([clips, before, after], dim=3).flatten(0, 1)
