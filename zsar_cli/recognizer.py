"""Action recognition in Python: the engine behind ``zsar predict``.

    from zsar_cli import Recognizer

    recognizer = Recognizer.load("motion-tiny")
    recognizer.predict("a.mp4", labels=["a circle moves left", "a circle moves right"])

Videos are decoded ahead in worker processes; those that are ready are batched.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli import checks
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.prediction import calibration
from zsar_cli.prediction.clips import Answer, AnswerOptions, ClipOptions, answer_videos, embed_one
from zsar_cli.prediction.confidence import DEFAULT, AnswerRule
from zsar_cli.prediction.explain import Evidence
from zsar_cli.prediction.options import (
    ExplainOptions,
    ManyOptions,
    PredictOptions,
    SegmentOptions,
    StrPath,
    ViewOptions,
    clip_options,
    rule_of,
    takes,
    top_k_of,
    where_of,
    window_options,
)
from zsar_cli.prediction.records import Failure, Prediction
from zsar_cli.prediction.timeline import Timeline
from zsar_cli.prediction.windows import run_windows
from zsar_cli.resources import default_workers
from zsar_cli.run_log import StageTimes
from zsar_cli.text.cache import TextCache
from zsar_cli.text.embeddings import PromptEmbeddings, embed_labels
from zsar_cli.text.labels import Labels, labels_of
from zsar_cli.text.templates import Templates, default_templates, load_templates
from zsar_cli.video.given import Inputs, Video, check_videos
from zsar_cli.video.pool import DecodePool

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "PE-Core-B-16/meta"

Text: TypeAlias = "Iterable[str] | StrPath | Labels | PromptEmbeddings"


class Recognizer:
    """Recognises actions in videos, for any labels; the results are those of ``zsar predict``.

    Create it with :meth:`load`, and use it for any number of videos and sets of labels.
    """

    def __init__(self, model: RecognizerModel, cache: FeatureCache | None = None) -> None:
        if isinstance(model, str | os.PathLike):
            raise UsageError(f"A name is loaded by Recognizer.load({os.fspath(model)!r}).")
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
            backbone: new path of the backbone weights of a ``zsar train --tune modules`` run, if they have moved.
            cache: a folder for visual features, so that later calls on the same videos skip decoding and the
                visual tower.

        Raises:
            UsageError: there is no such model or device, the weights cannot be loaded, or the cache cannot be
                written.
        """
        name, folder = checks.text("model", model), checks.optional_text("cache", cache)
        times = StageTimes()
        with times.measured("load"):
            import torch

            from zsar_cli.model.load import load_model
            from zsar_cli.model.precision import resolve_device

            kind = str(device) if isinstance(device, torch.device) else checks.text("device", device)
            device = resolve_device(kind)
            loaded = load_model(
                name,
                device=device,
                precision=checks.text("precision", precision),
                backbone=checks.optional_text("backbone", backbone),
            )
            loaded.backbone.use_engine()
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
        """Embed the prompts of labels, by default with the templates that the model was trained with.

        Args:
            labels: a list of labels, a file, or the name of a built-in list; by default the classes of a run of
                ``zsar train``.
            templates: a file of prompt templates, or the name of a bundled set.
            negatives: whether to embed negative prompts even if the model's scores do not use them.

        Raises:
            UsageError: invalid labels or templates, or embeddings that were made with another model.
        """
        if isinstance(labels, PromptEmbeddings):
            if templates is not None:
                raise UsageError("Prompt embeddings were made with templates; give labels to choose others.")
            return labels.for_model(self.model)
        wanted = self._own_classes() if labels is None else labels_of(labels)
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

    @takes(PredictOptions)
    def predict(
        self, video: Any, labels: Text | None = None, **options: Unpack[PredictOptions]
    ) -> Prediction:
        """Predict the best labels for one video, decoded in this process.

        Args:
            video: the path of a file or of a directory of images that are its frames; a file open for reading bytes;
                a list of PIL images; or an array or tensor of RGB frames, (T, H, W, 3) or (T, 3, H, W), uint8 or
                floats from 0 to 1.
            labels: a list of labels, a file, the name of a built-in list, or prompt embeddings; by default the
                classes of a run of ``zsar train``.
            **options: of :class:`zsar_cli.prediction.options.PredictOptions`.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels, the templates or an option are wrong, or ``video`` is no video.
        """
        return self._one(video, labels, options, evidence=False)[0]

    @takes(ExplainOptions)
    def explain(self, video: Any, labels: Text | None = None, **options: Unpack[ExplainOptions]) -> Evidence:
        """Show what the model saw in a video: frames of its first view, a heat map of motion, the labels' similarities.

        Arguments and answers are those of :meth:`predict`; ``zsar predict --explain`` draws it.
        """
        evidence = self._one(video, labels, options, evidence=True)[1]
        if evidence is None:
            raise VideoError("unreadable", "the frames could not be decoded again")
        return evidence

    def _one(
        self, video: Any, labels: Text | None, options: Mapping[str, Any], *, evidence: bool
    ) -> tuple[Prediction, Evidence | None]:
        clips = clip_options(options)
        with Inputs(clips.fps) as inputs, DecodePool(0) as pool:
            videos = [inputs.take(video)]
            asked = self.asked(labels, options, clips.frames)
            shown = not evidence and self.cache is None  # at hand then, for a notebook
            where = where_of(options, asked.text.labels)
            how = AnswerOptions(asked.top_k, asked.rule, evidence=evidence, where=where, shown=shown)
            ((result, seen),) = self.answers(videos, asked.text, pool, clips, how)
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result, seen

    @takes(ManyOptions)
    def predict_many(
        self, videos: Iterable[Any], labels: Text | None = None, **options: Unpack[ManyOptions]
    ) -> Iterator[Prediction | Failure]:
        """Yield the result of each video, in order, as soon as it is available; a Failure for an unreadable video.

        ``videos`` is read lazily. Arguments as in :meth:`predict`, and of
        :class:`zsar_cli.prediction.options.ManyOptions`.

        Raises:
            UsageError: the labels, the templates or an option are wrong; at once, before the first result.
        """
        clips = clip_options(options)
        timeout = checks.number("timeout", options.get("timeout", 60.0), checks.TIMEOUT)
        workers = options.get("workers")
        if workers is not None:
            checks.whole("workers", workers, checks.WORKERS)
        else:
            workers = default_workers(self.model.backbone.device.type)
        several = check_videos(videos)
        asked = self.asked(labels, options, clips.frames)

        def results() -> Iterator[Prediction | Failure]:
            with Inputs(clips.fps) as inputs, DecodePool(workers, timeout=timeout) as pool:
                given = inputs.each(several)
                how = AnswerOptions(asked.top_k, asked.rule)
                yield from self.run(given, asked.text, pool, clips, how)

        return results()

    @takes(SegmentOptions)
    def segments(self, video: Any, labels: Text | None = None, **options: Unpack[SegmentOptions]) -> Timeline:
        """Localise actions in a long video by sliding windows; the results are those of ``zsar predict --window``.

        Arguments as in :meth:`predict`, and of :class:`zsar_cli.prediction.options.SegmentOptions`. A segment ends
        where its answer does.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels or templates are wrong, or a stride leaves gaps between windows.
        """
        windows = window_options(options, self.model.frames, self.model.clip_seconds)
        with Inputs(windows.fps) as inputs, DecodePool(0) as pool:
            videos = [inputs.take(video)]
            asked = self.asked(labels, options, windows.frames, DEFAULT)
            assert asked.rule.min_confidence is not None
            windows = replace(windows, min_confidence=asked.rule.min_confidence)
            (result,) = run_windows(self.model, videos, asked.text, pool, windows, shown=True)
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result

    @takes(ViewOptions)
    def embed_video(self, video: Any, **options: Unpack[ViewOptions]) -> torch.Tensor:
        """Compute the normalised video embedding (E,), fp32 on the CPU, which :meth:`predict` compares with labels.

        Args:
            video: as in :meth:`predict`.
            **options: of :class:`zsar_cli.prediction.options.ViewOptions`.

        Raises:
            VideoError: the video cannot be read.
            UsageError: an option is wrong, or ``video`` is no video.
        """
        clips = clip_options(options)
        with Inputs(clips.fps) as inputs:
            return embed_one(self.model, inputs.take(video), clips, self.cache)

    # --- what it is

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of a run of ``zsar train``, which are its default labels; empty for other models."""
        from zsar_cli.model.config import BUNDLED

        return () if self.model.name in BUNDLED else tuple(self.model.record.classes)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.backbone.device

    @property
    def precision(self) -> str:
        """The precision of the model: ``fp32``, ``bf16``, ``fp16`` or ``int8``."""
        return self.model.backbone.precision

    def __repr__(self) -> str:
        own = f", {len(self.classes)} classes of its own" if self.classes else ""
        about = f"{self.device}, {self.precision}, {self.model.frames} frames"
        return f"<Recognizer {self.model.name}: {about}{own}>"

    def asked(
        self,
        labels: Text | None,
        options: Mapping[str, Any],
        frames: int | None,
        default: float | None = None,
    ) -> LabelsAndRule:
        """Resolve labels and rule; without a bound, the one calibrated for this model, these labels and frames."""
        rule, top_k = rule_of(options, default), top_k_of(options)
        target = checks.choice("calibration", options.get("calibration", "90"), tuple(calibration.TARGETS))
        if isinstance(labels, PromptEmbeddings):
            return LabelsAndRule(self.embed_labels(labels, options.get("templates")), rule, top_k)
        wanted = self._own_classes() if labels is None else labels_of(labels)
        text = self.embed_labels(wanted, options.get("templates"))
        given = options.get("min_confidence"), options.get("threshold")
        if given == (None, None) and not rule.multi:
            found = calibration.bound(self.model, wanted, text.templates_hash, frames, target)
            if found is not None:
                logger.info("%s", found[1])
                rule = rule if found[0] is None else replace(rule, min_confidence=found[0])
        return LabelsAndRule(text, rule, top_k)

    def _own_classes(self) -> Labels:
        if not self.classes:
            raise UsageError(
                f"No labels are given, and {self.model.name} has no training classes; give labels."
            )
        return Labels(self.classes, tuple((phrase,) for phrase in self.model.record.prompted.values()))

    # --- what the engines and the command line use

    def run(self, *question: Any, **how: Any) -> Iterator[Prediction | Failure]:
        """Yield the results of :meth:`answers` without evidence."""
        return (result for result, _ in self.answers(*question, **how))

    def answers(
        self,
        videos: Iterable[Video],
        text: PromptEmbeddings,
        pool: DecodePool,
        options: ClipOptions,
        how: AnswerOptions = AnswerOptions(),  # noqa: B008 - frozen
        *,
        stop: threading.Event | None = None,
    ) -> Iterator[Answer]:
        """Answer videos as :func:`zsar_cli.prediction.clips.answer_videos` with this model and its cache."""
        return answer_videos(
            *(self.model, videos, text, pool, options, how),
            cache=self.cache,
            stop=stop,
            times=self.times,
        )


@dataclass(frozen=True)
class LabelsAndRule:
    """What is asked of each video."""

    text: PromptEmbeddings
    rule: AnswerRule
    top_k: int
