"""The evaluation engine: videos to records, records to numbers.

A record is all that is kept of a video (one line of ``predictions.jsonl``): every number can be recomputed
from the records, so a run that was stopped goes on from them and ends in the same results.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zsar_cli import metrics
from zsar_cli.data.clips import is_rendered, render_request
from zsar_cli.data.definitions import Item
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.feature_cache import FeatureCache, Loaded, load_cached, map_features
from zsar_cli.model.alignment import score_with_bank, usable_bank
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.workers import ClipRequest, DecodePool

if TYPE_CHECKING:
    from zsar_cli.model.recognizer import RecognizerModel
    from zsar_cli.protocols import Part

# How sure is the model that none of the labels fits? Higher is "unknown" for each.
UNKNOWN_SCORES = ("yes", "softmax", "energy", "bank")
PROBES = ("shuffled", "reversed", "frozen")


@dataclass(frozen=True)
class Options:
    """How videos are shown to the model; ``views`` and ``crops`` multiply, their scores are averaged."""

    frames: int = 8
    views: int = 1
    crops: int = 1
    batch_size: int = 8
    workers: int = 2
    decoder: str = "auto"
    timeout: float = 60.0
    probe_motion: bool = False
    seed: int = 0


@dataclass
class TextSide:
    """The embeddings of one label set: positive (C, E), negative (C, E) or None, bank (P, E) or None."""

    labels: tuple[str, ...]
    positive: Tensor
    negative: Tensor | None = None
    bank: Tensor | None = None


# --- scores to records --------------------------------------------------------------------------------------


@torch.no_grad()
def score_records(
    model: RecognizerModel, embedding: Tensor, targets: Sequence[int], text: TextSide
) -> list[dict[str, Any]]:
    """What is kept of each video.

    Args:
        embedding: (B, E); the mean over views, not normalised again: logits are the mean of the views'.
        targets: index of the true label of each, -1 where it is none of them.

    Returns:
        a dict each: ``label`` and ``rank`` (0 is best; None for unknown videos), ``top`` (five pairs of label
        and score), ``unknown`` (see :data:`UNKNOWN_SCORES`).
    """
    bank = None if text.bank is None else usable_bank(text.bank.float(), text.positive.float())
    if bank is not None and not len(bank):
        bank = None  # every phrase of the bank is too close to a label: scores do without
    scores = model.score(embedding, text.positive, text.negative, None if bank is None else text.bank)
    unknown = {
        "yes": 1 - scores.yes.amax(-1),
        "softmax": 1 - scores.score.amax(-1),
        "energy": -scores.logits.logsumexp(-1),
    }
    if bank is not None:
        scale = model.log_scale.exp()
        unknown["bank"] = score_with_bank(embedding.float(), text.positive.float(), bank, scale=scale).unknown
    probability = scores.score.double().cpu().numpy()
    logits = scores.logits.double().cpu().numpy()
    kinds = {kind: value.double().cpu().numpy() for kind, value in unknown.items()}
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    records: list[dict[str, Any]] = []
    for row, target in enumerate(targets):
        rank = int(metrics.true_ranks(logits[row : row + 1], [target])[0]) if target >= 0 else None
        records.append(
            {
                "label": text.labels[target] if target >= 0 else None,
                "rank": rank,
                "top": [[text.labels[c], round(float(probability[row, c]), 6)] for c in best[row]],
                "unknown": {kind: round(float(values[row]), 6) for kind, values in kinds.items()},
            }
        )
    return records


def evaluate_embeddings(
    model: RecognizerModel, embeddings: Tensor, targets: Sequence[int], text: TextSide
) -> dict[str, Any]:
    """Metrics (see :func:`summarise`) of video embeddings (N, E) that are already at hand."""
    return summarise(score_records(model, embeddings, targets, text), text.labels)


def summarise(records: Iterable[dict[str, Any]], labels: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Numbers of one part of an evaluation, from its records alone.

    ``top1`` is over the videos that could be read; ``top1_lower`` counts those that could not as wrong.
    Unknown videos (no ``label``) take no part.
    """
    known = [r for r in records if "error" not in r and r["label"] is not None]
    failed = sum("error" in r for r in records)
    place = {name: index for index, name in enumerate(labels)}
    ranks = np.array([r["rank"] for r in known], dtype=np.int64)
    truth = np.array([place[r["label"]] for r in known], dtype=np.int64)
    predicted = np.array([place[r["top"][0][0]] for r in known], dtype=np.int64)
    confidence = np.array([r["top"][0][1] for r in known], dtype=np.float64)
    right = (predicted == truth).astype(np.float64)
    correct = (ranks == 0).astype(np.float64)
    curve = metrics.reliability(confidence, right)
    result: dict[str, Any] = {
        "videos": len(known),
        "unreadable": failed,
        "classes": len(labels),
        "top1": metrics.top_k(ranks, 1),
        "top5": metrics.top_k(ranks, 5),
        "top1_interval95": list(metrics.bootstrap_interval(correct, seed=seed)),
        "top1_lower": float(correct.sum()) / (len(known) + failed) if known else float("nan"),
        "mean_class_accuracy": metrics.mean_class_accuracy(ranks, truth, len(labels)),
        "ece": metrics.expected_calibration_error(confidence, right),
        "reliability": {
            "edges": curve.edges.tolist(),
            "count": curve.count.tolist(),
            "confidence": _numbers(curve.confidence),
            "accuracy": _numbers(curve.accuracy),
        },
    }
    if known and "probes" in known[0]:
        result["probes"] = {
            probe: {
                "top1": (top1 := metrics.top_k([r["probes"][probe] for r in known], 1)),
                "cost": result["top1"] - top1,
            }
            for probe in PROBES
        }
    return result


