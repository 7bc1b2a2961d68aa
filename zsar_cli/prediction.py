"""Naming the action in videos: the engine behind ``zsar predict``, and the Python interface.

    from zsar_cli import Recognizer
    recognizer = Recognizer.load("motion-tiny")
    recognizer.predict("a.mp4", labels=["a person waving", "a person walking"])

Decoding runs ahead in worker processes; whatever is ready goes through the model together.
"""

from __future__ import annotations

import glob
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.labels import Labels, load_labels
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.workers import Clip, ClipRequest, DecodePool

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.recognizer import RecognizerModel
    from zsar_cli.prompts import PromptEmbeddings

DEFAULT_MODEL = "PE-Core-B-16/meta"
DEFAULT_TEMPLATES = "video"
NONE_OF_THESE = "none of these"
VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("3gp", "avi", "divx", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)


# --- records --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelScore:
    """One label's answer. ``score``: probability among the labels. ``yes``: does the video show it at all?"""

    label: str
    score: float
    yes: float


@dataclass(frozen=True)
class Prediction:
    """What was found in one video."""

    video: str
    predictions: list[LabelScore]  # best first
    unknown: float  # 0..1: does none of the labels fit?
    duration: float  # s
    frames: int  # frames the model saw
    warning: str | None = None
    answer: str | None = None  # with a threshold: the best label, or "none of these"

    def to_record(self) -> dict[str, Any]:
        """The JSON record of the command line."""
        record: dict[str, Any] = {
            "video": self.video,
            "predictions": [
                {"label": p.label, "score": round(p.score, 6), "yes": round(p.yes, 6)}
                for p in self.predictions
            ],
            "unknown": round(self.unknown, 6),
            "duration": round(self.duration, 3),
            "frames": self.frames,
        }
        if self.answer is not None:
            record["answer"] = self.answer
        if self.warning is not None:
            record["warning"] = self.warning
        return record


@dataclass(frozen=True)
class Failure:
    """A video that could not be used; ``kind`` is one of :class:`zsar_cli.errors.VideoError`'s words."""

    video: str
    kind: str
    message: str

    def to_record(self) -> dict[str, Any]:
        """The JSON record of the command line."""
        return {"video": self.video, "error": {"kind": self.kind, "message": self.message}}


# --- inputs ---------------------------------------------------------------------------------------------------


def find_videos(
    inputs: Iterable[str], stdin: IO[bytes] | None = None, *, null: bool = False
) -> Iterator[str]:
    """The videos that inputs stand for, each once, lazily and in order.

    An input is a file, a directory (searched for video files, hidden ones left out, sorted), a glob pattern, or
    ``-`` for a list on ``stdin``, one path a line (or ended by NUL, with ``null``). A path that does not exist is
    passed on, to become a record of its own.

    Raises:
        UsageError: a directory without videos, or a pattern that matches nothing.
    """
    seen: set[str] = set()
    for path in _expand(inputs, stdin, null):
        if path not in seen:
            seen.add(path)
            yield path


def _expand(inputs: Iterable[str], stdin: IO[bytes] | None, null: bool) -> Iterator[str]:
    for given in inputs:
        if given == "-":
            if stdin is None:
                raise UsageError("'-' reads a list of videos from standard input, and there is none.")
            for line in _lines(stdin, b"\0" if null else b"\n"):
                yield from _expand_one(line)
        else:
            yield from _expand_one(given)


def _expand_one(given: str) -> Iterator[str]:
    if os.path.isdir(given):
        found = [str(path) for path in _search(Path(given))]
        if not found:
            raise UsageError(
                f"No videos in {given}. Files count as videos by their ending, such as .mp4 or .mkv."
            )
        yield from found
    elif not os.path.lexists(given) and glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise UsageError(f"Nothing matches {given!r}.")
        for match in matches:
            if os.path.isdir(match):
                yield from (str(path) for path in _search(Path(match)))
            else:
                yield match
    else:
        yield given


def _search(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                yield Path(folder, name)


def _lines(stream: IO[bytes], end: bytes) -> Iterator[str]:
    """Entries of a list as soon as each is complete; bytes that are not UTF-8 survive."""
    rest = b""
    read = getattr(stream, "read1", stream.read)
    while chunk := read(65536):
        *complete, rest = (rest + chunk).split(end)
        yield from (os.fsdecode(entry.rstrip(b"\r")) for entry in complete if entry.strip())
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))


# --- the engine -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipOptions:
    """How videos are shown to the model. ``views`` times ``crops`` clips a video, their embeddings averaged."""

    frames: int = 8
    views: int = 1
    crops: int = 1
    decoder: str = "auto"
    timeout: float = 60.0
    batch_size: int = 8  # videos


@dataclass
class TextSide:
    """Labels as the model compares with them."""

    labels: list[str]
    positive: Tensor  # (C, E)
    negative: Tensor | None  # (C, E)
    bank: Tensor | None  # (P, E)


