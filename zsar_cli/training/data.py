"""The clips of each training step: their order, sampling and augmentation.

A stream of batches is a function of the data, the seed and the step it starts from, so that a resumed run sees
what an uninterrupted one would have seen.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zsar_cli.data import motion_shapes
from zsar_cli.data.clips import render_request, rendered_id, renderer
from zsar_cli.data.dataset import Item
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.features.cache import FeatureCache
from zsar_cli.features.encoding import Loaded, encode_clips, load_cached, stack_features, to_device
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.training.twins import draw_twin
from zsar_cli.video.augment import draw_colours, fit
from zsar_cli.video.pool import ClipRequest, DecodePool
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Augmentation, Preprocess, resize_and_crop

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.training.mixing import Mix

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Batch:
    """Clips for one forward pass; ``step`` is the optimiser step they belong to, counted from 0.

    It may hold no clip: where none could be read.
    """

    step: int
    epoch: int
    clips: Tensor | FrameFeatures  # uint8 (B, T, h, w, 3), or their visual features in fp16
    target: Tensor  # (B,) class indices
    colours: Tensor | None = None  # (B, 4): how each clip's are changed, see zsar_cli.video.augment

    partner: Batch | None = None  # what each clip is mixed with,
    mix: Mix | None = None  # and how, see zsar_cli.training.mixing

    def part(self, rows: slice | list[int]) -> Batch:
        """Take some of the clips."""
        clips, colours = self.clips, self.colours
        if isinstance(clips, FrameFeatures):
            some: Tensor | FrameFeatures = FrameFeatures(clips.embedding[rows], clips.tokens[rows])
        else:
            some = clips[rows]
        return replace(
            self,
            clips=some,
            target=self.target[rows],
            colours=None if colours is None else colours[rows],
            partner=None if self.partner is None else self.partner.part(rows),
        )


Stream = Callable[[int], Iterator[Batch]]  # from the step given to the end of the run


@dataclass(frozen=True)
class Visit:
    """A clip's turn in an epoch. What chance does to the clip then is a function of :attr:`seed`."""

    position: int  # in the training list
    epoch: int
    run: int  # seed of the run

    @property
    def seed(self) -> int:
        """32 bits, whatever batch or process the clip falls to."""
        return int(np.random.SeedSequence([self.run, self.epoch, self.position]).generate_state(1)[0])


