"""Naming the action in videos: the engine behind ``zsar predict``, and the Python interface.

    from zsar_cli import Recognizer

    recognizer = Recognizer.load("motion-tiny")
    recognizer.predict("a.mp4", labels=["a circle moves left", "a circle moves right"])

Videos are decoded ahead in worker processes; whatever is ready goes through the model together.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli import checks
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.prediction.clips import NO_ANSWER, Answer, ClipOptions, answer_videos
from zsar_cli.prediction.confidence import DEFAULT, AnswerRule, answer_rule
from zsar_cli.prediction.explain import Evidence
from zsar_cli.prediction.inputs import find_videos
from zsar_cli.prediction.records import Failure, LabelScore, Prediction
from zsar_cli.resources import default_workers
from zsar_cli.run_log import StageTimes
from zsar_cli.text.labels import Labels, load_labels
from zsar_cli.video.images import IMAGE_RATE
from zsar_cli.video.pool import DecodePool

if TYPE_CHECKING:
    import torch

    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.prediction.windows import Timeline
    from zsar_cli.text.embeddings import PromptEmbeddings, Templates

__all__ = [
    "ClipOptions",
    "Evidence",
    "Failure",
    "LabelScore",
    "Prediction",
    "Recognizer",
    "default_workers",
    "find_videos",
]

DEFAULT_MODEL = "PE-Core-B-16/meta"

StrPath: TypeAlias = "str | os.PathLike[str]"
Text: TypeAlias = "Iterable[str] | StrPath | Labels | PromptEmbeddings"


class Recognizer:
    """Names what happens in videos, with any labels; the answers are those of ``zsar predict``.

    Make one with :meth:`load`; it may then be used for any number of videos and sets of labels.
    """

    def __init__(self, model: RecognizerModel, cache: FeatureCache | None = None) -> None:
        self.model = model
        self.cache = cache
        self.times = StageTimes()
        self._texts: dict[tuple[Labels, Templates], PromptEmbeddings] = {}

    @classmethod
    def load(
        cls,
        model: StrPath = DEFAULT_MODEL,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        backbone: StrPath | None = None,
        cache: StrPath | None = None,
    ) -> Recognizer:
        """Load a model.

        Args:
            model: ``motion-tiny`` (bundled), ``ARCH/TAG`` as open_clip names them, ``ARCH/path/to/weights``, or a
                directory that ``zsar train`` wrote.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: ``auto``, ``fp32``, ``bf16``, ``fp16``, ``int8``.
            backbone: where the weights are now that a directory of ``zsar train --tune modules`` was trained on, if
                they have moved since.
            cache: a folder for the visual features of each video, so that asking again with other labels neither
                decodes it nor runs the tower.

        Raises:
            UsageError: there is no such model or device, the weights cannot be had, or the cache cannot be written.
        """
        name, folder = checks.text("model", model), None if cache is None else checks.text("cache", cache)
        times = StageTimes()
        with times.measured("load"):
            import torch

            from zsar_cli.model.backbone import resolve_device
            from zsar_cli.model.zsar import load_model

            kind = str(device) if isinstance(device, torch.device) else checks.text("device", device)
            device = resolve_device(kind)
            loaded = load_model(
                name,
                device=device,
                precision=checks.text("precision", precision),
                backbone=None if backbone is None else checks.text("backbone", backbone),
            )
            kept = None
            if folder is not None:
                from zsar_cli.features.cache import FeatureCache

                kept = FeatureCache(folder, loaded)
        recognizer = cls(loaded, kept)
        recognizer.times = times
        return recognizer

    # --- labels

    def embed_labels(
        self, labels: Text | None = None, templates: StrPath | None = None, *, negatives: bool = False
    ) -> PromptEmbeddings:
        """Embed the prompts of labels; with the model's own templates unless others are named.

        Args:
            labels: the labels themselves, or a file or built-in list of them; by default the classes that a run of
                ``zsar train`` has learned.
            templates: a file of prompt templates or the name of shipped ones.
            negatives: whether to embed negative prompts even where the model's scores do not use them.

        Raises:
            UsageError: the labels or templates are wrong; or embeddings were made with another model.
        """
        from zsar_cli.text.cache import TextCache
        from zsar_cli.text.embeddings import PromptEmbeddings, default_templates, embed_labels, load_templates

        if isinstance(labels, PromptEmbeddings):
            if templates is not None:
                raise UsageError("Prompt embeddings were made with templates; give labels to choose others.")
            return labels.for_model(self.model)
        wanted = self._own_classes() if labels is None else _labels(labels)
        chosen = (
            default_templates(self.model)
            if templates is None
            else load_templates(checks.text("templates", templates))
        )
        key = (wanted, chosen)
        known = self._texts.get(key)
        if known is None or (negatives and known.negative is None):
            with self.times.measured("labels"):
                known = embed_labels(self.model, wanted, chosen, negatives=negatives, cache=TextCache())
            self._texts[key] = known
        return known

    # --- videos

    def predict(
        self,
        video: StrPath,
        labels: Text | None = None,
        *,
        templates: StrPath | None = None,
        top_k: int = 5,
        min_confidence: float | None = None,
        multi: bool = False,
        frames: int | None = None,
        views: int = 1,
        crops: int = 1,
        decoder: str = "auto",
        fps: float = IMAGE_RATE,
        threshold: float | None = None,
    ) -> Prediction:
        """The best labels for one video, decoded in this process.

        Args:
            video: a file, or a directory of images that are its frames.
            labels: the labels themselves; a file or built-in list of them; or prompt embeddings. By default the
                classes that a run of ``zsar train`` has learned.
            templates: a file of prompt templates or the name of shipped ones.
            frames: frames of a view; by default as many as the model was trained with.
            fps: frames a second of a directory of images, which does not tell.
            min_confidence: with one, ``answer`` is the best label where ``1 - unknown`` is at least this, else "none
                of these". Higher is stricter.
            multi: ``answers`` has every label whose ``yes`` is at least ``min_confidence`` (0.5 unless given), the
                surest first, and ``answer`` is the first of them.
            threshold: the old name: 1 minus ``min_confidence``.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels, the templates or an option are wrong.
        """
        options = ClipOptions(frames, views, crops, decoder, fps=fps)
        rule = _rule(min_confidence, threshold, multi)
        return self._one(video, labels, templates, options, top_k, rule, evidence=False)[0]

    def explain(
        self,
        video: StrPath,
        labels: Text | None = None,
        *,
        templates: StrPath | None = None,
        top_k: int = 5,
        frames: int | None = None,
        views: int = 1,
        crops: int = 1,
        decoder: str = "auto",
        fps: float = IMAGE_RATE,
    ) -> Evidence:
        """What the model saw in a video: the frames of its first view, a heat map of motion, the labels' similarities.

        Arguments and answers are those of :meth:`predict`; ``zsar predict --explain`` draws it.
        """
        options = ClipOptions(frames, views, crops, decoder, fps=fps)
        evidence = self._one(video, labels, templates, options, top_k, AnswerRule(), evidence=True)[1]
        if evidence is None:
            raise VideoError("unreadable", "the frames could not be decoded again")
        return evidence

    def _one(
        self,
        video: StrPath,
        labels: Text | None,
        templates: StrPath | None,
        options: ClipOptions,
        top_k: int,
        rule: AnswerRule,
        *,
        evidence: bool,
    ) -> tuple[Prediction, Evidence | None]:
        path = checks.video_path(video)
        checks.whole("top_k", top_k, checks.TOP_K)
        text = self.embed_labels(labels, templates)
        with DecodePool(0) as pool:
            found = self.answers([path], text, pool, options, top_k=top_k, rule=rule, evidence=evidence)
            ((result, seen),) = found
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result, seen

    def predict_many(
        self,
        videos: Iterable[StrPath],
        labels: Text | None = None,
        *,
        templates: StrPath | None = None,
        top_k: int = 5,
        min_confidence: float | None = None,
        multi: bool = False,
        frames: int | None = None,
        views: int = 1,
        crops: int = 1,
        decoder: str = "auto",
        fps: float = IMAGE_RATE,
        batch_size: int = 8,
        workers: int | None = None,
        timeout: float = 60.0,
        threshold: float | None = None,
    ) -> Iterator[Prediction | Failure]:
        """A result for each video, in order and as soon as it is there; one that cannot be read gives a Failure.

        ``videos`` is read lazily. Arguments as in :meth:`predict`; ``workers`` decoding processes, ``timeout`` in
        s a video, ``batch_size`` videos through the model together.

        Raises:
            UsageError: the labels, the templates or an option are wrong; at once, before the first result.
        """
        options = ClipOptions(frames, views, crops, decoder, batch_size, fps)
        checks.whole("top_k", top_k, checks.TOP_K)
        rule = _rule(min_confidence, threshold, multi)
        checks.number("timeout", timeout, checks.TIMEOUT)
        workers = default_workers() if workers is None else checks.whole("workers", workers, checks.WORKERS)
        paths = checks.video_paths(videos)
        text = self.embed_labels(labels, templates)

        def results() -> Iterator[Prediction | Failure]:
            with DecodePool(workers, timeout=timeout) as pool:
                asked = map(checks.video_path, paths)
                yield from self.run(asked, text, pool, options, top_k=top_k, rule=rule)

        return results()

    def segments(
        self,
        video: StrPath,
        labels: Text | None = None,
        *,
        window: float = 4.0,
        stride: float | None = None,
        templates: StrPath | None = None,
        top_k: int = 5,
        min_confidence: float | None = None,
        multi: bool = False,
        frames: int | None = None,
        decoder: str = "auto",
        fps: float = IMAGE_RATE,
        threshold: float | None = None,
    ) -> Timeline:
        """What happens in a long video, and when; the answers are those of ``zsar predict --window``.

        Args:
            window: s that are looked at together, as ``frames`` frames.
            stride: s from one window's start to the next; half a window unless given.
            min_confidence: where ``1 - unknown`` is less, the answer is "none of these"; 0.5 unless given.
            multi: as in :meth:`predict`; a segment ends where one of its labels does.
            threshold: the old name: 1 minus ``min_confidence``.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels or templates are wrong, or a stride leaves gaps between windows.
        """
        from zsar_cli.prediction.windows import WindowOptions, run_windows

        path = checks.video_path(video)
        window = checks.number("window", window, checks.WINDOW)
        stride = window / 2 if stride is None else stride
        frames = self.model.frames if frames is None else frames
        rule = _rule(min_confidence, threshold, multi, default=DEFAULT)
        assert rule.min_confidence is not None
        options = WindowOptions(window, stride, frames, top_k, rule.min_confidence, decoder, fps, rule.multi)
        text = self.embed_labels(labels, templates)
        with DecodePool(0) as pool:
            (result,) = run_windows(self.model, [path], text, pool, options)
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result

    def _own_classes(self) -> Labels:
        from zsar_cli.model.config import BUNDLED

        names = () if self.model.name in BUNDLED else tuple(self.model.record.classes)
        if not names:
            raise UsageError(
                f"No labels are given, and {self.model.name} has no classes of its own; give labels."
            )
        return Labels(names, tuple((name,) for name in names))

    # --- what the engines and the command line use

    def run(
        self,
        videos: Iterable[str],
        text: PromptEmbeddings,
        pool: DecodePool,
        options: ClipOptions,
        *,
        top_k: int = 5,
        rule: AnswerRule = NO_ANSWER,
        shown: bool = False,
        stop: threading.Event | None = None,
    ) -> Iterator[Prediction | Failure]:
        """The results of :meth:`answers` without evidence."""
        found = self.answers(videos, text, pool, options, top_k=top_k, rule=rule, shown=shown, stop=stop)
        return (result for result, _ in found)

    def answers(
        self,
        videos: Iterable[str],
        text: PromptEmbeddings,
        pool: DecodePool,
        options: ClipOptions,
        *,
        top_k: int = 5,
        rule: AnswerRule = NO_ANSWER,
        evidence: bool = False,
        shown: bool = False,
        stop: threading.Event | None = None,
    ) -> Iterator[Answer]:
        """As :func:`zsar_cli.prediction.clips.answer_videos` with this model and its cache."""
        return answer_videos(
            self.model,
            videos,
            text,
            pool,
            options,
            cache=self.cache,
            top_k=top_k,
            rule=rule,
            evidence=evidence,
            shown=shown,
            stop=stop,
            times=self.times,
        )


def _rule(
    min_confidence: float | None, threshold: float | None, multi: bool, default: float | None = None
) -> AnswerRule:
    """The rule that a public method was asked for, with a warning to its caller about the old name."""

    def tell(threshold: float, least: float) -> None:
        warnings.warn(
            f"threshold={threshold:g} is the old name of min_confidence={least:g}, which is 1 minus it",
            DeprecationWarning,
            stacklevel=5,  # past answer_rule, _rule and the method
        )

    return answer_rule(min_confidence, threshold, multi=multi, default=default, tell=tell)


def _labels(labels: Any) -> Labels:
    """Labels as Python gives them: themselves, or the name of a file or of a built-in list."""
    if isinstance(labels, Labels):
        if not labels.names:
            raise UsageError("labels must hold at least one label.")
        return labels
    if isinstance(labels, (str, os.PathLike)):
        return load_labels(checks.text("labels", labels))
    return load_labels(None, checks.label_texts(labels))