class Recognizer:
    """Names what happens in videos, with any labels.

    Make one with :meth:`load`. The answers are those of ``zsar predict``.
    """

    def __init__(self, model: RecognizerModel) -> None:
        self.model = model
        self._texts: dict[Any, TextSide] = {}

    @classmethod
    def load(cls, model: str = DEFAULT_MODEL, *, device: str = "auto", precision: str = "auto") -> Recognizer:
        """Load a bundled model (``motion-tiny``), ``ARCH/TAG``, ``ARCH/path/to/weights`` or a trained directory.

        Raises:
            UsageError: there is no such model, or its weights cannot be had.
        """
        from zsar_cli.model.backbone import resolve_device, resolve_precision
        from zsar_cli.model.recognizer import load_model

        device = resolve_device(device)
        return cls(load_model(model, device=device, precision=resolve_precision(precision, device)))

    def embed_labels(
        self, labels: Labels, templates: str | None = None, *, negatives: bool = False
    ) -> PromptEmbeddings:
        """Embeddings of the labels' prompts: the model's own templates unless others are named.

        Negative prompts are embedded where the model uses them, or where ``negatives`` asks for them.
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
        """The tensors that scores need, on the model's device."""
        from zsar_cli.prompts import phrase_bank

        device = self.model.backbone.device
        bank = None
        if not self.model.uses_negatives:
            phrases = phrase_bank()
            bank = self.embed_labels(Labels(phrases, tuple((p,) for p in phrases)), "plain").positive.to(
                device
            )
        negative = None if prompts.negative is None else prompts.negative.to(device)
        return TextSide(prompts.labels, prompts.positive.to(device), negative, bank)

    def predict(
        self,
        video: str | os.PathLike[str],
        labels: Sequence[str],
        *,
        templates: str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        options: ClipOptions | None = None,
    ) -> Prediction:
        """The best labels for one video.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the labels or templates are wrong.
        """
        (result,) = self.predict_many(
            [video], labels, templates=templates, top_k=top_k, threshold=threshold, options=options, workers=0
        )
        if isinstance(result, Failure):
            raise VideoError(result.kind, result.message)
        return result

    def predict_many(
        self,
        videos: Iterable[str | os.PathLike[str]],
        labels: Sequence[str],
        *,
        templates: str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        options: ClipOptions | None = None,
        workers: int = 2,
    ) -> Iterator[Prediction | Failure]:
        """A result for each video, in order, each as soon as it is there; unreadable ones give a :class:`Failure`."""
        key = (tuple(labels), templates)
        if key not in self._texts:
            self._texts[key] = self.text_side(self.embed_labels(load_labels(None, list(labels)), templates))
        options = options or ClipOptions()
        with DecodePool(workers, timeout=options.timeout) as pool:
            yield from self.run(
                (os.fspath(video) for video in videos), self._texts[key], pool, options, top_k, threshold
            )

    def run(
        self,
        videos: Iterable[str],
        text: TextSide,
        pool: DecodePool,
        options: ClipOptions,
        top_k: int = 5,
        threshold: float | None = None,
    ) -> Iterator[Prediction | Failure]:
        """The loop itself: decode ahead, encode what is ready together, score, in input order."""
        paths: queue.SimpleQueue[str] = queue.SimpleQueue()
        sampling = Sampling(options.frames, options.views)

        def requests() -> Iterator[ClipRequest]:
            for path in videos:
                paths.put(path)
                yield ClipRequest(path, sampling, self.model.preprocess, options.crops, options.decoder)

        for batch in ready_batches(pool.imap(requests()), options.batch_size):
            named = [(paths.get(), result) for result in batch]
            clips = [result for _, result in named if isinstance(result, Clip)]
            scored = iter(self._score(clips, text, top_k) if clips else [])
            for path, result in named:
                if isinstance(result, Clip):
                    found, unknown = next(scored)
                    yield _prediction(path, result, found, unknown, threshold)
                else:
                    yield Failure(path, result.kind, result.message)

    def _score(
        self, clips: Sequence[Clip], text: TextSide, top_k: int
    ) -> list[tuple[list[LabelScore], float]]:
        import numpy as np
        import torch
        from torch.nn import functional as F

        from zsar_cli.video.transforms import normalise

        backbone = self.model.backbone
        views = clips[0].pixels.shape[0]
        with torch.inference_mode():
            pixels = torch.from_numpy(np.concatenate([clip.pixels for clip in clips])).to(backbone.device)
            embedding = self.model(normalise(pixels, self.model.preprocess, backbone.dtype)).embedding
            video = F.normalize(embedding.unflatten(0, (len(clips), views)).mean(dim=1), dim=-1)
            scores = self.model.score(video, text.positive, text.negative, text.bank)
            best = scores.score.topk(min(top_k, len(text.labels)), dim=-1).indices
            return [
                (
                    [
                        LabelScore(text.labels[c], scores.score[b, c].item(), scores.yes[b, c].item())
                        for c in row
                    ],
                    scores.unknown[b].item(),
                )
                for b, row in enumerate(best.tolist())
            ]


def _prediction(
    path: str, clip: Clip, found: list[LabelScore], unknown: float, threshold: float | None
) -> Prediction:
    answer = None
    if threshold is not None:
        answer = NONE_OF_THESE if unknown > threshold else found[0].label
    return Prediction(path, found, unknown, clip.info.duration, clip.indices.size, clip.warning, answer)


@dataclass
class _End:
    error: BaseException | None = field(default=None)


def ready_batches(results: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Group results: at most ``size``, and only what is already there, so that nothing waits for a batch to fill."""
    waiting: queue.Queue[Any] = queue.Queue(maxsize=size)
    closed = threading.Event()

    def collect() -> None:
        end = _End()
        try:
            for result in results:
                while not closed.is_set():
                    try:
                        waiting.put(result, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if closed.is_set():
                    return
        except BaseException as error:
            end = _End(error)
        waiting.put(end)

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    try:
        end: _End | None = None
        while end is None:
            batch = [waiting.get()]
            while len(batch) < size and not isinstance(batch[-1], _End):
                try:
                    batch.append(waiting.get_nowait())
                except queue.Empty:
                    break
            if isinstance(batch[-1], _End):
                end = batch.pop()
            if batch:
                yield batch
        if end.error is not None:
            raise end.error
    finally:
        closed.set()