@dataclass(frozen=True)
class Schedule:
    """Which clips each step sees: every epoch a new order; what does not fill a batch goes on into the next epoch.

    Of each batch a process takes its share: those of all ``world`` processes together are the batch.
    """

    count: int  # clips in the training list
    batch_size: int
    accumulate: int
    steps: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < self.world:
            raise UsageError(
                f"batch_size is shared out among the processes, and {self.batch_size} clips do not go round "
                f"{self.world}; make it larger."
            )

    def batches(self, first_step: int) -> Iterator[tuple[int, list[Visit]]]:
        """Yield (step, this process's clips) of every batch from ``first_step`` on; no clip is dropped."""
        place = first_step * self.accumulate * self.batch_size
        first, last = (self.batch_size * share // self.world for share in (self.rank, self.rank + 1))
        orders: dict[int, np.ndarray] = {}
        for step in range(first_step, self.steps):
            for _ in range(self.accumulate):
                visits = []
                for number in range(place + first, place + last):
                    epoch, offset = divmod(number, self.count)
                    if epoch not in orders:
                        orders = {epoch: epoch_order(self.count, epoch, self.seed)}
                    visits.append(Visit(int(orders[epoch][offset]), epoch, self.seed))
                place += self.batch_size
                yield step, visits


def epoch_order(count: int, epoch: int, seed: int) -> np.ndarray:
    """Draw the order in which an epoch visits ``count`` clips."""
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class RenderedClips:
    """The training clips that are rendered, by visit: uint8 (1 or 2, T, H, W, 3) of the model's size.

    With ``classes`` (their indices by label) each comes with a twin: a scene that is changed, under the label that it
    then has (:mod:`zsar_cli.training.twins`); a clip of motion-shapes in other colours. What a twin shares with its
    clip, the picture, tells nothing of how the two differ.
    """

    items: Sequence[Item]
    frames: int
    preprocess: Preprocess
    classes: Mapping[str, int] | None = None

    def __getitem__(self, visit: Visit) -> np.ndarray:
        """Render a clip as it looks in one epoch, and its twin.

        Scenes are others in every epoch. A clip of motion-shapes changes its colours and its place in the picture
        (:func:`vary_appearance`), never its motion.
        """
        path = self.items[visit.position].path
        kind = renderer(path)
        split, label, index = rendered_id(path)
        height, width = self.preprocess.size
        if kind is motion_shapes:
            rng = np.random.default_rng(visit.seed)
            plain = rendered_clip(label, index, self.frames)
            clips = [vary_appearance(plain, rng) for _ in range(1 if self.classes is None else 2)]
        else:
            size = min(height, width)
            shown = {"split": split, "frames": self.frames, "size": size}
            index += EPOCH * visit.epoch
            clips = [kind.render(label, index, **shown)]
            if self.classes is not None:
                twin = draw_twin(label, visit.seed, self.classes)
                clips.append(twin.of(clips[0], label, index, shown))
        if clips[0].shape[1:3] != (height, width):
            clips = [resize_and_crop(clip, self.preprocess) for clip in clips]
        return np.stack(clips)

    def targets(self, visit: Visit) -> list[int]:
        """Tell the classes of a clip and of its twin."""
        item = self.items[visit.position]
        if self.classes is None:
            return [item.label]
        if renderer(item.path) is motion_shapes:
            return [item.label, item.label]
        twin = draw_twin(rendered_id(item.path)[1], visit.seed, self.classes)
        return [item.label, self.classes[twin.label]]


EPOCH = 1_000_000  # more than a class has clips


def rendered_stream(clips: RenderedClips, schedule: Schedule, workers: int = 0) -> Stream:
    """Stream rendered clips, made ahead of the model: by worker processes, or by a thread where there are none."""

    def batches(first_step: int) -> Iterator[Batch]:
        asked = (visits for _, visits in schedule.batches(first_step))
        made: Iterable[Tensor] = (_rendered_batch([clips[visit] for visit in visits]) for visits in asked)
        if workers:
            made = DataLoader(
                clips,  # type: ignore[arg-type]  # a map from visits
                batch_sampler=asked,
                collate_fn=_rendered_batch,
                num_workers=workers,
                prefetch_factor=4,
                worker_init_fn=_leave_signals,
            )
        for (step, visits), pixels in zip(schedule.batches(first_step), made, strict=True):
            target = torch.tensor([target for visit in visits for target in clips.targets(visit)])
            yield Batch(step, visits[0].epoch, pixels, target)

    return lambda first_step: batches(first_step) if workers else one_ahead(batches(first_step))


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and TERM, which a whole process group gets, to the process that trains: it ends this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _rendered_batch(clips: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(clips))


KEPT = 2**30  # bytes
_kept: dict[tuple[str, int, int], np.ndarray] = {}


def rendered_clip(label: str, index: int, frames: int) -> np.ndarray:
    """Render a training clip of motion-shapes (12 kB a frame), and keep it for the next time while there is room.

    The first that came stay: each comes back once an epoch, so those used last are the last to be needed again.
    """
    clip = _kept.get((label, index, frames))
    if clip is None:
        clip = motion_shapes.render(label, index, split="train", frames=frames)
        if (len(_kept) + 1) * clip.nbytes <= KEPT:
            _kept[label, index, frames] = clip
    return clip


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, the next one being made in a thread while the caller is busy with this one."""
    thread = ThreadPoolExecutor(1)
    try:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def vary_appearance(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exchange the colours of a clip (T, H, W, 3), perhaps invert them, and shift it by up to six pixels."""
    reach = 6
    height, width = clip.shape[1:3]
    down, across = rng.integers(0, 2 * reach + 1, size=2)
    padded = np.pad(clip, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    moved = padded[:, down : down + height, across : across + width][..., rng.permutation(3)]
    return 255 - moved if rng.random() < 0.5 else np.ascontiguousarray(moved)


def decoded_stream(
    items: Sequence[Item],
    sampling: Sampling,
    schedule: Schedule,
    preprocess: Preprocess,
    augmentation: Augmentation,
    pool: DecodePool,
    *,
    device: str | torch.device = "cpu",
    max_unreadable: float = 0.1,
) -> Stream:
    """Stream clips of videos, decoded and cropped by the pool and resized on the device, ahead of the model.

    A video that cannot be read leaves a gap in its batch; the run ends with a UsageError where more than
    ``max_unreadable`` of them fail.
    """
    on = torch.device(device)
    on = on if on.type == "cuda" else torch.device("cpu")  # MPS has no kernel that smooths as it resizes

    def request(visit: Visit) -> ClipRequest:
        path = items[visit.position].path
        return ClipRequest(path, sampling, preprocess, augmentation=augmentation, seed=visit.seed)

    def load(requests: Iterator[ClipRequest]) -> Iterator[Loaded]:
        return load_cached(pool, requests, None)

    def batches(first_step: int) -> Iterator[Batch]:
        for step, epoch, good in _readable(schedule, first_step, request, load, items, max_unreadable):
            clips = [fit(to_device(torch.from_numpy(clip.pixels[0]), on), preprocess) for _, _, clip in good]
            colours = draw_colours(augmentation, [visit.seed for visit, _, _ in good])
            yield Batch(step, epoch, _stack(clips), _targets(items, good), colours)

    return lambda first_step: one_ahead(batches(first_step))


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
    """Stream clips that are the same in every epoch: as they are evaluated, without any augmentation.

    With a cache the batches are their visual features. It sees each video once; a stream that
    begins with a filled cache never decodes.
    """

    def request(visit: Visit) -> ClipRequest:
        return ClipRequest(items[visit.position].path, model.choose(frames, 1), model.preprocess)

    def load(requests: Iterator[ClipRequest]) -> Iterator[Loaded]:
        return load_cached(pool, requests, cache, render_request)

    def stream(first_step: int) -> Iterator[Batch]:
        for step, epoch, good in _readable(schedule, first_step, request, load, items, max_unreadable):
            clips: Tensor | FrameFeatures
            if cache is None or not good:
                clips = _stack([torch.from_numpy(clip.pixels[0]) for _, _, clip in good])
            else:
                clips = stack_features(encode_clips(model, [(key, clip) for _, key, clip in good], cache))
            yield Batch(step, epoch, clips, _targets(items, good))

    return stream


Readable = list[tuple[Visit, "str | None", Any]]  # visit, key in the cache, clip


def _readable(
    schedule: Schedule,
    first_step: int,
    request: Callable[[Visit], ClipRequest],
    load: Callable[[Iterator[ClipRequest]], Iterator[Loaded]],
    items: Sequence[Item],
    max_unreadable: float,
) -> Iterator[tuple[int, int, Readable]]:
    """Yield (step, epoch, the clips that could be read) of every batch of the schedule.

    Raises:
        UsageError: more than ``max_unreadable`` of the videos fail, or none of the first ones can be read.
    """
    # The plan is walked twice: by the pool as it asks for videos, and here as it gets clips
    asked, planned = schedule.batches(first_step), schedule.batches(first_step)
    loaded = load(request(visit) for _, visits in asked for visit in visits)
    tried = failed = 0
    unreadable: dict[str, str] = {}
    for step, visits in planned:
        good: Readable = []
        for visit in visits:
            _, key, clip = next(loaded)
            path = items[visit.position].path
            if not isinstance(clip, VideoError):
                good.append((visit, key, clip))
            elif path not in unreadable:
                unreadable[path] = str(clip)
                logger.error("%s is left out of training: %s", path, clip)
        tried, failed = tried + len(visits), failed + len(visits) - len(good)
        few = min(20, schedule.count)
        none = failed == tried >= min(few, schedule.steps * schedule.accumulate * len(visits))
        if none or (tried >= few and failed > max_unreadable * tried):
            path, reason = next(iter(unreadable.items()))
            raise UsageError(
                f"{failed} of {tried} training videos could not be read, such as {path} ({reason}). "
                "Check the data set, or raise --max-missing."
            )
        yield step, visits[0].epoch, good


def _stack(clips: list[Tensor]) -> Tensor:
    return torch.stack(clips) if clips else torch.zeros(0, dtype=torch.uint8)


def _targets(items: Sequence[Item], good: Readable) -> Tensor:
    return torch.tensor([items[visit.position].label for visit, _, _ in good], dtype=torch.long)
