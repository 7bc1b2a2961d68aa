"""Where it happens: what a model saw in one video, for a picture of it. Draws nothing itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zsar_cli.prediction.records import Shown

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.alignment import Scores
    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings


@dataclass(frozen=True)
class LabelEvidence:
    """One label: its part of the answer, and the similarities behind it."""

    label: str
    score: float
    yes: float
    similarity: float  # cosine with the positive prompts
    opposed: float | None  # cosine with the negative prompts, where the model uses them


@dataclass(frozen=True)
class LabelHeat:
    """Where a label is seen: what each patch adds to its score against the other labels."""

    label: str
    heat: np.ndarray  # (T, rows, columns) in logits, as if the whole clip were like the patch


@dataclass(frozen=True)
class Evidence:
    """What a model saw in a clip, and what it made of it."""

    frames: np.ndarray  # (T, h, w, 3) uint8, as the model sees them
    heat: np.ndarray  # (T, rows, columns): how strongly each patch moves
    learned: bool  # heat is the length of MSM's motion tokens; if not, how much patch tokens change
    labels: list[LabelEvidence]  # best first
    unknown: float
    where: list[LabelHeat] = field(default_factory=list)  # of the labels that were asked for, or of the best
    shown: Shown | None = None  # the same frames for people, with their times


class HeatMaps:
    """Keeps one view's heat map (T, N) of each video while the features of a batch of videos pass by.

    Give :meth:`embed` to :func:`zsar_cli.features.encoding.map_features`.
    """

    def __init__(self, model: RecognizerModel, view: int) -> None:
        self.model = model
        self.view = view
        self.maps: dict[int, Tensor] = {}  # by the video's number
        self.features: dict[int, FrameFeatures] = {}  # of models with motion modules
        self._seen: Counter[int] = Counter()  # views of each video so far

    def embed(self, features: FrameFeatures, of_video: Sequence[int]) -> Tensor:
        """Embed clips (n, E), which are of these videos."""
        encoding = self.model.encode_video(features)
        for clip, video in enumerate(of_video):
            if self._seen[video] == self.view:
                if encoding.motion_map is not None:
                    self.maps[video] = encoding.motion_map[clip]
                    kind = type(features)
                    self.features[video] = kind(features.embedding[clip], features.tokens[clip])
                elif features.tokens.shape[-1]:  # a cache keeps none for a model without motion modules
                    self.maps[video] = token_change(features.tokens[clip])
            self._seen[video] += 1
        return encoding.embedding

    def of(self, video: int, frames: np.ndarray) -> np.ndarray:
        """Compute the heat map (T, rows, columns) of a video whose ``frames`` (T, h, w, 3) are on show."""
        if video not in self.maps:
            import torch

            from zsar_cli.features.encoding import encode_pixels

            features = encode_pixels(self.model, torch.from_numpy(np.ascontiguousarray(frames[None])))
            self.maps[video] = token_change(features.tokens[0])
            if not features.tokens.shape[-1]:  # a family that keeps no patch tokens
                rows, columns = self.model.backbone.patch_grid
                self.maps[video] = torch.zeros(len(frames), rows * columns)
        heat = self.maps[video].float().cpu().numpy()
        return heat.reshape(len(heat), *self.model.backbone.patch_grid)

    def of_labels(
        self, video: int, frames: np.ndarray, text: PromptEmbeddings, columns: Sequence[int]
    ) -> list[LabelHeat]:
        """Find where these labels are seen; nothing where this model cannot tell."""
        import torch

        from zsar_cli.model.attribution import (
            appearance_heat,
            label_directions,
            motion_heat,
            why_no_label_heat,
        )

        if not columns or why_no_label_heat(self.model) is not None:
            return []
        wanted = label_directions(
            self.model.text_vectors(text.positive), list(columns), _others(self.model, text)
        )
        if video in self.features:
            maps = motion_heat(self.model, self.features[video], wanted)
        else:
            found = appearance_heat(self.model, torch.from_numpy(np.ascontiguousarray(frames)), wanted)
            if found is None:
                return []
            maps, tokens = found
            self.maps.setdefault(video, token_change(tokens))
        return [LabelHeat(text.labels[c], heat.numpy()) for c, heat in zip(columns, maps, strict=True)]


def _others(model: RecognizerModel, text: PromptEmbeddings) -> Tensor | None:
    """Name what a label without others is compared with: its negative, or the bank of other phrases."""
    if model.uses_negatives and text.negative is not None:
        return model.align_negatives(text.positive.float(), text.negative.float()).detach()
    return None if text.bank is None else model.text_vectors(text.bank)


def token_change(tokens: Tensor) -> Tensor:
    """Measure how far each patch token (T, N, D) is from its mean over time (T, N), for a model without MSM."""
    tokens = tokens.float()
    change: Tensor = (tokens - tokens.mean(dim=0)).norm(dim=-1) / tokens.norm(dim=-1).mean()
    return change


def label_evidence(
    scores: Scores, row: int, columns: Sequence[int], labels: Sequence[str]
) -> list[LabelEvidence]:
    """Collect the evidence for these labels of one video of a batch."""
    return [
        LabelEvidence(
            labels[c],
            float(scores.score[row, c]),
            float(scores.yes[row, c]),
            float(scores.similarity[row, c]),
            None if scores.opposed is None else float(scores.opposed[row, c]),
        )
        for c in columns
    ]
