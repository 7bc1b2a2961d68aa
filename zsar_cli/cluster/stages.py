"""What the actors of a cluster run: videos to clips on CPUs, clips to records where the model is.

Decoding is :class:`zsar_cli.video.pool.DecodePool`, and answers are :func:`zsar_cli.prediction.clips.answer_batch`,
as in a run on one machine. Nothing here knows Ray: a stage is called with the columns of a batch.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli.errors import VideoError
from zsar_cli.prediction.records import to_json
from zsar_cli.resources import available_cores
from zsar_cli.video.address import is_remote, public
from zsar_cli.video.fetch import LIMITS
from zsar_cli.video.keeper import fair_share_mb
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool, Ready
from zsar_cli.video.storage import use_options

if TYPE_CHECKING:
    from zsar_cli.batch import BatchPredictor

Columns: TypeAlias = "Mapping[str, Sequence[Any]]"
LEAST_SPACE = 2**26  # bytes for what an actor has fetched
VIDEO, CLIP, RECORD = "video", "clip", "record"  # columns


def to_id(video: str) -> str:
    """Write the name of a video as JSON: a column of text has no place for bytes that are not UTF-8."""
    return json.dumps(video)


def from_id(text: str) -> str:
    """Read what :func:`to_id` wrote."""
    name: str = json.loads(text)
    return name


@dataclass
class Decode:
    """Decode each video of a batch: to the columns that there are comes ``clip``.

    Args:
        shown: how every video is shown to the model; its path is replaced.
        folder: what relative paths start from: workers are started elsewhere.
        timeout: s a video.
        render: gives the clip of what needs no decoding, None for other videos.
        max_bytes: of an object in a storage.
        storage_options: a file of options for storages, on every machine.
    """

    shown: ClipRequest
    folder: str
    timeout: float = 60.0
    render: Callable[[ClipRequest], Clip | None] | None = None
    max_bytes: int | None = None
    storage_options: Path | None = None

    @cached_property
    def pool(self) -> DecodePool:
        """One process that decodes: what crashes it or hangs costs one video, not the actor."""
        neighbours = available_cores()  # as many actors may be on this machine
        LIMITS.space = max(LEAST_SPACE, LIMITS.space // neighbours)
        LIMITS.max_bytes = self.max_bytes or LIMITS.max_bytes
        if self.storage_options is not None:
            use_options(self.storage_options)
        return DecodePool(1, timeout=self.timeout, memory_limit_mb=fair_share_mb(neighbours))

    def request(self, row: Mapping[str, Any]) -> ClipRequest | Ready:
        """Ask for the video of a row."""
        name = from_id(row[VIDEO])
        ready = self.render(replace(self.shown, path=name)) if self.render else None
        if ready is not None:
            return Ready(ready)
        return replace(self.shown, path=name if is_remote(name) else os.path.join(self.folder, name))

    def __call__(self, batch: Columns) -> Iterator[dict[str, list[Any]]]:
        """Yield each video as soon as it is decoded."""
        for row, clip in self.pool.imap(rows_of(batch), self.request):
            yield {**{name: [value] for name, value in row.items()}, CLIP: [pickle.dumps(clip, protocol=5)]}


@dataclass
class Answer:
    """Answer the clips of a batch: the columns ``video`` and ``record``, as JSON.

    Args:
        predictor: what to answer with; each actor loads its own model.
        threads: of torch; None leaves them.
    """

    predictor: BatchPredictor
    threads: int | None = None

    def __call__(self, batch: Columns) -> dict[str, list[str]]:
        """Answer the batch."""
        limit_threads(self.threads)
        results = self.predictor.answer(loaded(batch, self.predictor.clips.decoder))
        return {VIDEO: list(batch[VIDEO]), RECORD: [to_json(result.to_record()) for result in results]}


def rows_of(batch: Columns) -> list[dict[str, Any]]:
    """Make rows of columns."""
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def loaded(batch: Columns, decoder: str = "auto") -> list[tuple[ClipRequest, None, Clip | VideoError]]:
    """Make of a batch what a run on one machine gets from its decoders."""
    return [
        (ClipRequest(public(from_id(name)), decoder=decoder), None, pickle.loads(clip))
        for name, clip in zip(batch[VIDEO], batch[CLIP], strict=True)
    ]


def limit_threads(threads: int | None) -> None:
    """Compute with so many threads, as many as the cluster counts for this actor."""
    if threads is not None:
        import torch

        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def records_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Read the records of rows."""
    return (json.loads(row[RECORD]) for row in rows)
