"""Where training clips come from: which clips make up each step, and how their pixels are had.

A stream of batches is a function of the data, the seed and the step it starts from, so that a resumed run sees
what an uninterrupted one would have seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from zsar_cli.data import motion_shapes
from zsar_cli.data.clips import render_request
from zsar_cli.data.definitions import Item
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.feature_cache import FeatureCache, Loaded, encode_clips, load_cached, stack_features
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Augmentation, Preprocess, augment_colour
from zsar_cli.video.workers import ClipRequest, DecodePool

if TYPE_CHECKING:
    from zsar_cli.model.recognizer import RecognizerModel

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Batch:
    """Clips for one forward pass; ``step`` is the optimiser step they belong to, counted from 0."""

    step: int
    epoch: int
    clips: Tensor | FrameFeatures  # uint8 (B, T, h, w, 3), or what the visual tower says of them in fp16
    target: Tensor  # (B,) class indices


Stream = Callable[[int], Iterator[Batch]]  # from the step given to the end of the run


@dataclass(frozen=True)
class Schedule:
    """Which clips each step sees: every epoch a new order; what does not fill a batch goes on into the next epoch."""

    count: int  # clips in the training list
    batch_size: int
    accumulate: int
    steps: int
    seed: int

    def positions(self, first_step: int) -> Iterator[tuple[int, int, list[int]]]:
        """(step, epoch, positions in the training list) of every batch from ``first_step`` on; no clip is dropped."""
        place = first_step * self.accumulate * self.batch_size
        orders: dict[int, np.ndarray] = {}
        for step in range(first_step, self.steps):
            for _ in range(self.accumulate):
                chosen, started_in = [], place // self.count
                for _ in range(self.batch_size):
                    epoch, offset = divmod(place, self.count)
                    if epoch not in orders:
                        orders = {epoch: epoch_order(self.count, epoch, self.seed)}
                    chosen.append(int(orders[epoch][offset]))
                    place += 1
                yield step, started_in, chosen


def epoch_order(count: int, epoch: int, seed: int) -> np.ndarray:
    """The order in which an epoch visits ``count`` clips."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def rendered_stream(
    ids: Sequence[tuple[str, int]],
    targets: Sequence[int],
    frames: int,
    schedule: Schedule,
    split: str = "train",
) -> Stream:
    """Clips of motion-shapes, made one batch ahead of the model.

    At every visit a clip's colours and its place in the picture change (:func:`vary_appearance`), never its motion.
    """

    def batches(first_step: int) -> Iterator[Batch]:
        for step, epoch, positions in schedule.positions(first_step):
            clips = [
                vary_appearance(
                    rendered_clip(*ids[p], split, frames), np.random.default_rng([schedule.seed, step, place])
                )
                for place, p in enumerate(positions)
            ]
            yield Batch(
                step, epoch, torch.from_numpy(np.stack(clips)), torch.tensor([targets[p] for p in positions])
            )

    def stream(first_step: int) -> Iterator[Batch]:
        return one_ahead(batches(first_step))

    return stream


