"""The whole model: a CLIP backbone, motion separation and aggregation, and alignment with prompts; and how it is saved.

An untrained model is the frame-averaged CLIP, bit for bit: ``v = normalize(mean_t f_t + w W_o mean_k q_k)`` with
``W_o`` zero at the start, so training can only add to it. ``w`` is how much the clip moves, so a still one stays
plain CLIP after training too. Equations: :mod:`zsar_cli.model.motion` and
:mod:`zsar_cli.model.alignment`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli import __version__
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, checksum
from zsar_cli.model.alignment import (
    NegativeAdapter,
    Scores,
    average_views,
    score_with_bank,
    score_with_negatives,
)
from zsar_cli.model.backbone import Backbone, FrameFeatures
from zsar_cli.model.config import prompted
from zsar_cli.model.motion import MotionAggregation, MotionSeparation, Separation
from zsar_cli.model.parts import PLAIN, Parts
from zsar_cli.model.published.family import score_published
from zsar_cli.model.published.records import families
from zsar_cli.video.sampling import Sampling, Way
from zsar_cli.video.transforms import Preprocess
from zsar_cli.yaml_files import dump


@dataclass
class VideoEncoding:
    """A batch of encoded clips."""

    embedding: Tensor  # (B, E) of unit length
    separation: Separation | None = None  # what MSM made of the clips
    motion: Tensor | None = None  # (B, M) pooled motion, before and
    refined: Tensor | None = None  # (B, M) after aggregation, as far as the clip moves
    static: Tensor | None = None  # (B, M) pooled static context

    @property
    def motion_map(self) -> Tensor | None:
        """(B, T, N) how strongly each patch moves; None where the model has no MSM."""
        return None if self.separation is None else self.separation.strength


@dataclass
class TrainingRecord:
    """What a model remembers of its training; written to ``config.yaml`` beside the weights."""

    name: str | None = None  # what it was loaded as
    templates: str | None = None
    template_texts: dict[str, list[str]] | None = (
        None  # positive and negative; old models have their name alone
    )
    frames: int = 8
    clip_seconds: float | None = None  # of video that a clip was, where all were as long
    data: str | None = None
    data_root: str | None = None
    classes: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)  # of the classes, as prompts had them
    metrics: dict[str, float] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def prompted(self) -> dict[str, str]:
        """What prompts called each class in training."""
        return prompted(self.classes, self.phrases)


class RecognizerModel(nn.Module):
    """Clips in, embeddings and scores out."""

    def __init__(
        self,
        backbone: Backbone,
        parts: Parts = PLAIN,
        record: TrainingRecord | None = None,
        *,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts, self.as_published = parts, as_published
        self.way: Way | None = None  # of choosing frames, where it is neither the usual one nor the family's
        self.record = record or TrainingRecord()
        self.beta = 0.0
        if parts.separation and backbone.precision == "int8" and not backbone.fine:
            raise UsageError("Motion needs patch tokens in fine int8: set_precision('int8', fine=True).")
        width = parts.width
        self.msm = MotionSeparation(backbone.token_dim, width) if parts.separation else None
        self.mab = (
            MotionAggregation(width, parts.queries, parts.layers, parts.heads, parts.gated)
            if parts.separation and parts.aggregation
            else None
        )
        self.project = nn.Linear(width, backbone.embed_dim, bias=False) if parts.separation else None  # W_o
        if self.project is not None:
            nn.init.zeros_(self.project.weight)
        self.probes: nn.ModuleDict | None = None  # only while L_dis trains the model
        self.adapter = NegativeAdapter(backbone.embed_dim) if parts.negatives == "learned" else None
        self.log_scale = nn.Parameter(backbone.logit_scale.detach().float().log().reshape(()).clone())  # tau
        classes = len(self.record.classes) if parts.residual else 0
        self.residual = (
            nn.Parameter(torch.zeros(classes, backbone.embed_dim)) if parts.residual else None
        )  # r
        if parts.negatives != "none":
            self.log_negative_scale = nn.Parameter(torch.tensor(10.0).log())  # tau_n
            self.offset = nn.Parameter(torch.zeros(()))

    # --- properties that the engines ask for

    @property
    def name(self) -> str:
        """What the model is called in records and error messages."""
        return self.record.name or self.backbone.spec

    @property
    def published(self) -> Any:
        """The published family whose own scores these are; None for a CLIP, or for one that is trained further."""
        return self.backbone.family if self.as_published else None

    @property
    def uses_negatives(self) -> bool:
        """Tell whether negative prompts take part in the scores; if not, none need be encoded."""
        return self.parts.negatives != "none"

    @property
    def templates(self) -> str | None:
        """The prompt templates the model was trained with, if it was."""
        return self.record.templates

    @property
    def frames(self) -> int:
        """Frames of a view that the model was trained with; 8 for one that was not."""
        return self.record.frames

    @property
    def clip_seconds(self) -> float | None:
        """How many seconds of video a clip was that the model was trained on; None where that was any."""
        return self.record.clip_seconds

    @property
    def trained_on(self) -> dict[str, Any] | None:
        """``{"data": name, "classes": [...]}``, or None for a model that saw no videos."""
        return {"data": self.record.data, "classes": self.record.classes} if self.record.data else None

    @property
    def preprocess(self) -> Preprocess:
        """How pixels must be prepared for the visual tower."""
        return self.backbone.preprocess

    def added_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """List everything that is not the backbone, by name."""
        return [(name, p) for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def fingerprint(self) -> str:
        """Name the model's weights by 16 hex digits, whatever the precision that it computes in.

        SHA-256 over the backbone's fingerprint, taken before its weights are rounded, and all other weights whole.
        """
        digest = hashlib.sha256(self.backbone.fingerprint().encode())
        for name, tensor in sorted(self.state_dict().items()):
            if not name.startswith("backbone."):
                digest.update(name.encode())
                digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    # --- video

    def encode_frames(self, pixels: Tensor) -> FrameFeatures:
        """Run the visual tower once over every frame.

        Args:
            pixels: normalised (B, T, 3, H, W).

        Returns:
            embedding (B, T, E), not normalised, and tokens (B, T, N, D).
        """
        return self.backbone.encode_clips(pixels)

    def encode_video(self, features: FrameFeatures) -> VideoEncoding:
        """Compute ``v = normalize(mean_t f_t + w W_o mean_k q_k)`` from frame features with leading (B, T)."""
        family = self.backbone.family
        if family is None:
            pooled = features.embedding.float().mean(dim=1)
        else:
            kept = family.encode_video(self.backbone.clip, features)
            if self.published is not None:
                return VideoEncoding(kept)
            pooled = family.video_embedding(self.backbone.clip, kept)
        if self.msm is None or self.project is None:
            return VideoEncoding(F.normalize(pooled, dim=-1))
        tokens = features.tokens.to(self.project.weight.dtype)
        separation = self.msm(tokens)
        motion = separation.motion.mean(dim=(1, 2))
        refined = motion
        if self.mab is not None:
            refined = self.mab(separation, self.backbone.patch_grid).mean(dim=1)
        if self.parts.damped:
            refined = separation.amount[:, None].to(refined.dtype) * refined
        return VideoEncoding(
            embedding=F.normalize(pooled + self.project(refined).float(), dim=-1),
            separation=separation,
            motion=motion,
            refined=refined,
            static=separation.static.mean(dim=1),
        )

    def forward(self, pixels: Tensor) -> VideoEncoding:
        """Encode normalised clips (B, T, 3, H, W)."""
        return self.encode_video(self.encode_frames(pixels))

    def choose(self, frames: int | None, views: int) -> Sampling:
        """Choose the frames of ``views`` clips of a video; None: as many a clip as the model was trained with."""
        family = self.published
        usual: Way = "segments" if family is None else families()[family.name].sampling
        return Sampling(frames or self.frames, views, self.way or usual, self.clip_seconds)

    def text_vectors(self, text: Tensor) -> Tensor:
        """Give texts as vectors of unit length (C, E), also of a family that keeps something else of them."""
        family = self.published
        if family is None:
            return text.float()
        vectors: Tensor = family.text_embedding(self.backbone.clip, text)
        return vectors

    def video_vectors(self, video: Tensor) -> Tensor:
        """Give videos, or views of them, as embeddings (..., E), also of a family that keeps something else of them."""
        family = self.published
        if family is None:
            return video
        vectors: Tensor = family.video_embedding(self.backbone.clip, video)
        return vectors

    def require_embedding(self) -> None:
        """UsageError where a video has no embedding that texts, or other videos, are compared with."""
        if self.published is not None and not self.published.embeds:
            raise UsageError(
                f"{self.name} compares videos with labels in a way of its own and has no embedding of a video; use "
                "another model."
            )

    def join_views(self, views: Tensor) -> Tensor:
        """Join the views of videos (B, V, E) to (B, E); of a published family they stay apart until they are scored."""
        return average_views(views) if self.published is None else views

    # --- scores

    def learn_classes(self, classes: Sequence[str]) -> None:
        """Give each class a residual ``r_c`` to learn; zero, or what the model has of a class of that name."""
        known = (
            {} if self.residual is None else dict(zip(self.record.classes, self.residual.data, strict=True))
        )
        nothing = torch.zeros(self.backbone.embed_dim, device=self.log_scale.device)
        self.residual = nn.Parameter(torch.stack([known.get(name, nothing) for name in classes]))
        self.parts = replace(self.parts, residual=True)
        self.record.classes, self.record.phrases = list(classes), []

    def align_positives(self, labels: Sequence[str], positive: Tensor) -> Tensor:
        """Add residuals to the positives (C, E) of learned classes: ``p_c <- normalize(p_c + r_c)``.

        As in TaskRes (Yu et al., CVPR 2023): what a few clips teach of a class is added to what its name says. Other
        labels stay as the text tower has them.
        """
        if self.residual is None:
            return positive
        if list(labels) == self.record.classes:
            return F.normalize(positive + self.residual.to(positive), dim=-1)
        place = {name.casefold(): number for number, name in enumerate(self.record.classes)}
        rows = [place.get(label.casefold(), -1) for label in labels]
        padded = F.pad(self.residual, (0, 0, 0, 1)).to(positive)  # -1: the row of zeros
        return F.normalize(positive + padded[rows], dim=-1)

    def align_negatives(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Move the negatives (C, E) by the adapter, where there is one."""
        return negative if self.adapter is None else self.adapter(positive, negative)

    @torch.no_grad()
    def score(
        self, video: Tensor, positive: Tensor, negative: Tensor | None = None, bank: Tensor | None = None
    ) -> Scores:
        """Score video embeddings (B, E) against labels.

        Args:
            video: of a published family also (B, V, W), see :meth:`join_views`.
            positive: (C, E) of unit length.
            negative: (C, E); needed where :attr:`uses_negatives`.
            bank: (P, E) other phrases, without those too close to a label (:meth:`PromptEmbeddings.rivals`); gives
                ``yes`` and ``unknown`` a meaning where negatives have none.
        """
        video, positive, scale = video.float(), positive.float(), self.log_scale.exp()
        if self.published is not None:
            return score_published(self.published, self.backbone.clip, video, positive, bank)
        if self.uses_negatives:
            if negative is None:
                raise UsageError(
                    f"{self.name} needs negative prompts, and these prompt embeddings have none."
                )
            return score_with_negatives(
                video,
                positive,
                self.align_negatives(positive, negative.float()),
                scale=scale,
                negative_scale=self.log_negative_scale.exp(),
                offset=self.offset,
                beta=self.beta,
            )
        return score_with_bank(video, positive, positive[:0] if bank is None else bank.float(), scale=scale)

    # --- files

    def save(self, directory: str | Path, *, backbone: bool = True, half: bool = False) -> None:
        """Write ``model.safetensors`` and ``config.yaml`` into ``directory``.

        ``backbone=False`` leaves the backbone's weights out: they are then found by its name when loading.
        ``half`` stores fp16.
        """
        if self.published is not None:
            raise UsageError(f"{self.name} is saved as it was published; keep its file.")
        if backbone and self.backbone.precision == "int8":
            raise UsageError("A model in int8 has no weights to save; load it with precision='fp32'.")
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: (tensor.half() if half and tensor.is_floating_point() else tensor)
            .detach()
            .contiguous()
            .cpu()
            for name, tensor in self.state_dict().items()
            if not name.startswith("probes.") and (backbone or not name.startswith("backbone."))
        }
        config = {
            "format": 1,
            "zsar": __version__,
            "backbone": self.backbone.spec,
            "backbone_fingerprint": None if backbone else self.backbone.fingerprint(),
            "architecture": self.backbone.model_cfg if backbone else None,
            "family": self.backbone.family.name if backbone and self.backbone.family is not None else None,
            "preprocess": json.loads(json.dumps(asdict(self.backbone.preprocess))) if backbone else None,
            "parts": asdict(self.parts),
            "beta": self.beta,
            **{key: value for key, value in asdict(self.record).items() if key != "name"},
        }
        with atomic_write(directory / "model.safetensors") as aside:
            save_file(tensors, aside)
            config["weights_crc32"] = checksum(aside)
        with atomic_write(directory / "config.yaml") as aside:
            Path(aside).write_text(dump(config), encoding="utf-8")
