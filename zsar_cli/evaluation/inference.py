"""From videos to records.

A record is all that is kept of a video (one line of ``predictions.jsonl``): every number is computed from the
records, so a run that was stopped goes on from them and ends in the same results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zsar_cli import checks
from zsar_cli.data.clips import is_rendered, render_request
from zsar_cli.errors import VideoError, memory_explained
from zsar_cli.evaluation import metrics
from zsar_cli.evaluation.predictions import Records
from zsar_cli.evaluation.summary import PROBES
from zsar_cli.features.cache import FeatureCache
from zsar_cli.features.encoding import Loaded, load_cached, map_features, to_device, to_host
from zsar_cli.model.alignment import score_with_bank
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.prediction.clips import ClipOptions
from zsar_cli.resources import default_workers
from zsar_cli.run_log import StageTimes
from zsar_cli.video.pool import ClipRequest, DecodePool

if TYPE_CHECKING:
    from zsar_cli.evaluation.protocols import EvaluationPart
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings


@dataclass(frozen=True)
class Options:
    """How videos are shown to the model: ``views`` times ``crops`` clips each, their embeddings averaged."""

    frames: int | None = None  # a view; None: as many as the model was trained with
    views: int = 1
    crops: int = 1
    batch_size: int = 8
    workers: int | None = None  # as many as suit the model's device
    decoder: str = "auto"
    timeout: float = 60.0
    probe_motion: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        ClipOptions(self.frames, self.views, self.crops, self.decoder, self.batch_size)
        if self.workers is not None:
            checks.whole("workers", self.workers, checks.WORKERS)
        checks.number("timeout", self.timeout, checks.TIMEOUT)
        checks.truth("probe_motion", self.probe_motion)
        checks.whole("seed", self.seed, checks.SEED)

    def decoders(self, model: RecognizerModel) -> int:
        """Say how many processes decode for this model."""
        return default_workers(model.backbone.device.type) if self.workers is None else self.workers


@dataclass(frozen=True)
class Task:
    """A video whose records are still to come."""

    video: str
    places: list[tuple[int, int]]  # (part, item) of each record
    draw: int  # the number that the shuffling of its frames is drawn from


class Engine(Protocol):
    """What evaluates videos elsewhere than in this process."""

    def __call__(
        self,
        model: RecognizerModel,
        parts: Sequence[EvaluationPart],
        texts: Sequence[PromptEmbeddings],
        options: Options,
        tasks: Sequence[Task],
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the records of all tasks, in any order."""


# --- scores to records --------------------------------------------------------------------------------------


@torch.no_grad()
def score_records(
    model: RecognizerModel, embedding: Tensor, targets: Sequence[int], text: PromptEmbeddings
) -> list[dict[str, Any]]:
    """Make the record of each video from its scores.

    Args:
        embedding: (B, E) of unit length, see :func:`zsar_cli.model.alignment.average_views`.
        targets: index of the true label of each, -1 where it is none of them.

    Returns:
        a dict each: ``label`` and ``rank`` (0 is best; None for unknown videos), ``top`` (five pairs of label
        and score), ``unknown`` (see :data:`UNKNOWN_SCORES`).
    """
    bank = text.rivals(model)
    if bank is not None and not len(bank):
        bank = None  # every phrase of the bank is too close to a label: scores do without
    scores = model.score(embedding, text.positive, text.negative, bank)
    against = scores.unknown
    if model.published is None and bank is not None:
        scale = model.log_scale.exp()
        against = score_with_bank(embedding.float(), text.positive.float(), bank.float(), scale=scale).unknown
    # In double precision on the CPU: MPS has none
    logit, yes, of_bank = (part.double() for part in to_host(scores.logits, scores.yes, against))
    logits = logit.numpy()
    probability, rest = _softmax(logits)
    unknown = {
        "yes": (1 - yes.amax(-1)).numpy(),
        "softmax": rest,
        "energy": -logit.logsumexp(-1).numpy(),
    }
    if bank is not None:
        unknown["bank"] = of_bank.numpy()
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    records: list[dict[str, Any]] = []
    for row, target in enumerate(targets):
        rank = int(metrics.true_ranks(logits[row : row + 1], [target])[0]) if target >= 0 else None
        records.append(
            {
                "label": text.labels[target] if target >= 0 else None,
                "rank": rank,
                "top": [[text.labels[c], _digits(probability[row, c])] for c in best[row]],
                "unknown": {kind: _digits(values[row]) for kind, values in unknown.items()},
            }
        )
    return records


