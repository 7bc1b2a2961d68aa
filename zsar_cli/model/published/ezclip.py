"""EZ-CLIP (Ahmad et al., 2023): adapters in both towers, and prompts that carry a summary of all frames."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.published.family import Family, enter, leave, patches, unit


class EZCLIP(Family):
    """A CLIP with one extra token a frame in each block, which tells of the other frames."""

    across_frames = True
    own_text = True

    def __init__(self, own: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.frames = own["temporal_embedding"].shape[1]
        self.temporal_embedding = nn.Parameter(torch.empty_like(own["temporal_embedding"]))
        self.prompts = nn.Parameter(torch.empty_like(own["prompts"]))
        self.visual_adapters, self.text_adapters = (_adapters(own, kind) for kind in ("visual", "text"))

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W): frame embeddings and patch tokens after the final norm."""
        visual, shape = clip.visual, pixels.shape[:2]
        embedded = patches(visual, pixels.flatten(0, 1)).unflatten(0, shape)
        x = enter(
            visual,
            embedded.flatten(0, 1),
            self.temporal_embedding.expand(len(embedded), -1, -1).flatten(0, 1),
        )
        for layer, adapter, prompt in zip(
            visual.transformer.resblocks, self.visual_adapters, self.prompts, strict=True
        ):
            summary = layer.attention(layer.ln_1(x.mean(dim=1).unflatten(0, shape) + prompt))
            x = torch.cat([x, summary.flatten(0, 1)[:, None]], dim=1)
            x = (x + layer.attention(layer.ln_1(x)))[:, :-1]
            x = x + adapter(x)
            x = x + layer.mlp(layer.ln_2(x))
        embedding, tokens = leave(visual, x[:, 0]), visual.ln_post(x[:, 1:])
        return FrameFeatures(embedding.unflatten(0, shape), tokens.unflatten(0, shape))

    def encode_text(self, clip: Any, tokens: Tensor) -> Tensor:
        """Encode token ids (C, L) by the text tower with its adapters."""
        x = clip.token_embedding(tokens) + clip.positional_embedding[: tokens.shape[1]]
        mask = clip.attn_mask[: tokens.shape[1], : tokens.shape[1]]
        for layer, adapter in zip(clip.transformer.resblocks, self.text_adapters, strict=True):
            x = x + layer.attention(layer.ln_1(x), attn_mask=mask)
            x = x + adapter(x)
            x = x + layer.mlp(layer.ln_2(x))
        x = clip.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)]
        return unit((x @ clip.text_projection).float())

    def scale(self, clip: Any) -> Tensor:
        """Give 100, as the authors do."""
        return torch.tensor(100.0)


class _Adapter(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.D_fc1, self.D_fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        adapted: Tensor = self.D_fc2(F.gelu(self.D_fc1(x)))
        return adapted


def _adapters(own: Mapping[str, Tensor], kind: str) -> nn.ModuleList:
    found = {
        name: t.shape
        for name, t in own.items()
        if re.fullmatch(rf"{kind}_adapters\.\d+\.D_fc1\.weight", name)
    }
    return nn.ModuleList(_Adapter(width, inner) for inner, width in found.values())


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the authors' names into those of the CLIP and of the family's own tensors."""
    clip, own = {}, {}
    names = {
        "visual.temporal_embedding": "temporal_embedding",
        "visual.transformer.T_prompt_embeddings": "prompts",
    }
    for name, tensor in tensors.items():
        adapter = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.Adapter\.(.+)", name)
        if adapter:
            own[f"{'visual' if adapter[1] else 'text'}_adapters.{adapter[2]}.{adapter[3]}"] = tensor
        elif name in names:
            own[names[name]] = tensor
        else:
            clip[name] = tensor
    return clip, own
