"""``zsar eval --ray``: the videos of an evaluation decoded and scored on a cluster, their records gathered here."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zsar_cli.cluster.connect import Share
from zsar_cli.cluster.pipeline import settings, staged
from zsar_cli.cluster.stages import RECORD, VIDEO, Columns, Decode, limit_threads, loaded, records_of, to_id
from zsar_cli.data.clips import render_request
from zsar_cli.errors import UsageError, memory_explained
from zsar_cli.evaluation.inference import Options, Task, evaluate_batch
from zsar_cli.prediction.records import to_json
from zsar_cli.video.pool import ClipRequest

if TYPE_CHECKING:
    from zsar_cli.evaluation.protocols import EvaluationPart
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings

PLACES, DRAW = "places", "draw"  # columns
PIECES = 4  # of work for each actor at least
MOST = 256  # videos of a piece


@dataclass
class Evaluate:
    """Score the clips of a batch against the labels of their parts: a record for each place of each video."""

    model: str
    weights: str  # a hash: a node may have other weights under this name
    parts: Sequence[EvaluationPart]
    texts: Sequence[PromptEmbeddings]
    options: Options
    how: Mapping[str, Any] = field(default_factory=dict)  # device, precision, backbone
    threads: int | None = None

    @cached_property
    def network(self) -> RecognizerModel:
        """The model, loaded at first use."""
        from zsar_cli.model.load import load_model
        from zsar_cli.model.precision import resolve_device

        device = resolve_device(self.how.get("device", "auto"))
        network = load_model(self.model, **{**self.how, "device": device})
        if network.fingerprint() != self.weights:
            raise UsageError(f"{self.model} has other weights on a node of the cluster than here.")
        self.texts = [text.to(network.backbone.device) for text in self.texts]
        return network

    def __call__(self, batch: Columns) -> dict[str, list[str]]:
        """Evaluate the batch."""
        limit_threads(self.threads)
        network = self.network
        clips = loaded(batch, self.options.decoder)
        places = [
            (row, part, item) for row, text in enumerate(batch[PLACES]) for part, item in json.loads(text)
        ]
        with memory_explained("use a smaller --batch-size, fewer --frames"):
            records = evaluate_batch(
                *(network, self.parts, self.texts, self.options, range(len(clips)), clips, places),
                draws=[int(number) for number in batch[DRAW]],
            )
            return {RECORD: [to_json(record) for record in records]}


@dataclass(frozen=True)
class ClusterEngine:
    """Evaluates on a cluster, in place of this process.

    Attributes:
        ray: the module, connected.
        share: what the cluster has for each stage.
        model: as the actors load it.
        how: ``device``, ``precision`` and ``backbone`` of the actors' models.
    """

    ray: Any
    share: Share
    model: str
    how: Mapping[str, Any]

    def __call__(
        self,
        model: RecognizerModel,
        parts: Sequence[EvaluationPart],
        texts: Sequence[PromptEmbeddings],
        options: Options,
        tasks: Sequence[Task],
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the records of all tasks as they come."""
        if not tasks:
            return
        ray, share = self.ray, self.share
        shown = ClipRequest(
            "",
            model.choose(options.frames, options.views),
            model.preprocess,
            options.crops,
            options.decoder,
        )
        decode = Decode(shown, os.getcwd(), options.timeout, render_request)
        texts = [text.to("cpu") for text in texts]
        evaluate = Evaluate(self.model, model.fingerprint(), parts, texts, options, self.how, share.threads)
        rows = [
            {VIDEO: to_id(task.video), PLACES: json.dumps(task.places), DRAW: task.draw} for task in tasks
        ]
        pieces = max(1, min(len(rows), max(PIECES * share.models, -(-len(rows) // MOST))))
        with settings(ray):
            videos = ray.data.from_items(rows, override_num_blocks=pieces)
            found = staged(ray, videos, decode, evaluate, share, options.batch_size)
            yield from records_of(found.iter_rows())