def class_table(records: Iterable[dict[str, Any]], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Confusion counts (C, C) and top-1 of each class (C,)."""
    known = [r for r in records if "error" not in r and r["label"] is not None]
    place = {name: index for index, name in enumerate(labels)}
    truth = [place[r["label"]] for r in known]
    counts = metrics.confusion_matrix(truth, [place[r["top"][0][0]] for r in known], len(labels))
    return counts, metrics.per_class_accuracy([r["rank"] for r in known], truth, len(labels))


def detect_unknown(known: Iterable[dict[str, Any]], unknown: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """AUROC, AUPR and FPR at 95% TPR of each unknown score; unknown videos are the positive class."""
    pairs = [(r["unknown"], False) for r in known if "error" not in r]
    pairs += [(r["unknown"], True) for r in unknown if "error" not in r]
    truth = [is_unknown for _, is_unknown in pairs]
    result = {}
    for kind in UNKNOWN_SCORES:
        if pairs and all(kind in scores for scores, _ in pairs):
            values = [scores[kind] for scores, _ in pairs]
            result[kind] = {
                "auroc": metrics.auroc(truth, values),
                "aupr": metrics.aupr(truth, values),
                "fpr95": metrics.fpr_at_tpr(truth, values),
            }
    return result


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


# --- videos to records --------------------------------------------------------------------------------------


def evaluate_part(
    model: RecognizerModel,
    part: Part,
    text: TextSide,
    options: Options,
    *,
    done: dict[int, dict[str, Any]] | None = None,
    write: Callable[[dict[str, Any]], None] = lambda record: None,
    rank: int = 0,
    world: int = 1,
    cache: FeatureCache | None = None,
) -> list[dict[str, Any]]:
    """Evaluate one part; returns its records in the order of its items.

    ``done`` holds records of an earlier run by item number: they are not computed again. ``write`` is called
    with each new record. With several processes, each takes every ``world``-th batch from ``rank``. What is in
    ``cache`` is neither decoded nor put through the visual tower.
    """
    done = dict(done or {})
    batches = [
        range(s, min(s + options.batch_size, len(part.items)))
        for s in range(0, len(part.items), options.batch_size)
    ]
    # A batch that was cut off is computed whole again, so that its numbers do not depend on where.
    todo = [batch for batch in batches[rank::world] if any(i not in done for i in batch)]
    numbers = [i for batch in todo for i in batch]
    with contextlib.ExitStack() as stack:
        clips = iter_clips([part.items[i] for i in numbers], model, options, stack, cache)
        for batch in todo:
            for number, record in zip(
                batch, _evaluate_batch(model, part, text, options, batch, clips, cache), strict=True
            ):
                if number not in done:
                    done[number] = record
                    write(record)
    return [done[i] for i in sorted(done)]


def iter_clips(
    items: Sequence[Item],
    model: RecognizerModel,
    options: Options,
    stack: contextlib.ExitStack,
    cache: FeatureCache | None = None,
) -> Iterator[Loaded]:
    """Each item as ``load_cached`` gives it, decoded ahead; motion-shapes is rendered."""
    sampling = Sampling(options.frames, options.views)
    decoded = any(not is_rendered(item.path) for item in items)
    pool = stack.enter_context(DecodePool(options.workers if decoded else 0, timeout=options.timeout))
    requests = (
        ClipRequest(item.path, sampling, model.preprocess, options.crops, options.decoder) for item in items
    )
    return load_cached(pool, requests, cache, render_request)


@torch.no_grad()
def _evaluate_batch(
    model: RecognizerModel,
    part: Part,
    text: TextSide,
    options: Options,
    batch: range,
    clips: Iterator[Loaded],
    cache: FeatureCache | None,
) -> list[dict[str, Any]]:
    loaded = list(islice(clips, len(batch)))
    records: list[dict[str, Any]] = [
        {"part": part.name, "item": number, "video": part.items[number].listed} for number in batch
    ]
    for record, (_, _, clip) in zip(records, loaded, strict=True):
        if isinstance(clip, VideoError):
            record["error"] = {"kind": clip.kind, "message": clip.message}
    videos = [(key, clip) for _, key, clip in loaded if not isinstance(clip, VideoError)]
    good = [k for k, (_, _, clip) in enumerate(loaded) if not isinstance(clip, VideoError)]
    if not good:
        return records
    probes = PROBES if options.probe_motion else ()

    def embed(features: FrameFeatures, of_video: list[int]) -> Tensor:
        """(n, 1 + probes, E): of the clips as they are, then with their frames in each probe's order."""
        items = [batch[good[k]] for k in of_video]
        seen = [features]
        for probe in probes:
            order = _orders(probe, items, options).to(features.embedding.device)
            rows = torch.arange(len(order), device=order.device)[:, None]
            seen.append(FrameFeatures(features.embedding[rows, order], features.tokens[rows, order]))
        return torch.stack([model.encode_video(x).embedding.float() for x in seen], dim=1)

    embedding = map_features(model, videos, embed, cache).mean(dim=1)
    targets = [part.targets[batch[k]] for k in good]
    for k, scored in zip(good, score_records(model, embedding[:, 0], targets, text), strict=True):
        records[k] |= scored
    for number, probe in enumerate(probes, start=1):
        for k, scored in zip(good, score_records(model, embedding[:, number], targets, text), strict=True):
            records[k].setdefault("probes", {})[probe] = scored["rank"]
    return records


def _orders(probe: str, items: Sequence[int], options: Options) -> Tensor:
    """Which frame stands at each place (clips, T): shuffled (by item), reversed, or the middle one only."""
    frames = np.arange(options.frames)
    rows = []
    for item in items:
        if probe == "shuffled":
            row = np.random.default_rng([options.seed, item]).permutation(frames)
        else:
            row = frames[::-1] if probe == "reversed" else np.full_like(frames, options.frames // 2)
        rows.append(row.copy())
    return torch.from_numpy(np.stack(rows))


# --- the records' file --------------------------------------------------------------------------------------


class RecordFile:
    """``predictions.jsonl``: read what an earlier run left, then append.

    A last line that was torn when a run was killed is cut off. ``settings`` lie beside it: records made with
    others are not mixed with these (UsageError).
    """

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "predictions.jsonl"
        marker = directory / "settings.json"
        text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
        if self.path.exists() and self.path.stat().st_size:
            if not marker.exists() or marker.read_text(encoding="utf-8") != text:
                raise UsageError(
                    f"{directory} holds records of another evaluation. Give another --output, or remove it."
                )
        else:
            marker.write_text(text, encoding="utf-8")
        self.done: dict[str, dict[int, dict[str, Any]]] = {}
        whole = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for line in lines:
                    try:
                        record = json.loads(line)
                        self.done.setdefault(record["part"], {})[record["item"]] = record
                    except (ValueError, KeyError, TypeError):
                        break
                    if not line.endswith(b"\n"):
                        self.done[record["part"]].pop(record["item"])
                        break
                    whole += len(line)
            with self.path.open("r+b") as file:
                file.truncate(whole)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on its way to the disk when this returns."""
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def weights_hash(model: RecognizerModel) -> str:
    """First 16 hex digits of SHA-256 over all of the model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
