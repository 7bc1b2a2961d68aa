"""What all families share: a CLIP whose frames are averaged, and the parts of its towers that they change.

Shapes: B clips, T frames, P patches, D width of the visual tower, E joint embedding, C labels, W what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli.model.alignment import Scores, score_cosines
from zsar_cli.model.backbone import FrameFeatures

Names: TypeAlias = "Sequence[str]"
Phrases: TypeAlias = "Sequence[Sequence[str]]"
Filled: TypeAlias = "Sequence[Sequence[Sequence[str]]]"
Groups: TypeAlias = "list[list[list[str]]]"


class Family(nn.Module):
    """The tensors that a family adds to a CLIP, and what it does with both. This one adds nothing.

    A video and a text are each kept as a row of numbers, which :meth:`cosines` compares. For most families that is
    the embedding. Where the text depends on the video, or the video on the label set, it is what both are made of.
    """

    across_frames: ClassVar[bool] = False  # a frame's embedding depends on the frames beside it
    own_text: ClassVar[bool] = False  # texts go through :meth:`encode_text` and not through the tower alone
    unit_text: ClassVar[bool] = (
        True  # a text is an embedding of unit length, so that templates can be averaged
    )
    one_text: ClassVar[bool] = False  # what is kept of a text is not averaged with that of others
    averages_probabilities: bool = False  # of views; else their logits are averaged
    descriptors: ClassVar[int] = 0  # of each label, that the scores are made for; 0: its name is enough
    embeds: ClassVar[bool] = True  # what is kept of a video is an embedding
    name: str = ""
    mix: float = 0.0  # the base CLIP's part of the weights
    file: Any = None  # the record of the released file of these sizes
    frames: int | None = None  # T, where the weights fix it
    one_row: ClassVar[bool] = False  # a clip's features are one row, and not one of each frame

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W): embedding (B, T, E) and tokens (B, T, P, D), or (B, 1, W) and no tokens."""
        raise NotImplementedError

    def kept(self, clip: Any, frames: int) -> int:
        """Give W, the width of the row that a clip of so many frames is, where it is one."""
        return int(clip.visual.proj.shape[1])

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """Make the rows that are kept (B, W) of what :meth:`encode_clip` gives: by default ``u(mean_t f_t)``."""
        return unit(features.embedding.float().mean(dim=1))

    def video_embedding(self, clip: Any, video: Tensor) -> Tensor:
        """Give the embeddings (B, E) of videos by what is kept of them, where a video has one."""
        return video

    def encode_text(self, clip: Any, tokens: Tensor) -> Tensor:
        """Encode token ids (C, L) as rows (C, W)."""
        return unit(clip.encode_text(tokens).float())

    def group_texts(self, names: Names, phrases: Phrases, filled: Filled, default: bool) -> Groups:
        """List the texts of each label in groups, as many for all: each is averaged, and the means lie side by side.

        Args:
            names: of the labels, as words.
            phrases: that stand for each label.
            filled: these phrases in each template, by label, phrase and template.
            default: the templates are the family's own.

        Returns:
            texts by label and group; here one group of all.
        """
        return [[[text for of_phrase in of_label for text in of_phrase]] for of_label in filled]

    def apart(self, clip: Any, rows: Tensor) -> Tensor:
        """Split rows (N, K·E) into the embeddings that lie side by side in them, (N, K, E)."""
        split: Tensor = rows.float().unflatten(-1, (-1, int(clip.visual.proj.shape[1])))
        return split

    def text_embedding(self, clip: Any, text: Tensor) -> Tensor:
        """Give the unit vectors (C, E) of texts as they are without a video, to tell which of them are alike."""
        return unit(self.apart(clip, text).mean(dim=-2))

    def cosines(self, clip: Any, video: Tensor, text: Tensor, labels: int) -> Tensor:
        """Compare videos (B, W) with texts (C, W), of which the first ``labels`` are the label set.

        Gives (B, C), or (B, K, C) where each of K templates has probabilities of its own, which are averaged.
        """
        similarity: Tensor = video @ text.T
        return similarity

    def scale(self, clip: Any) -> Tensor:
        """Give what cosines are multiplied with before the softmax."""
        scale: Tensor = clip.logit_scale.float().exp()
        return scale


def score_published(
    family: Family, clip: Any, video: Tensor, positive: Tensor, bank: Tensor | None
) -> Scores:
    """Score videos (B, W), or their views (B, V, W), as the family's authors do; ``yes`` as for a plain CLIP.

    Views are put together by the family's rule: the mean of their logits, or of their probabilities. Templates that
    are kept apart have the mean of their probabilities.
    """
    views = video if video.ndim == 3 else video[:, None]
    text, count = positive, len(positive)
    if bank is not None:
        text = torch.cat([positive, bank.float()])
    cosines = family.cosines(clip, views.flatten(0, 1), text, count).unflatten(0, views.shape[:2])
    if cosines.ndim == 3:
        cosines = cosines[:, :, None]  # (B, V, K, C)
    if not family.averages_probabilities:
        cosines = cosines.mean(dim=1, keepdim=True)
    mean, scale = cosines.mean(dim=(1, 2)), family.scale(clip).to(cosines.device)
    scores = score_cosines(mean[:, :count], mean[:, count:], scale=scale)
    if cosines.shape[1] * cosines.shape[2] > 1:
        scores.score = (scale * cosines[..., :count]).softmax(dim=-1).mean(dim=(1, 2))
        scores.logits = scores.score.log()
    return scores


def unit(x: Tensor) -> Tensor:
    """Scale vectors to length one."""
    scaled: Tensor = F.normalize(x, dim=-1)
    return scaled


def patches(visual: Any, pixels: Tensor) -> Tensor:
    """Cut frames (F, 3, H, W) into patches, as the visual tower embeds them: (F, P, D)."""
    found: Tensor = visual.conv1(pixels)
    return found.flatten(2).transpose(1, 2)


def enter(visual: Any, embedded: Tensor, of_time: Tensor | None = None) -> Tensor:
    """Put the class token before the patches (F, P, D), add positions, normalise: what the first block gets.

    ``of_time`` (F, D) is added to all tokens of a frame.
    """
    start = visual.class_embedding.expand(len(embedded), 1, -1)
    x = torch.cat([start, embedded], dim=1) + visual.positional_embedding
    entered: Tensor = visual.ln_pre(x if of_time is None else x + of_time[:, None])
    return entered


def leave(visual: Any, x: Tensor) -> Tensor:
    """Project what the last block gives (..., D) to the joint space (..., E)."""
    projected: Tensor = visual.ln_post(x) @ visual.proj
    return projected


def project(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute queries, keys and values of x (B, N, D), each (B, heads, N, D / heads)."""
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (split_heads(part, attention.num_heads) for part in projected.chunk(3, dim=-1))
    return q, k, v


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) to (B, heads, N, D / heads)."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, N, D / heads) to (B, N, D)."""
    return x.transpose(1, 2).flatten(2)


def block(width: int, heads: int, eps: float = 1e-5) -> Any:
    """Build an ordinary pre-norm block of CLIP with QuickGELU, not yet filled."""
    from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock

    return ResidualAttentionBlock(
        width, heads, act_layer=QuickGELU, norm_layer=lambda size: LayerNorm(size, eps=eps)
    )
