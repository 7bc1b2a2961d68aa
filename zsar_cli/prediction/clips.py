"""Videos to answers: the one loop of ``zsar predict``, of ``--explain`` and of Python.

Videos are decoded ahead in worker processes; whatever is ready goes through the model together.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli import checks
from zsar_cli.errors import VideoError, memory_explained
from zsar_cli.prediction.confidence import AnswerRule
from zsar_cli.prediction.explain import Evidence, HeatMaps, label_evidence
from zsar_cli.prediction.records import NONE_OF_THESE, Failure, LabelScore, Prediction, Shown
from zsar_cli.run_log import StageTimes
from zsar_cli.video.given import Video
from zsar_cli.video.images import IMAGE_RATE
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from zsar_cli.features.cache import EncodedClip, FeatureCache
    from zsar_cli.features.encoding import Loaded
    from zsar_cli.model.alignment import Scores
    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings

Answer: TypeAlias = "tuple[Prediction | Failure, Evidence | None]"
NO_ANSWER = AnswerRule()
OVERFLOWED = "the model's numbers overflowed on this video; use --precision fp32"
Embed: TypeAlias = "Callable[[FrameFeatures, list[int]], Tensor]"
WHERE = 2  # labels whose places an explanation shows, unless others are asked for
Keyed: TypeAlias = "tuple[str | None, Clip | EncodedClip]"  # a clip and its key in the cache


@dataclass(frozen=True)
class Found:
    """What a video shows."""

    labels: list[LabelScore]  # the best ones, best first; then what is answered besides
    unknown: float
    answers: list[str] | None = None  # surest first, where several were asked for
    evidence: Evidence | None = None
    embedding: np.ndarray | None = None  # what the scores are made of, where it was asked for


@dataclass(frozen=True)
class ClipOptions:
    """How videos are shown to the model: ``views`` times ``crops`` clips each, their embeddings averaged.

    Raises UsageError for a value that there is not.
    """

    frames: int | None = None  # a view; None: as many as the model was trained with
    views: int = 1
    crops: int = 1  # 1 (centre) or 3
    decoder: str = "auto"
    batch_size: int = 8  # videos that are scored together at most
    fps: float = IMAGE_RATE  # of folders of frames, which do not tell

    def __post_init__(self) -> None:
        if self.frames is not None:
            checks.whole("frames", self.frames, checks.FRAMES)
        checks.whole("views", self.views, checks.VIEWS)
        checks.choice("crops", self.crops, (1, 3))
        checks.choice("decoder", self.decoder, checks.DECODERS)
        checks.whole("batch_size", self.batch_size, checks.BATCH_SIZE)
        checks.number("fps", self.fps, checks.FPS)


@dataclass(frozen=True)
class AnswerOptions:
    """What is answered about a video, and what else is kept of it."""

    top_k: int = 5
    rule: AnswerRule = NO_ANSWER
    embeddings: bool = False
    evidence: bool = False  # of the centre crop of the first view, with heat maps
    where: Sequence[str] | None = None  # labels with a heat map; None: the answers, or the two best
    shown: bool = False  # the frames of that crop are kept


def answer_videos(
    model: RecognizerModel,
    videos: Iterable[Video],
    text: PromptEmbeddings,
    pool: DecodePool,
    options: ClipOptions,
    how: AnswerOptions = AnswerOptions(),
    *,
    cache: FeatureCache | None = None,
    stop: threading.Event | None = None,
    times: StageTimes | None = None,
) -> Iterator[Answer]:
    """Yield the result of each video, in input order, and its evidence where that is wanted.

    Once ``stop`` is set, the videos that are already decoded together are finished and no others. With a cache, what
    is in it does not go through the tower again; for evidence and for what is shown the frames themselves are decoded
    still.
    """
    from zsar_cli.features.encoding import load_cached

    times = times or StageTimes()
    pixels = how.evidence or how.shown
    requests = clip_requests(model, videos, options, look=pixels, threads=pool.threads)
    loaded = load_cached(pool, requests, cache, pixels=pixels)
    batches = ready_batches(loaded, options.batch_size, stop or threading.Event())
    for batch in times.waiting("waiting for decoders", batches):
        with times.measured("model"):
            answers = answer_batch(model, batch, text, how, centre=options.crops // 2, cache=cache)
        yield from answers


def answer_batch(
    model: RecognizerModel,
    batch: Sequence[Loaded],
    text: PromptEmbeddings,
    how: AnswerOptions = AnswerOptions(),
    *,
    centre: int = 0,
    cache: FeatureCache | None = None,
) -> list[Answer]:
    """Answer videos that were decoded, or could not be, in their order. So do the loop here and model actors of Ray.

    ``centre``: the crop that people see.
    """
    good = [(key, clip) for _, key, clip in batch if not isinstance(clip, VideoError)]
    left = iter(answer_clips(model, good, text, how, centre=centre, cache=cache) if good else [])
    answers: list[Answer] = []
    for request, _, clip in batch:
        if isinstance(clip, VideoError):
            answers.append((Failure(request.path, clip.kind, clip.message), None))
        else:
            frames = shown_of(clip, centre) if how.shown else None
            answers.append(_answer(request.path, clip, next(left), how.rule, frames))
    return answers


def answer_clips(
    model: RecognizerModel,
    videos: Sequence[Keyed],
    text: PromptEmbeddings,
    how: AnswerOptions = AnswerOptions(),
    *,
    centre: int = 0,
    cache: FeatureCache | None = None,
) -> list[Found]:
    """Predict what each video shows, and the evidence of its crop ``centre``."""
    import torch

    heat = HeatMaps(model, centre)
    with torch.inference_mode(), memory_explained("use a smaller --batch-size, fewer --frames or --views"):
        video = embed_clips(model, videos, cache, heat.embed if how.evidence else None)
        scores, kept = score_embedded(model, video, text, keep=how.embeddings)
        found = []
        for number, answer in enumerate(answers_of_scores(scores, text.labels, how.top_k, how.rule, kept)):
            clip = videos[number][1]
            seen = None
            if how.evidence and clip.pixels is not None:
                where, pixels = list(how.where or ()), clip.pixels[centre]
                shown = [one.label for one in answer.labels]
                columns = [text.labels.index(label) for label in dict.fromkeys([*shown, *where])]
                behind = label_evidence(scores, number, columns, text.labels)
                asked = where or (answer.answers or [])[: WHERE + 1] or shown[:WHERE]
                places = heat.of_labels(number, pixels, text, [text.labels.index(label) for label in asked])
                motion, frames = heat.of(number, pixels), shown_of(clip, centre)
                learned = model.msm is not None
                seen = Evidence(pixels, motion, learned, behind, answer.unknown, places, frames)
            found.append(replace(answer, evidence=seen))
    return found


def score_embedded(
    model: RecognizerModel, video: Tensor, text: PromptEmbeddings, *, keep: bool = False
) -> tuple[Scores, np.ndarray | None]:
    """Score what :func:`embed_clips` gives; with ``keep``, give it too (B, ...), float32. One transfer to the CPU."""
    from zsar_cli.features.encoding import to_host

    scores = model.score(video, text.positive, text.negative, text.rivals(model))
    tensors = {f.name: value for f in fields(scores) if (value := getattr(scores, f.name)) is not None}
    found = to_host(*tensors.values(), *([video.float()] if keep else []))
    kept = found.pop().numpy().reshape(len(video), -1) if keep else None
    return replace(scores, **dict(zip(tensors, found, strict=True))), kept


def answers_of_scores(
    scores: Scores, labels: list[str], top_k: int, rule: AnswerRule, embeddings: np.ndarray | None = None
) -> Iterator[Found]:
    """Yield the best labels of each video, and all that are answers where several were asked for."""
    best = scores.score.topk(min(top_k, len(labels)), dim=-1)
    for number, (columns, unknown) in enumerate(
        zip(best.indices.tolist(), scores.unknown.tolist(), strict=True)
    ):
        sure = rule.several(scores.yes[number].tolist()) if rule.multi else []
        shown = list(dict.fromkeys([*columns, *sure]))
        numbers = zip(scores.score[number, shown].tolist(), scores.yes[number, shown].tolist(), strict=True)
        named = [LabelScore(labels[c], *pair) for c, pair in zip(shown, numbers, strict=True)]
        answers = [labels[c] for c in sure] if rule.multi else None
        yield Found(named, unknown, answers, embedding=None if embeddings is None else embeddings[number])


def embed_clips(
    model: RecognizerModel,
    videos: Sequence[Keyed],
    cache: FeatureCache | None = None,
    embed: Embed | None = None,
) -> Tensor:
    """Embed videos (B, E), of unit length: the mean over the views of each.

    Of a published family, what it keeps of each view (B, V, W).

    Args:
        embed: in place of the model's own way from frame features to embeddings.
    """
    from zsar_cli.features.encoding import map_features

    way = embed or (lambda part, _: model.encode_video(part).embedding)
    return model.join_views(map_features(model, videos, way, cache))


def embed_one(
    model: RecognizerModel, video: Video, options: ClipOptions, cache: FeatureCache | None = None
) -> Tensor:
    """Embed one video, (E,) of unit length, in fp32 on the CPU; decoded in this process.

    Raises:
        VideoError: the video cannot be read, or half precision overflowed.
    """
    import torch

    from zsar_cli.features.encoding import load_cached
    from zsar_cli.model.alignment import average_views

    model.require_embedding()
    with DecodePool(0) as pool:
        ((_, key, clip),) = load_cached(pool, clip_requests(model, [video], options), cache)
    if isinstance(clip, VideoError):
        raise clip
    with torch.inference_mode(), memory_explained("use fewer frames or views"):
        found = model.video_vectors(embed_clips(model, [(key, clip)], cache)[0].float()).cpu()
        if found.ndim == 2:  # the views of a published model
            found = average_views(found)
    if not torch.isfinite(found).all():
        raise VideoError("not_finite", OVERFLOWED)
    return found


def clip_requests(
    model: RecognizerModel,
    videos: Iterable[Video],
    options: ClipOptions,
    *,
    look: bool = False,
    threads: int = 1,
) -> Iterator[ClipRequest]:
    """Ask the decoders for these videos as they are shown to this model, and with ``look`` to people."""
    sampling = model.choose(options.frames, options.views)
    for video in videos:
        yield ClipRequest(
            *(video, sampling, model.preprocess, options.crops, options.decoder),
            image_rate=options.fps,
            look=look,
            threads=threads,
        )


def examine(
    model: RecognizerModel,
    clip: Clip,
    text: PromptEmbeddings,
    *,
    crops: int = 1,
    top_k: int = 5,
    where: Sequence[str] | None = None,
) -> Evidence:
    """Examine one clip, of which the centre crop of the first view is shown."""
    how = AnswerOptions(top_k, evidence=True, where=where)
    (found,) = answer_clips(model, [(None, clip)], text, how, centre=crops // 2)
    assert found.evidence is not None
    return found.evidence


def _answer(
    path: str,
    clip: Clip | EncodedClip,
    found: Found,
    rule: AnswerRule,
    shown: Shown | None,
) -> Answer:
    about = {
        "duration": clip.info.duration,
        "frames": int(clip.indices.size),
        "warning": clip.warning,
        "assumed_fps": clip.info.fps if clip.info.assumed else None,
    }
    return prediction_of(path, found, rule, **about, shown=shown), found.evidence


def prediction_of(path: str, found: Found, rule: AnswerRule, **about: Any) -> Prediction | Failure:
    """Answer by what was found; ``about``: the fields of a Prediction that its scores do not tell."""
    if found.unknown != found.unknown:  # NaN: half precision overflowed somewhere
        return Failure(path, "not_finite", OVERFLOWED)
    if found.answers is None:
        answer = rule.single(found.labels[0].label, found.unknown)
    else:
        answer = next(iter(found.answers), NONE_OF_THESE)
    return Prediction(
        video=path,
        predictions=found.labels,
        unknown=found.unknown,
        answer=answer,
        answers=found.answers,
        min_confidence=rule.min_confidence,
        embedding=found.embedding,
        **about,
    )


def shown_of(clip: Clip | EncodedClip, crop: int) -> Shown | None:
    """Take one crop of a clip's first view; None where the frames of what a cache holds could not be decoded again."""
    if clip.pixels is None:
        return None
    return Shown(clip.pixels[crop] if clip.look is None else clip.look, clip.info.start + clip.times[0])


