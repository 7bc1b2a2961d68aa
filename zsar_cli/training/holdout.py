"""Clips held out of the training list, to choose the best checkpoint by: test data must not choose anything."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zsar_cli import distributed
from zsar_cli.data.clips import render_request
from zsar_cli.data.dataset import Item
from zsar_cli.errors import VideoError
from zsar_cli.features.cache import EncodedClip, FeatureCache
from zsar_cli.features.encoding import load_cached, map_features
from zsar_cli.model.alignment import average_views
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Preprocess

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings

FEWEST = 5  # clips of a class of which one can be spared


def hold_out(
    items: Sequence[Item], share: float, *, seed: int, taken: Iterable[Item] = ()
) -> tuple[list[Item], list[Item]]:
    """Split into (training, held out), both in the given order; the same for a seed.

    Of each class ``share`` of its clips, at least one where it has five or more, are held out; never all of them, and
    none that is in ``taken`` (the few shots, say).
    """
    if not share:
        return list(items), []
    keep = set(taken)
    by_class: dict[int, list[Item]] = defaultdict(list)
    for item in dict.fromkeys(items):  # a list may name a video more than once
        by_class[item.label].append(item)
    held: set[Item] = set()
    for label, members in by_class.items():
        if len(members) >= FEWEST:
            spare = [item for item in members if item not in keep]
            random.Random(f"holdout/{seed}/{label}").shuffle(spare)
            held.update(spare[: min(max(1, round(share * len(members))), len(members) - 1)])
    return [item for item in items if item not in held], [item for item in items if item in held]


def top1(
    model: RecognizerModel,
    items: Sequence[Item],
    text: PromptEmbeddings,
    *,
    frames: int,
    pool: DecodePool,
    batch_size: int,
    cache: FeatureCache | None = None,
) -> float:
    """Compute the share of clips whose own class has the best score; each process of a job looks at some of them.

    One centre view a clip. Videos that cannot be read do not count, NaN where none can; those in ``cache`` are not
    read again.
    """
    own = items[distributed.rank() :: distributed.world()]
    right = count = 0
    with torch.no_grad():
        for clips, target in batches(own, model.choose(frames, 1), model.preprocess, pool, batch_size, cache):
            embedding = map_features(model, clips, lambda part, _: model.encode_video(part).embedding, cache)
            scores = model.score(average_views(embedding), text.positive, text.negative, text.rivals(model))
            best = scores.score.argmax(dim=-1).cpu()
            right, count = right + int((best == target).sum()), count + len(target)
    total_right, total = distributed.add_up([right, count])
    return total_right / total if total else float("nan")


def batches(
    items: Sequence[Item],
    sampling: Sampling,
    preprocess: Preprocess,
    pool: DecodePool,
    size: int,
    cache: FeatureCache | None,
) -> Iterator[tuple[list[tuple[str | None, Clip | EncodedClip]], Tensor]]:
    """Yield (B readable clips with their keys, targets (B,)); the pool decodes on while a batch is looked at."""
    requests = (ClipRequest(item.path, sampling, preprocess) for item in items)
    loaded = zip(items, load_cached(pool, requests, cache, render_request), strict=True)
    while part := list(islice(loaded, size)):
        good = [
            (item.label, (key, clip)) for item, (_, key, clip) in part if not isinstance(clip, VideoError)
        ]
        if good:
            yield [clip for _, clip in good], torch.tensor([label for label, _ in good])
