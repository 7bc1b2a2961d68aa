"""Answer videos inside an engine that has its own workers: Ray Data, Spark, Daft, Beam (docs/distributed.md).

from zsar_cli import BatchPredictor

predictor = BatchPredictor(["a circle moves left", "a circle moves right"], "motion-tiny")
rows = predictor(["a.mp4", "b.mp4"])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zsar_cli import checks
from zsar_cli.prediction.clips import AnswerOptions, answer_batch
from zsar_cli.prediction.options import ManyOptions, clip_options, rule_of, takes, top_k_of
from zsar_cli.prediction.records import Failure, Prediction, to_json
from zsar_cli.recognizer import DEFAULT_MODEL, LabelsAndRule, Recognizer, Text
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.text.labels import labels_of
from zsar_cli.video.given import Inputs, check_videos
from zsar_cli.video.pool import DecodePool

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from zsar_cli.features.encoding import Loaded

COLUMNS = ("video", "label", "score", "yes", "unknown", "answer", "error_kind", "error_message", "record")


class BatchPredictor:
    """Answers lists of videos, a row for each. It is picklable, and loads its model at first use.

    So an engine sends it to its workers, and each of them has its own model and its own process that decodes. A video
    that cannot be read is a row with ``error_kind`` and ``error_message``; no exception ends the job.
    """

    @takes(ManyOptions)
    def __init__(
        self,
        labels: Text,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        backbone: str | None = None,
        embeddings: bool = False,
        **options: Unpack[ManyOptions],
    ) -> None:
        """Check the options and read the labels; nothing else.

        Args:
            labels: a list of labels, a file, the name of a built-in list, or prompt embeddings.
            model: as of :meth:`zsar_cli.Recognizer.load`, by a name or path that every worker knows.
            device: of each worker: ``auto``, ``cpu``, ``cuda``.
            precision: as of :meth:`zsar_cli.Recognizer.load`.
            backbone: as of :meth:`zsar_cli.Recognizer.load`.
            embeddings: whether records have the embeddings of their videos.
            **options: of :class:`zsar_cli.prediction.options.ManyOptions`; ``workers`` (decoding processes) is 1.

        Raises:
            UsageError: a value is wrong.
        """
        self.labels = labels if isinstance(labels, PromptEmbeddings) else labels_of(labels)
        self.model = checks.text("model", model)
        self.how: dict[str, Any] = {"device": device, "precision": precision, "backbone": backbone}
        self.embeddings = checks.truth("embeddings", embeddings)
        self.options: Mapping[str, Any] = {"workers": 1, **options}
        self.clips = clip_options(self.options)
        checks.whole("workers", self.options["workers"], checks.WORKERS)
        self.timeout = checks.number("timeout", self.options.get("timeout", 60.0), checks.TIMEOUT)
        rule_of(self.options)
        top_k_of(self.options)

    def __call__(self, videos: Iterable[Any]) -> list[dict[str, Any]]:
        """Answer videos; a row for each, in order, with the keys of :data:`COLUMNS`."""
        return [row_of(result.to_record()) for result in self.predict(videos)]

    def predict(self, videos: Iterable[Any]) -> list[Prediction | Failure]:
        """Answer videos as :meth:`zsar_cli.Recognizer.predict_many`; the same processes decode at every call."""
        asked = self.asked
        with Inputs(self.clips.fps) as inputs:
            given = inputs.each(check_videos(videos))
            return list(self.recognizer.run(given, asked.text, self._pool, self.clips, self._how))

    def answer(self, decoded: Sequence[Loaded]) -> list[Prediction | Failure]:
        """Answer videos that were decoded elsewhere."""
        found = answer_batch(self.recognizer.model, decoded, self.asked.text, self._how)
        return [result for result, _ in found]

    @cached_property
    def recognizer(self) -> Recognizer:
        """The model, loaded at first use."""
        return Recognizer.load(self.model, **self.how)

    @cached_property
    def asked(self) -> LabelsAndRule:
        """The embeddings of the labels, and what makes an answer."""
        return self.recognizer.asked(self.labels, self.options, self.clips.frames)

    @property
    def _how(self) -> AnswerOptions:
        return AnswerOptions(self.asked.top_k, self.asked.rule, self.embeddings)

    @cached_property
    def _pool(self) -> DecodePool:
        return DecodePool(self.options["workers"], timeout=self.timeout)

    def __getstate__(self) -> dict[str, Any]:
        loaded = ("recognizer", "asked", "_pool")
        return {name: value for name, value in self.__dict__.items() if name not in loaded}


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Make a flat row of a record: its best label and its error, None for what it lacks; ``record`` is all of it."""
    best = record.get("predictions") or [{}]
    error = {f"error_{name}": value for name, value in record.get("error", {}).items()}
    known = {**record, **best[0], **error, "record": to_json(record)}
    return {name: known.get(name) for name in COLUMNS}