def _softmax(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute probabilities (B, C), and 1 minus the greatest (B,) without cancellation."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = weights.sum(axis=1)
    others = np.sort(weights, axis=1)[:, :-1].sum(axis=1)
    return weights / total[:, None], others / total


def _digits(value: float) -> float:
    """Round to nine significant digits: all that fp32 holds. Fixed decimals would make ties of small numbers."""
    return float(f"{value:.9g}")


# --- videos to records --------------------------------------------------------------------------------------


def evaluate_parts(
    model: RecognizerModel,
    parts: Sequence[EvaluationPart],
    texts: Sequence[PromptEmbeddings],
    options: Options,
    *,
    done: Records | None = None,
    write: Callable[[dict[str, Any]], None] = lambda record: None,
    cache: FeatureCache | None = None,
    times: StageTimes | None = None,
    engine: Engine | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Evaluate parts, looking once at each video however many of them it is in.

    Args:
        texts: the label embeddings of each part.
        done: records of an earlier run, which are not computed again.
        write: called with each new record.
        cache: what is in it is neither decoded nor put through the visual tower.
        times: gets the seconds of the stages.
        engine: evaluates in place of this process.

    Returns:
        the records of each part by its name, in the order of its items.
    """
    records: Records = {part.name: dict((done or {}).get(part.name, {})) for part in parts}
    times = times or StageTimes()
    videos = _places(parts)
    paths = list(videos)
    size = options.batch_size
    batches = [range(start, min(start + size, len(paths))) for start in range(0, len(paths), size)]

    def open_places(batch: range) -> list[tuple[int, int, int]]:
        """List (video, part, item) of the records that are still to come."""
        places = [(video, *place) for video in batch for place in videos[paths[video]]]
        return [(video, part, item) for video, part, item in places if item not in records[parts[part].name]]

    # A batch that was cut off is computed whole again, so that its numbers do not depend on where.
    todo = [batch for batch in batches if open_places(batch)]

    def drawn(video: int) -> int:
        # its place in its own list, so that the draw is the same whatever else is evaluated in the same run
        return videos[paths[video]][0][1]

    def tasks() -> Iterator[Task]:
        for video in (video for batch in todo for video in batch):
            if places := [(part, item) for _, part, item in open_places(range(video, video + 1))]:
                yield Task(paths[video], places, drawn(video))

    def own() -> Generator[dict[str, Any], None, None]:
        with contextlib.ExitStack() as stack:
            wanted = [paths[video] for batch in todo for video in batch]
            clips = iter_clips(wanted, model, options, stack, cache)
            for batch in todo:
                with times.measured("waiting for decoders"):
                    loaded = list(islice(clips, len(batch)))
                places = open_places(batch)
                draws = list(map(drawn, batch))
                with times.measured("model"), memory_explained("use a smaller --batch-size, fewer --frames"):
                    found = list(
                        evaluate_batch(model, parts, texts, options, batch, loaded, places, draws, cache)
                    )
                yield from found

    running = own() if engine is None else engine(model, parts, texts, options, list(tasks()))
    with contextlib.closing(running) as found:
        for record in found:
            records[record["part"]][record["item"]] = record
            write(record)
    return {name: [of_part[item] for item in sorted(of_part)] for name, of_part in records.items()}


def _places(parts: Sequence[EvaluationPart]) -> dict[str, list[tuple[int, int]]]:
    """Find where each video is asked for: path -> (part, item) numbers; videos in the order of their first place."""
    videos: dict[str, list[tuple[int, int]]] = {}
    for number, part in enumerate(parts):
        for item, video in enumerate(part.items):
            videos.setdefault(video.path, []).append((number, item))
    return videos


def iter_clips(
    paths: Sequence[str],
    model: RecognizerModel,
    options: Options,
    stack: contextlib.ExitStack,
    cache: FeatureCache | None = None,
) -> Iterator[Loaded]:
    """Yield each video as ``load_cached`` gives it, decoded ahead; motion-shapes is rendered."""
    sampling = model.choose(options.frames, options.views)
    decoded = sum(not is_rendered(path) for path in paths)
    workers = min(options.decoders(model), decoded)
    pool = stack.enter_context(DecodePool(workers, timeout=options.timeout))
    requests = (ClipRequest(p, sampling, model.preprocess, options.crops, options.decoder) for p in paths)
    return load_cached(pool, requests, cache, render_request)


def evaluate_batch(
    model: RecognizerModel,
    parts: Sequence[EvaluationPart],
    texts: Sequence[PromptEmbeddings],
    options: Options,
    batch: range,
    loaded: Sequence[Loaded],
    places: Iterable[tuple[int, int, int]],
    draws: Sequence[int],
    cache: FeatureCache | None = None,
) -> Iterator[dict[str, Any]]:
    """Evaluate a batch of videos: a record for each of ``places`` (video, part, item).

    ``draws``: for each video of the batch the number that the shuffling of its frames is drawn from.
    """
    clips = {video: (key, clip) for video, (_, key, clip) in zip(batch, loaded, strict=True)}
    good = {video: pair for video, pair in clips.items() if not isinstance(pair[1], VideoError)}
    row = {video: number for number, video in enumerate(good)}
    scored: dict[tuple[int, int], dict[str, Any]] = {}
    if good:
        numbers = dict(zip(batch, draws, strict=True))
        embedding = _embed_videos(model, [(numbers[v], *pair) for v, pair in good.items()], options, cache)
        for number in sorted({part for _, part, _ in places}):
            mine = [(row[video], item) for video, part, item in places if part == number and video in good]
            targets = [parts[number].targets[item] for _, item in mine]
            of_part = embedding[[video for video, _ in mine]]
            found = _score_probed(model, of_part, targets, texts[number]) if mine else []
            scored |= {(number, item): record for (_, item), record in zip(mine, found, strict=True)}
    for video, number, item in places:
        part, clip = parts[number], clips[video][1]
        record: dict[str, Any] = {"part": part.name, "item": item, "video": part.items[item].listed}
        scores: dict[str, Any] = scored.get((number, item), {})
        if isinstance(clip, VideoError):
            yield record | {"error": {"kind": clip.kind, "message": clip.message}}
        elif any(value != value for value in scores["unknown"].values()):  # NaN
            message = "the model's numbers overflowed on this video; use --precision fp32"
            yield record | {"error": {"kind": "not_finite", "message": message}}
        else:
            yield record | scores | ({"warning": clip.warning} if clip.warning else {})


@torch.no_grad()
def _embed_videos(
    model: RecognizerModel,
    videos: Sequence[tuple[int, str | None, Any]],
    options: Options,
    cache: FeatureCache | None,
) -> Tensor:
    """Embed each video as it is, then with its frames in each probe's order, (B, 1 + probes, E); views are averaged.

    ``videos`` holds a number that its shuffling is drawn from, its key in the cache and its clip.
    """
    numbers = [number for number, _, _ in videos]
    probes = PROBES if options.probe_motion else ()

    def embed(features: FrameFeatures, of_video: list[int]) -> Tensor:
        seen = [features]
        for probe in probes:
            drawn = [numbers[k] for k in of_video]
            order = _orders(probe, drawn, features.embedding.shape[1], options.seed)
            order = to_device(order, features.embedding.device)
            rows = torch.arange(len(order), device=order.device)[:, None]
            seen.append(FrameFeatures(features.embedding[rows, order], features.tokens[rows, order]))
        return torch.stack([model.encode_video(x).embedding.float() for x in seen], dim=1)

    found = map_features(model, [(key, clip) for _, key, clip in videos], embed, cache)
    return model.join_views(found.transpose(1, 2))


def _score_probed(
    model: RecognizerModel, embedding: Tensor, targets: Sequence[int], text: PromptEmbeddings
) -> list[dict[str, Any]]:
    """Score videos (B, 1 + probes, E), with the true label's rank under each probe."""
    records = score_records(model, embedding[:, 0], targets, text)
    for number, probe in enumerate(PROBES[: embedding.shape[1] - 1], start=1):
        probed = score_records(model, embedding[:, number], targets, text)
        for record, other in zip(records, probed, strict=True):
            record.setdefault("probes", {})[probe] = other["rank"]
    return records


def _orders(probe: str, videos: Sequence[int], count: int, seed: int) -> Tensor:
    """Order frames for a probe, (clips, T): shuffled (by video), reversed, or the middle one only."""
    frames = np.arange(count)
    rows = []
    for video in videos:
        if probe == "shuffled":
            row = np.random.default_rng([seed, video]).permutation(frames)
        else:
            row = frames[::-1] if probe == "reversed" else np.full_like(frames, count // 2)
        rows.append(row.copy())
    return torch.from_numpy(np.stack(rows))