@cache
def rendered_clip(label: str, index: int, split: str, frames: int) -> np.ndarray:
    """A clip of motion-shapes, rendered the first time it is needed and then kept (12 kB a frame)."""
    return motion_shapes.render(label, index, split=split, frames=frames)


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one being made in a thread while the caller is busy with this one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def vary_appearance(clip: np.ndarray, rng: np.random.Generator, reach: int = 6) -> np.ndarray:
    """A clip (T, H, W, 3) with its colours exchanged, perhaps inverted, and shifted by up to ``reach`` pixels."""
    height, width = clip.shape[1:3]
    down, across = rng.integers(0, 2 * reach + 1, size=2)
    padded = np.pad(clip, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    moved = padded[:, down : down + height, across : across + width][..., rng.permutation(3)]
    return 255 - moved if rng.random() < 0.5 else np.ascontiguousarray(moved)


def decoded_stream(
    items: Sequence[Item],
    frames: int,
    schedule: Schedule,
    preprocess: Preprocess,
    augmentation: Augmentation,
    pool: DecodePool,
    *,
    max_unreadable: float = 0.1,
) -> Stream:
    """Clips of real videos, decoded and cropped by the pool ahead of the model, with the colour jittered here.

    A video that cannot be read leaves a gap in its batch; the run ends with a UsageError where more than
    ``max_unreadable`` of them fail.
    """

    def request(epoch: int, position: int) -> ClipRequest:
        seed = int(np.random.SeedSequence([schedule.seed, epoch, position]).generate_state(1)[0])
        return ClipRequest(
            items[position].path, Sampling(frames), preprocess, augmentation=augmentation, seed=seed
        )

    def stream(first_step: int) -> Iterator[Batch]:
        def load(requests: Iterator[ClipRequest]) -> Iterator[Loaded]:
            return load_cached(pool, requests, None)

        plan = schedule.positions(first_step)
        for step, epoch, good in _readable(plan, request, load, items, max_unreadable):
            generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
            pixels = torch.from_numpy(np.stack([clip.pixels[0] for _, _, clip in good]))
            target = torch.tensor([items[p].label for p, _, _ in good])
            yield Batch(step, epoch, augment_colour(pixels, augmentation, generator), target)

    return stream


def fixed_stream(
    items: Sequence[Item],
    frames: int,
    schedule: Schedule,
    model: RecognizerModel,
    pool: DecodePool,
    cache: FeatureCache | None,
    *,
    max_unreadable: float = 0.1,
) -> Stream:
    """Clips that look the same in every epoch: as they are evaluated, without any augmentation.

    With a cache the batches are what the frozen visual tower says of them. It sees each video once; a stream that
    begins with a filled cache never decodes.
    """

    def request(epoch: int, position: int) -> ClipRequest:
        return ClipRequest(items[position].path, Sampling(frames), model.preprocess)

    def stream(first_step: int) -> Iterator[Batch]:
        def load(requests: Iterator[ClipRequest]) -> Iterator[Loaded]:
            return load_cached(pool, requests, cache, render_request)

        plan = schedule.positions(first_step)
        for step, epoch, good in _readable(plan, request, load, items, max_unreadable):
            target = torch.tensor([items[p].label for p, _, _ in good])
            if cache is None:
                pixels = torch.from_numpy(np.stack([clip.pixels[0] for _, _, clip in good]))
                yield Batch(step, epoch, pixels, target)
            else:
                encoded = encode_clips(model, [(key, clip) for _, key, clip in good], cache)
                yield Batch(step, epoch, stack_features(encoded), target)

    return stream


def _readable(
    plan: Iterator[tuple[int, int, list[int]]],
    request: Callable[[int, int], ClipRequest],
    load: Callable[[Iterator[ClipRequest]], Iterator[Loaded]],
    items: Sequence[Item],
    max_unreadable: float,
) -> Iterator[tuple[int, int, list[tuple[int, str | None, Any]]]]:
    """(step, epoch, clips that could be read: position, key and clip) of every batch of the plan.

    Args:
        request: what to load, of an epoch and a position in the training list.

    Raises:
        UsageError: more than ``max_unreadable`` of the videos fail.
    """
    batches: list[tuple[int, int, list[int]]] = []

    def requests() -> Iterator[ClipRequest]:
        for step, epoch, positions in plan:
            batches.append((step, epoch, positions))
            for position in positions:
                yield request(epoch, position)

    loaded = load(requests())
    tried = failed = 0
    unreadable: set[str] = set()
    while (first := next(loaded, None)) is not None:
        step, epoch, positions = batches.pop(0)
        results = [first] + [next(loaded) for _ in positions[1:]]
        good = []
        for position, (_, key, clip) in zip(positions, results, strict=True):
            if not isinstance(clip, VideoError):
                good.append((position, key, clip))
            elif items[position].path not in unreadable:
                unreadable.add(items[position].path)
                logger.warning("left out of training: %s", clip)
        tried, failed = tried + len(positions), failed + len(positions) - len(good)
        if not good or (tried >= 20 and failed > max_unreadable * tried):
            raise UsageError(
                f"{failed} of {tried} training videos could not be read, such as {sorted(unreadable)[0]}. "
                "Check the data set, or raise --max-missing."
            )
        yield step, epoch, good
