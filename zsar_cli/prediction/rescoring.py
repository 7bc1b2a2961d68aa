"""Stored embeddings, scored with other labels: the videos themselves are not needed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError, memory_explained
from zsar_cli.prediction.clips import Found, answers_of_scores, prediction_of, score_embedded
from zsar_cli.prediction.confidence import AnswerRule
from zsar_cli.prediction.records import Failure, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings

AT_ONCE = 512  # videos


def rescored(
    model: RecognizerModel,
    records: Iterable[dict[str, Any]],
    text: PromptEmbeddings,
    *,
    views: int,
    top_k: int,
    rule: AnswerRule,
    keep: bool = False,
) -> Iterator[Prediction | Failure]:
    """Answer stored videos again, in order; what failed stays as it is.

    Args:
        records: with the embeddings of this model, as predictions write them.
        views: of each video, with its crops; a published family keeps them apart.
        keep: the new records have the embeddings, too.

    Raises:
        UsageError: a record has no embedding, or none that is this model's.
    """
    import torch

    rest = iter(records)
    while batch := list(islice(rest, AT_ONCE)):
        good = [record for record in batch if "error" not in record]
        found: Iterator[Found] = iter(())
        if good:
            with torch.inference_mode(), memory_explained("give fewer labels"):
                video = _stacked(model, good, views).to(model.backbone.device)
                scores, kept = score_embedded(model, video, text, keep=keep)
            found = answers_of_scores(scores, text.labels, top_k, rule, kept)
        for record in batch:
            if "error" in record:
                yield Failure(record["video"], **record["error"])
            else:
                about = {name: record.get(name) for name in ("duration", "frames", "warning", "assumed_fps")}
                yield prediction_of(record["video"], next(found), rule, **about)


def _stacked(model: RecognizerModel, records: list[dict[str, Any]], views: int) -> Tensor:
    """Stack embeddings to what the scores are made of: (B, E), or of a published family (B, V, W)."""
    import torch

    for record in records:
        if "embedding" not in record:
            raise UsageError(
                f"The stored answer to {record['video']:.200} has no embedding. Run zsar predict --embeddings on the "
                "videos once; after that, labels can be changed without them."
            )
    try:
        found = torch.tensor([record["embedding"] for record in records], dtype=torch.float32)
        sound = bool(torch.isfinite(found).all())
        if model.published is not None:
            found = torch.unflatten(found, -1, (views, -1))
        else:
            sound = sound and found.shape[1:] == (model.backbone.embed_dim,)
    except (ValueError, TypeError, RuntimeError):
        sound = False
    if not sound:
        raise UsageError(
            f"The stored embeddings of {records[0]['video']:.200} and others are damaged, or not of {model.name}."
        )
    return found
