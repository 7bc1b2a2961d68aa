"""Naming the action in videos: the engine behind ``zsar predict``, and the Python interface.

    from zsar_cli import Recognizer

    recognizer = Recognizer.load("motion-tiny")
    recognizer.predict("a.mp4", labels=["a circle moves left", "a circle moves right"])

Videos are decoded ahead in worker processes; whatever is ready goes through the model together.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.inputs import find_videos
from zsar_cli.labels import Labels, load_labels
from zsar_cli.records import NONE_OF_THESE, Failure, LabelScore, Prediction
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.workers import Clip, ClipRequest, DecodePool

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.feature_cache import EncodedClip, FeatureCache
    from zsar_cli.model.recognizer import RecognizerModel
    from zsar_cli.prompts import PromptEmbeddings
    from zsar_cli.windows import Timeline

__all__ = [
    "ClipOptions",
    "Failure",
    "LabelScore",
    "Prediction",
    "Recognizer",
    "TextSide",
    "default_workers",
    "find_videos",
]

DEFAULT_MODEL = "PE-Core-B-16/meta"
DEFAULT_TEMPLATES = "video"

Text: TypeAlias = "Sequence[str] | str | Labels | PromptEmbeddings"


@dataclass(frozen=True)
class ClipOptions:
    """How videos are shown to the model: ``views`` times ``crops`` clips each, their embeddings averaged."""

    frames: int = 8  # a view
    views: int = 1
    crops: int = 1  # 1 (centre) or 3
    decoder: str = "auto"
    batch_size: int = 8  # videos that are scored together at most


@dataclass
class TextSide:
    """The labels as the model compares videos with them, on its device."""

    labels: list[str]
    positive: Tensor  # (C, E)
    negative: Tensor | None  # (C, E)
    bank: Tensor | None  # (P, E) other phrases, where the model has no negatives that mean something


def default_workers() -> int:
    """Decoding processes: half the cores, 2 to 8; the model uses the cores too."""
    return min(8, max(2, (os.cpu_count() or 2) // 2))


class Recognizer:
    """Names what happens in videos, with any labels; the answers are those of ``zsar predict``.

    Make one with :meth:`load`; it may then be used for any number of videos and sets of labels.
    """

    def __init__(self, model: RecognizerModel, cache: FeatureCache | None = None) -> None:
        self.model = model
        self.cache = cache
        self._texts: dict[Any, TextSide] = {}

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        cache: str | os.PathLike[str] | None = None,
    ) -> Recognizer:
        """Load a model.

        Args:
            model: ``motion-tiny`` (bundled), ``ARCH/TAG`` as open_clip names them, ``ARCH/path/to/weights``, or a
                directory that ``zsar train`` wrote.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: ``auto``, ``fp32``, ``bf16``, ``fp16``, ``int8``.
            cache: a folder for what the visual tower says of each video, so that asking again with other labels
                neither decodes it nor runs the tower.

        Raises:
            UsageError: there is no such model or device, the weights cannot be had, or the cache cannot be written.
        """
        from zsar_cli.model.backbone import resolve_device
        from zsar_cli.model.recognizer import load_model

        device = resolve_device(device)
        loaded = load_model(model, device=device, precision=precision)
        if cache is None:
            return cls(loaded)
        from zsar_cli.feature_cache import FeatureCache

        return cls(loaded, FeatureCache(os.fspath(cache), loaded))

    # --- labels

    def embed_labels(
        self, labels: Labels, templates: str | None = None, *, negatives: bool = False
    ) -> PromptEmbeddings:
        """Embed the prompts of labels; with the model's own templates unless others are named.

        Negative prompts are embedded where the model's scores use them, or ``negatives`` asks for them.
        """
        from zsar_cli.prompts import embed_prompts, load_templates
        from zsar_cli.text_cache import TextCache

        return embed_prompts(
            self.model.backbone.encode_text,
            labels,
            load_templates(templates or self.model.templates or DEFAULT_TEMPLATES),
            negatives=negatives or self.model.uses_negatives,
            cache=TextCache(),
            model_id=self.model.name,
        )

    def text_side(self, prompts: PromptEmbeddings) -> TextSide:
        """What scores need of the labels, on the model's device.

        Raises:
            UsageError: the embeddings were made with another model, or lack negatives that this one needs.
        """
        from zsar_cli.prompts import phrase_bank

        device = self.model.backbone.device
        prompts.check_model(self.model.name, self.model.backbone.fingerprint())
        negative = bank = None
        if self.model.uses_negatives:
            if prompts.negative is None:
                raise UsageError(
                    f"{self.model.name} needs negative prompts, and these prompt embeddings have none; "
                    "make them again with `zsar embed-prompts`."
                )
            negative = prompts.negative.to(device)
        else:
            phrases = phrase_bank()
            bank = self.embed_labels(Labels(phrases, tuple((p,) for p in phrases)), "plain").positive
            bank = bank.to(device)
        return TextSide(prompts.labels, prompts.positive.to(device), negative, bank)

    def _text_of(self, labels: Text, templates: str | None) -> TextSide:
        from zsar_cli.prompts import PromptEmbeddings

        if isinstance(labels, PromptEmbeddings):
            return self.text_side(labels)
        if isinstance(labels, str):
            labels = load_labels(labels)
        elif not isinstance(labels, Labels):
            labels = load_labels(None, list(labels))
        key = (labels, templates)
        if key not in self._texts:
            self._texts[key] = self.text_side(self.embed_labels(labels, templates))
        return self._texts[key]

    # --- videos

    def predict(
        self,
        video: str | os.PathLike[str],
        labels: Text,
        *,
        templates: str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        frames: int = 8,
        views: int = 1,
        crops: int = 1,
        decoder: str = "auto",
    ) -> Prediction:
        """The best labels for one video, decoded in this process.

        Args:
            video: a file, or a directory of images that are its frames.
            labels: the labels themselves; a file or built-in list of them; or prompt embeddings.
            templates: a file of prompt templates or the name of shipped ones.
            threshold: with one, ``answer`` is the best label, or "none of these" where ``unknown`` exceeds it.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels or templates are wrong.
        """
        options = ClipOptions(frames, views, crops, decoder)
        text = self._text_of(labels, templates)
        with DecodePool(0) as pool:
            (result,) = self.run([os.fspath(video)], text, pool, options, top_k=top_k, threshold=threshold)
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result

    def predict_many(
        self,
        videos: Iterable[str | os.PathLike[str]],
        labels: Text,
        *,
        templates: str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        frames: int = 8,
        views: int = 1,
        crops: int = 1,
        decoder: str = "auto",
        batch_size: int = 8,
        workers: int | None = None,
        timeout: float = 60.0,
    ) -> Iterator[Prediction | Failure]:
        """A result for each video, in order and as soon as it is there; one that cannot be read gives a Failure.

        ``videos`` is read lazily. Arguments as in :meth:`predict`; ``workers`` decoding processes, ``timeout`` in
        s a video, ``batch_size`` videos through the model together.
        """
        options = ClipOptions(frames, views, crops, decoder, batch_size)
        text = self._text_of(labels, templates)
        paths = (os.fspath(video) for video in videos)
        with DecodePool(default_workers() if workers is None else workers, timeout=timeout) as pool:
            yield from self.run(paths, text, pool, options, top_k=top_k, threshold=threshold)

    def segments(
        self,
        video: str | os.PathLike[str],
        labels: Text,
        *,
        window: float = 4.0,
        stride: float | None = None,
        templates: str | None = None,
        top_k: int = 5,
        threshold: float = 0.5,
        frames: int = 8,
        decoder: str = "auto",
    ) -> Timeline:
        """What happens in a long video, and when; the answers are those of ``zsar predict --window``.

        Args:
            window: s that are looked at together, as ``frames`` frames.
            stride: s from one window's start to the next; half a window unless given.
            threshold: where ``unknown`` exceeds it, the answer is "none of these".

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels or templates are wrong, or a stride leaves gaps between windows.
        """
        from zsar_cli.windows import WindowOptions, run_windows

        stride = window / 2 if stride is None else stride
        options = WindowOptions(window, stride, frames, top_k, threshold, decoder)
        text = self._text_of(labels, templates)
        with DecodePool(0) as pool:
            (result,) = run_windows(self.model, [os.fspath(video)], text, pool, options)
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result

    def run(
        self,
        videos: Iterable[str],
        text: TextSide,
        pool: DecodePool,
        options: ClipOptions,
        *,
        top_k: int = 5,
        threshold: float | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Prediction | Failure]:
        """The loop itself: decode ahead, score together what is ready, answer in input order.

        Once ``stop`` is set, the videos that are already decoded together are finished and no others.
        """
        from zsar_cli.feature_cache import load_cached

        sampling = Sampling(options.frames, options.views)
        requests = (
            ClipRequest(path, sampling, self.model.preprocess, options.crops, options.decoder)
            for path in videos
        )
        loaded = load_cached(pool, requests, self.cache)
        for batch in ready_batches(loaded, options.batch_size, stop or threading.Event()):
            good = [(key, clip) for _, key, clip in batch if not isinstance(clip, VideoError)]
            answers = iter(self._answer(good, text, top_k) if good else ())
            for request, _, result in batch:
                if isinstance(result, VideoError):
                    yield Failure(request.path, result.kind, result.message)
                else:
                    yield _result(request.path, result, *next(answers), threshold)

    def _answer(
        self, videos: Sequence[tuple[str | None, Clip | EncodedClip]], text: TextSide, top_k: int
    ) -> list[tuple[list[LabelScore], float]]:
        """For each video, with its key in the cache, its best labels and ``unknown``."""
        import torch

        with torch.inference_mode():
            try:
                scores = self.model.score(self._embed(videos), text.positive, text.negative, text.bank)
                best = scores.score.topk(min(top_k, len(text.labels)), dim=-1)
                columns = best.indices.tolist()
                score, unknown = best.values.tolist(), scores.unknown.tolist()
                yes = scores.yes.gather(-1, best.indices).tolist()
            except torch.cuda.OutOfMemoryError as error:
                raise UsageError(
                    "The GPU's memory is full; use a smaller --batch-size, fewer --frames or --views, or another "
                    "--device."
                ) from error
        found = [
            [LabelScore(text.labels[c], s, y) for c, s, y in zip(*row, strict=True)]
            for row in zip(columns, score, yes, strict=True)
        ]
        return list(zip(found, unknown, strict=True))

    def _embed(self, videos: Sequence[tuple[str | None, Clip | EncodedClip]]) -> Tensor:
        """Videos of V clips each -> (B, E) of unit length, the mean over the clips."""
        from torch.nn import functional as F

        from zsar_cli.feature_cache import map_features

        views = map_features(
            self.model, videos, lambda part, _: self.model.encode_video(part).embedding, self.cache
        )
        return F.normalize(views.mean(dim=1), dim=-1)


def _result(
    path: str, clip: Clip | EncodedClip, found: list[LabelScore], unknown: float, threshold: float | None
) -> Prediction | Failure:
    if unknown != unknown:  # NaN: half precision overflowed somewhere
        return Failure(
            path, "not_finite", "the model's numbers overflowed on this video; use --precision fp32"
        )
    answer = None
    if threshold is not None:
        answer = NONE_OF_THESE if unknown > threshold else found[0].label
    frames = int(clip.indices.size)
    return Prediction(path, found, unknown, clip.info.duration, frames, answer, clip.warning)


def ready_batches(results: Iterator[Any], size: int, stop: threading.Event) -> Iterator[list[Any]]:
    """Lists of what is there already, ``size`` at most: nothing waits for a batch to fill up.

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
        while True:
            batch = [_next(waiting, stop, end)]
            while len(batch) < size and batch[-1] is not end and not waiting.empty():
                batch.append(waiting.get())
            ended = batch[-1] is end
            if ended:
                batch.pop()
            if batch:
                yield batch
            if ended:
                break
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