def ready_batches(results: Iterator[Any], size: int, stop: threading.Event) -> Iterator[list[Any]]:
    """Yield lists of what is there already, ``size`` at most: nothing waits for a batch to fill up.

    So the first record is out as soon as the first video is decoded, and batches grow where the model is what
    takes the time. Ends early once ``stop`` is set.
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=size)
    given_up = threading.Event()
    end = object()
    errors: list[BaseException] = []

    def put(item: Any) -> None:
        while not given_up.is_set():
            try:
                return waiting.put(item, timeout=0.2)
            except queue.Full:
                continue

    def collect() -> None:
        try:
            for result in results:
                put(result)
                if given_up.is_set():
                    return
        except BaseException as error:
            errors.append(error)
        put(end)

    threading.Thread(target=collect, daemon=True, name="zsar-collect").start()
    try:
        ended = False
        while not ended:
            batch = [_next(waiting, stop, end)]
            while len(batch) < size and batch[-1] is not end and not waiting.empty():
                batch.append(waiting.get())
            ended = batch[-1] is end
            if found := batch[: len(batch) - ended]:
                yield found
        if errors:
            raise errors[0]
    finally:
        given_up.set()


def _next(waiting: queue.Queue[Any], stop: threading.Event, end: object) -> Any:
    # In short waits: a signal's handler runs in this thread, and what it asks for must not wait for a decoder
    while not stop.is_set():
        try:
            return waiting.get(timeout=0.2)
        except queue.Empty:
            continue
    return end
