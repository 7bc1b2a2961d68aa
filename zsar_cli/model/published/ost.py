"""OST (Chen et al., CVPR 2024): frames are matched with descriptions of a label by optimal transport.

A label has four spatial and four temporal descriptors, texts that a language model wrote of it.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.published.family import Family, Filled, Groups, Names, Phrases, unit
from zsar_cli.run_log import NOTE

logger = logging.getLogger(__name__)

EACH = 4  # descriptors of a set; a label has a spatial and a temporal one
SPATIAL, TEMPORAL = "This is a video about {}", "A video of {} usually includes {}"
EPSILON = 0.1  # of the entropy that smooths the transport
STEPS = 100
CLOSE_ENOUGH = 1e-2  # change of the scaling of frames in a step


class OST(Family):
    """A plain CLIP for labels that are names; for labels with descriptors, transport and pooling of each set.

    Kept of a video: the embedding of each frame, (B, T·E). Kept of a text: its embedding, (C, E), or those of the
    descriptors, (C, 8·E), the spatial ones first.
    """

    descriptors = 2 * EACH

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """Keep all frames, as the plan depends on the labels."""
        return features.embedding.float().flatten(1)

    def video_embedding(self, clip: Any, video: Tensor) -> Tensor:
        """Average the frames: ``u(mean_t f_t)``."""
        return unit(self.apart(clip, video).mean(dim=-2))

    def group_texts(self, names: Names, phrases: Phrases, filled: Filled, default: bool) -> Groups:
        """Keep the descriptors apart, where every label has them; of all else the mean."""
        counts = {len(of_label) for of_label in phrases}
        if counts != {self.descriptors}:
            if max(counts) > 1:
                logger.log(
                    NOTE,
                    "OST matches frames with %d spatial and %d temporal descriptors of each label; descriptions of "
                    "other numbers are averaged, and frames too",
                    *(EACH, EACH),
                )
            return super().group_texts(names, phrases, filled, default)
        if not default:
            return [[list(of_phrase) for of_phrase in of_label] for of_label in filled]
        return [
            [[SPATIAL.format(text)] for text in of_label[:EACH]]
            + [[TEMPORAL.format(name, text)] for text in of_label[EACH:]]
            for name, of_label in zip(names, phrases, strict=True)
        ]

    def cosines(self, clip: Any, video: Tensor, text: Tensor, labels: int) -> Tensor:
        """Compare by the transported and the pooled similarity of each set, half their sum, added over both sets."""
        descriptors = self.apart(clip, text)
        if descriptors.shape[1] == 1:
            return super().cosines(clip, self.video_embedding(clip, video), text, labels)
        rows = []
        for frames in unit(self.apart(clip, video)):
            similarity = torch.einsum("te,cke->ctk", frames, descriptors)
            sets = similarity.split(EACH, dim=-1)
            of_sets = [(matched(part) + part.mean(dim=(-2, -1))) / 2 for part in sets]
            rows.append(torch.stack(of_sets).sum(dim=0))
        return torch.stack(rows)


def matched(similarity: Tensor) -> Tensor:
    """Average similarities (..., T, K) as their transport plan weighs them, (...)."""
    return (transport(similarity) * similarity).sum(dim=(-2, -1))


def transport(similarity: Tensor) -> Tensor:
    """Plan the transport between T frames and K descriptors, by Sinkhorn's algorithm (Cuturi, 2013).

    The cost is ``1 - similarity``. All frames have the same mass, and so have all descriptors. A plan is ready when
    the scaling of its frames hardly changes, whatever the plans beside it.

    Args:
        similarity: cosines (..., T, K).

    Returns:
        (..., T, K), not negative; sums to 1. No gradients.
    """
    kernel = ((similarity.detach() - 1) / EPSILON).exp()
    frames, descriptors = kernel.shape[-2:]
    r, c = torch.ones_like(kernel[..., :1]), torch.ones_like(kernel[..., :1, :])
    moving = torch.ones_like(r[..., :1, :], dtype=torch.bool)
    for _ in range(STEPS):
        r_next = 1 / frames / (kernel * c).sum(dim=-1, keepdim=True)
        c_next = 1 / descriptors / (kernel * r_next).sum(dim=-2, keepdim=True)
        change = (r_next - r).abs().mean(dim=-2, keepdim=True)
        r, c = torch.where(moving, r_next, r), torch.where(moving, c_next, c)
        moving = moving & (change >= CLOSE_ENOUGH)
        if not torch._C._get_tracing_state() and not moving.any():  # a graph has all steps
            break
    return r * kernel * c
