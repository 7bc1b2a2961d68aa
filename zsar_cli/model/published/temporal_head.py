"""A temporal transformer after ordinary frame embeddings: MoTE, Text4Vis, BIKE's plain path, ActionCLIP.

MoTE: Zhu et al., NeurIPS 2024. Text4Vis: Wu et al., AAAI 2023. BIKE: Wu et al., CVPR 2023.
ActionCLIP: Wang et al., 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.published.family import Family, Filled, Groups, Names, Phrases, block, unit

NEAREST = 5  # labels, and classes of the training, that MoTE's gate compares
GATE_TEMPERATURE = 0.05


class TemporalHead(Family):
    """Frame embeddings of an unchanged CLIP, their mean, and the mean of what a transformer over time makes of them.

    Kept of a video: ``mean_t f_t`` and ``mean_t x_t``, (B, 2E); MoTE weighs them by the label set.
    """

    embeds = False

    def __init__(self, own: Mapping[str, Tensor], text_width: int, scale: float | None) -> None:
        """``scale``: of the logits; None where it is CLIP's own."""
        super().__init__()
        length, width = own["frame_position_embeddings.weight"].shape
        layers = {
            int(found[1]) for name in own if (found := re.match(r"transformer\.resblocks\.(\d+)\.", name))
        }
        self.frame_position_embeddings = nn.Embedding(length, width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(block(width, text_width // 64, eps=1e-12) for _ in layers)
        self.fixed_scale = scale
        self.spe_cls_feature: Tensor | None
        classes = own.get("spe_cls_feature")
        self.register_buffer("spe_cls_feature", None if classes is None else torch.empty_like(classes))

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """Keep the mean of the frame embeddings and that of the head's output."""
        frames = features.embedding.float()
        x = frames + self.frame_position_embeddings.weight[: frames.shape[1]]
        for layer in self.transformer.resblocks:  # type: ignore[union-attr]
            x = layer(x)
        return torch.cat([frames.mean(dim=1), x.mean(dim=1)], dim=-1)

    def cosines(self, clip: Any, video: Tensor, text: Tensor, labels: int) -> Tensor:
        """Compare ``mean f + rho mean x`` with the labels."""
        frames, head = video.chunk(2, dim=-1)
        return unit(frames + self.gate(frames, text[:labels]) * head) @ text.T

    def gate(self, frames: Tensor, labels: Tensor) -> Tensor:
        """Weigh the head, (B, 1): MoTE's falls as the labels near a video (B, E) differ from the classes it learned."""
        if self.spe_cls_feature is None:
            return torch.ones_like(frames[:, :1])
        mean = unit(frames)
        near, learned = (_nearest(mean, rows) for rows in (labels, self.spe_cls_feature))
        alike = (near @ learned.transpose(1, 2)).amax(dim=-1).mean(dim=-1, keepdim=True)
        return torch.exp((alike - 1) / GATE_TEMPERATURE)

    def scale(self, clip: Any) -> Tensor:
        """Give 100, or CLIP's own where the authors take that."""
        return super().scale(clip) if self.fixed_scale is None else torch.tensor(self.fixed_scale)


class ActionCLIP(TemporalHead):
    """The same head, and a softmax over the labels for each template, whose probabilities are averaged.

    Kept of a text: the embedding with each of K templates, (C, K·E).
    """

    def group_texts(self, names: Names, phrases: Phrases, filled: Filled, default: bool) -> Groups:
        """Keep the templates apart."""
        return [[list(of_template) for of_template in zip(*of_label, strict=True)] for of_label in filled]

    def cosines(self, clip: Any, video: Tensor, text: Tensor, labels: int) -> Tensor:
        """Compare ``mean f + mean x`` with the labels in each template, (B, K, C)."""
        frames, head = video.chunk(2, dim=-1)
        return torch.einsum("be,cke->bkc", unit(frames + head), self.apart(clip, text))


def _nearest(video: Tensor, rows: Tensor) -> Tensor:
    """Find the rows (N, E) most like each video (B, E): (B, 5, E), or fewer where there are fewer."""
    return rows[(video @ rows.T).topk(min(NEAREST, len(rows)), dim=-1).indices]


def merge_experts(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average the experts of MoTE's MLPs into one, by their learned weights; other heads stay as they are.

    The names are then those of CLIP's blocks.
    """
    merged = {
        name: t
        for name, t in own.items()
        if not re.search(r"\.mlp\.(fc_up|fc_dn)\.|mote_fusion_weight", name)
    }
    for name, weight in own.items():
        if not name.endswith(".mlp.mote_fusion_weight"):
            continue
        share, mlp = weight.float().softmax(dim=0), name.removesuffix("mote_fusion_weight")
        for old, new in (("fc_up", "c_fc"), ("fc_dn", "c_proj")):
            for kind in ("weight", "bias"):
                experts = torch.stack([own[f"{mlp}{old}.{i}.{kind}"].float() for i in range(len(share))])
                merged[f"{mlp}{new}.{kind}"] = torch.tensordot(share, experts, dims=1)
    return merged
