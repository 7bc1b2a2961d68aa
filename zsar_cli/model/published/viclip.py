"""ViCLIP (Wang et al., ICLR 2024): all frames in one sequence, with one class token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.published.family import Family, leave, patches


class ViCLIP(Family):
    """A CLIP that attends over space and time together. Kept of a video: its embedding."""

    across_frames = True
    one_row = True

    def __init__(self, own: Mapping[str, Tensor]) -> None:
        super().__init__()
        shape = own["temporal_positional_embedding"].shape
        self.frames = shape[1]
        self.temporal_positional_embedding = nn.Parameter(torch.empty(shape))

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W) as one embedding each."""
        visual, shape = clip.visual, pixels.shape[:2]
        embedded = patches(visual, pixels.flatten(0, 1)).unflatten(0, shape)
        embedded = embedded + visual.positional_embedding[1:] + self.temporal_positional_embedding[:, :, None]
        start = (visual.class_embedding + visual.positional_embedding[0]).expand(len(embedded), 1, -1)
        x = visual.ln_pre(torch.cat([start, embedded.flatten(1, 2)], dim=1))
        for layer in visual.transformer.resblocks:
            x = layer(x)
        kept = leave(visual, x[:, :1])
        return FrameFeatures(kept, kept.new_zeros(len(kept), 1, 0, 0))

    def scale(self, clip: Any) -> Tensor:
        """Give 100, as the authors do whatever the temperature learned."""
        return torch.tensor(100.0)


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the authors' names into those of the CLIP and of the family's own tensors."""
    clip, own = {}, {}
    for name, tensor in tensors.items():
        if name == "vision_encoder.temporal_positional_embedding":
            own["temporal_positional_embedding"] = tensor
        elif name == "vision_encoder.conv1.weight" and tensor.ndim == 5:
            clip["visual.conv1.weight"] = tensor.squeeze(2)  # one frame deep
        elif name == "temp":
            clip["logit_scale"] = -tensor.float().log()
        else:
            clip[name.replace("vision_encoder.", "visual.", 1).removeprefix("text_encoder.")] = tensor
    return clip, own
