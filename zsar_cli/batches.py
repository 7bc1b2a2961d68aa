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
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from zsar_cli.data import motion_shapes
from zsar_cli.data.definitions import Item
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Augmentation, Preprocess, augment_colour
from zsar_cli.video.workers import Clip, ClipRequest, DecodePool

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Batch:
    """Clips for one forward pass; ``step`` is the optimiser step they belong to, counted from 0."""

    step: int
    epoch: int
    pixels: Tensor  # uint8 (B, T, h, w, 3)
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

    def stream(first_step: int) -> Iterator[Batch]:
        plan = schedule.positions(first_step)
        batches: list[tuple[int, int, list[int]]] = []

        def requests() -> Iterator[ClipRequest]:
            for step, epoch, positions in plan:
                batches.append((step, epoch, positions))
                for position in positions:
                    seed = int(np.random.SeedSequence([schedule.seed, epoch, position]).generate_state(1)[0])
                    yield ClipRequest(
                        items[position].path,
                        Sampling(frames),
                        preprocess,
                        augmentation=augmentation,
                        seed=seed,
                    )

        clips = pool.imap(requests())
        tried = failed = 0
        unreadable: set[str] = set()
        while True:
            first = next(clips, None)
            if first is None:
                return
            step, epoch, positions = batches.pop(0)
            results = [first] + [next(clips) for _ in positions[1:]]
            good = [(p, clip) for p, clip in zip(positions, results, strict=True) if isinstance(clip, Clip)]
            for position, result in zip(positions, results, strict=True):
                if isinstance(result, VideoError) and items[position].path not in unreadable:
                    unreadable.add(items[position].path)
                    logger.warning("left out of training: %s", result)
            tried, failed = tried + len(positions), failed + len(positions) - len(good)
            if not good or (tried >= 20 and failed > max_unreadable * tried):
                raise UsageError(
                    f"{failed} of {tried} training videos could not be read, such as {sorted(unreadable)[0]}. "
                    "Check the data set, or raise --max-missing."
                )
            generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
            pixels = torch.from_numpy(np.stack([clip.pixels[0] for _, clip in good]))
            yield Batch(
                step,
                epoch,
                augment_colour(pixels, augmentation, generator),
                torch.tensor([items[p].label for p, _ in good]),
            )

    return stream
