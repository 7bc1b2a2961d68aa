"""The recipe ``own`` for user classes with few clips: when it applies, and an estimate of its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.training.recipe import Recipe

if TYPE_CHECKING:
    from zsar_cli.data.dataset import Item
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.video.pool import DecodePool

NAME = "own"
MOST_A_CLASS = 100  # clips, on average


def fits(fields: dict[str, Any], root: Path | None) -> bool:
    """Tell whether the recipe ``own`` applies: no built-in data set, and up to a hundred clips per class on average.

    Raises:
        UsageError: the data set cannot be loaded.
    """
    from zsar_cli.data.dataset import load_dataset
    from zsar_cli.data.definition import known_name
    from zsar_cli.text.labels import load_labels

    data, labels = fields.get("data"), fields.get("labels")
    if (
        data is None
        or known_name(data) is not None
        or fields.get("tune") == "full"
        or fields.get("architecture")
    ):
        return False
    named = None if labels is None else load_labels(labels).names
    found = load_dataset(data, root, split="train", classes=named, label_column=fields.get("label_column"))
    return len(found.items) <= MOST_A_CLASS * len(found.classes)


def expectation(
    model: RecognizerModel,
    recipe: Recipe,
    items: Sequence[Item],
    held_out: Sequence[Item],
    steps: int,
    pool: DecodePool,
    cache: FeatureCache,
) -> str:
    """Estimate the time of a run by encoding two clips and running one step on them without an update."""
    from zsar_cli.training.optimizer import validation_interval

    look, step = _measured(model, recipe, items, pool, cache)
    validations = steps / validation_interval(steps, recipe) if held_out else 0
    validating = validations * len(held_out) / (3 * recipe.batch_size)  # in steps; without the backward pass
    seconds = look * (len(items) + len(held_out)) + step * (steps + validating)
    classes = len({item.label for item in items})
    chosen = f", {len(held_out)} held out to choose the best model" if held_out else ""
    return (
        f"{len(items)} training clips of {classes} classes{chosen}; at most {steps} steps. About "
        f"{_duration(seconds)}: {look:.2g} s to encode each clip once and {step:.2g} s per step."
    )


def _measured(
    model: RecognizerModel, recipe: Recipe, items: Sequence[Item], pool: DecodePool, cache: FeatureCache
) -> tuple[float, float]:
    """Measure the seconds to encode a clip, and the seconds of a step."""
    from zsar_cli.data.clips import render_request
    from zsar_cli.errors import VideoError
    from zsar_cli.features.encoding import encode_clips, load_cached, stack_features, to_device
    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.video.pool import ClipRequest

    requests = [
        ClipRequest(item.path, model.choose(recipe.frames, 1), model.preprocess) for item in items[:3]
    ]
    features, look = None, 0.0
    started = time.perf_counter()
    for _, key, clip in load_cached(pool, requests, cache, render_request):
        if not isinstance(clip, VideoError):
            features = stack_features(encode_clips(model, [(key, clip)], cache))
        look = time.perf_counter() - started  # of the last one: the first waits for processes to start
        started = time.perf_counter()
    if features is None:
        return look, 0.0
    parts = (features.embedding, features.tokens)
    batch = FrameFeatures(
        *(to_device(part, model.backbone.device).repeat_interleave(recipe.batch_size, 0) for part in parts)
    )
    started = time.perf_counter()
    model.encode_video(batch).embedding.sum().backward()
    model.zero_grad(set_to_none=True)
    return look, recipe.accumulate * (time.perf_counter() - started)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
