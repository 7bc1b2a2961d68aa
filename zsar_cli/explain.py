"""Where it happens: what a model saw in one video, for a picture of it. Draws nothing itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.records import NONE_OF_THESE, Failure, LabelScore, Prediction
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.workers import Clip, ClipRequest, DecodePool

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.model.recognizer import RecognizerModel
    from zsar_cli.prediction import ClipOptions


class Texts(Protocol):
    """Labels as a model compares videos with them; the engines' own forms all fit."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def positive(self) -> Tensor: ...
    @property
    def negative(self) -> Tensor | None: ...
    @property
    def bank(self) -> Tensor | None: ...


@dataclass(frozen=True)
class LabelEvidence:
    """One label: its part of the answer, and the similarities behind it."""

    label: str
    score: float
    yes: float
    similarity: float  # cosine with the positive prompts
    opposed: float | None  # cosine with the negative prompts, where the model uses them


@dataclass(frozen=True)
class Evidence:
    """What a model saw in a clip, and what it made of it."""

    frames: np.ndarray  # (T, h, w, 3) uint8, as the model sees them
    heat: np.ndarray | None  # (T, rows, columns)
    learned: bool  # heat is the length of MSM's motion tokens; if not, how much patch tokens change
    labels: list[LabelEvidence]  # best first
    unknown: float


def examine(
    model: RecognizerModel, pixels: np.ndarray, text: Texts, *, crops: int = 1, top_k: int = 5
) -> Evidence:
    """Look at one video of V clips, (V, T, h, w, 3) uint8, once through the tower; the first view is shown.

    The scores are those of ``zsar predict``.
    """
    import torch
    from torch.nn import functional as F

    from zsar_cli.video.transforms import normalise

    backbone = model.backbone
    with torch.inference_mode():
        clips = torch.from_numpy(np.ascontiguousarray(pixels)).to(backbone.device)
        features = model.encode_frames(normalise(clips, model.preprocess, backbone.dtype))
        encoding = model.encode_video(features)
        video = F.normalize(encoding.embedding.mean(dim=0, keepdim=True), dim=-1)
        scores = model.score(video, text.positive, text.negative, text.bank)
        shown = crops // 2  # the centre
        motion_map = encoding.motion_map
        heat = _token_change(features, shown) if motion_map is None else motion_map[shown]
    best = scores.score[0].topk(min(top_k, len(text.labels))).indices.tolist()
    labels = [
        LabelEvidence(
            text.labels[c],
            float(scores.score[0, c]),
            float(scores.yes[0, c]),
            float(scores.similarity[0, c]),
            None if scores.opposed is None else float(scores.opposed[0, c]),
        )
        for c in best
    ]
    return Evidence(
        frames=np.asarray(pixels[shown]),
        heat=_as_grid(heat.float().cpu().numpy(), model.preprocess.size),
        learned=motion_map is not None,
        labels=labels,
        unknown=float(scores.unknown[0]),
    )


def run_explained(
    model: RecognizerModel,
    videos: Iterable[str],
    text: Texts,
    pool: DecodePool,
    options: ClipOptions,
    *,
    top_k: int = 5,
    threshold: float | None = None,
    stop: threading.Event | None = None,
) -> Iterator[tuple[Prediction | Failure, Evidence | None]]:
    """The result of each video, as ``zsar predict`` gives it, and its evidence; one video at a time."""
    stop = stop or threading.Event()
    sampling = Sampling(options.frames, options.views)
    paths: list[str] = []

    def requests() -> Iterator[ClipRequest]:
        for path in videos:
            paths.append(path)
            yield ClipRequest(path, sampling, model.preprocess, options.crops, options.decoder)

    for number, clip in enumerate(pool.imap(requests())):
        if stop.is_set():
            return
        if isinstance(clip, VideoError):
            yield Failure(paths[number], clip.kind, clip.message), None
            continue
        evidence = examine(model, clip.pixels, text, crops=options.crops, top_k=top_k)
        yield _prediction(paths[number], clip, evidence, threshold), evidence


def _prediction(path: str, clip: Clip, evidence: Evidence, threshold: float | None) -> Prediction | Failure:
    if evidence.unknown != evidence.unknown:  # NaN
        return Failure(
            path, "not_finite", "the model's numbers overflowed on this video; use --precision fp32"
        )
    found = [LabelScore(e.label, e.score, e.yes) for e in evidence.labels]
    answer = None
    if threshold is not None:
        answer = NONE_OF_THESE if evidence.unknown > threshold else found[0].label
    frames = int(clip.indices.size)
    return Prediction(path, found, evidence.unknown, clip.info.duration, frames, answer, clip.warning)


def _token_change(features: FrameFeatures, clip: int) -> Any:
    """How far each patch token (T, N) is from its mean over time: what a model without MSM can show of motion."""
    tokens = features.tokens[clip].float()
    return (tokens - tokens.mean(dim=0)).norm(dim=-1) / tokens.norm(dim=-1).mean()


def _as_grid(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """(T, N) to (T, rows, columns) of an image of ``size``; None where N patches fill no rectangle of its shape."""
    patches = heat.shape[1]
    rows = max(1, round((patches * size[0] / size[1]) ** 0.5)) if patches else 0
    if not rows or patches % rows:
        return None
    return heat.reshape(len(heat), rows, patches // rows)
