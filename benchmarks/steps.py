"""Training steps on demand: ``python -m benchmarks.steps KIND BACKBONE FOLDER``; each line on stdin is one step.

KIND: ``mean`` (plain CLIP with mean pooling, everything tuned), ``full`` (the method, everything tuned),
``modules`` (the backbone frozen), ``cached`` (frozen, features from the cache). The loop is that of zsar train.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from zsar_cli.features.cache import EncodedClip, FeatureCache
from zsar_cli.features.encoding import encode_clips, stack_features
from zsar_cli.model.backbone import load_backbone
from zsar_cli.model.zsar import PLAIN, Parts, RecognizerModel
from zsar_cli.text.templates import load_templates
from zsar_cli.training.data import Batch
from zsar_cli.training.recipe import Recipe
from zsar_cli.training.trainer import Trainer
from zsar_cli.video.pool import ClipRequest, load_clip
from zsar_cli.video.sampling import Sampling

LABELS = [f"action number {k}" for k in range(16)]


def main(kind: str, backbone: str, folder: str, *videos: str) -> None:
    """One optimiser step over the given videos for each line read; its seconds are written back."""
    torch.manual_seed(0)
    model = RecognizerModel(load_backbone(backbone), PLAIN if kind == "mean" else Parts())
    recipe = Recipe(
        tune="full" if kind in ("mean", "full") else "modules", augment=False, batch_size=len(videos)
    )
    requests = [ClipRequest(video, Sampling(8), model.preprocess) for video in videos]
    target = torch.arange(len(videos))
    clips = [load_clip(request) for request in requests]
    cache = FeatureCache(folder, model) if kind == "cached" else None
    if cache is not None:
        model.eval()
        encode_clips(model, [(cache.key(r), clip) for r, clip in zip(requests, clips, strict=True)], cache)

    def batches(first: int) -> Iterator[Batch]:
        for step, _ in enumerate(sys.stdin):
            started.append(time.perf_counter())
            if cache is None:  # decoding is part of a step, as it would be
                seen = torch.stack([torch.from_numpy(load_clip(r).pixels[0]) for r in requests])
                yield Batch(step, 0, seen, target)
            else:
                stored = [cache.get(cache.key(r) or "") for r in requests]
                yield Batch(
                    step, 0, stack_features([c for c in stored if isinstance(c, EncodedClip)]), target
                )

    started: list[float] = []

    def report(row: dict[str, float]) -> None:
        print(json.dumps({"seconds": time.perf_counter() - started[-1], "loss": row["total"]}), flush=True)

    trainer = Trainer(model, recipe, LABELS, load_templates("plain"), batches, 10**9, Path(folder))
    trainer.run(report=report)


if __name__ == "__main__":
    main(*sys.argv[1:])
