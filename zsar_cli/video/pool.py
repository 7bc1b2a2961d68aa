"""Decoding in worker processes: a decoder that crashes, hangs or eats memory costs one video, not the run.

A worker is a fresh interpreter that imports this module and no torch (see :mod:`zsar_cli.video.keeper`). Plain
pipes and threads rather than multiprocessing: a worker never runs the caller's main module, so a script needs no
``if __name__ == "__main__"`` and what it imports stays out of the workers.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.resources import available_cores
from zsar_cli.video.address import is_remote
from zsar_cli.video.augment import Cutter
from zsar_cli.video.decode import read_frames
from zsar_cli.video.images import IMAGE_RATE
from zsar_cli.video.keeper import Job, Keeper, Work, fair_share_mb
from zsar_cli.video.looks import Cropper
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.times import VideoInfo
from zsar_cli.video.transforms import Augmentation, Preprocess

Item = TypeVar("Item")
Chunk = TypeVar("Chunk")

BUFFERED_CHUNKS = 2  # of a streamed video, beyond those in the pipe
DECODING_THREADS = 4  # at most, of a video that is decoded alone


@dataclass(frozen=True)
class ClipRequest:
    """One video's frames for the model. ``seed``: None for test sampling, an int to draw all chance from."""

    path: Any  # a path, frames at hand, or what :mod:`zsar_cli.video.given` makes
    sampling: Sampling = field(default_factory=Sampling)
    preprocess: Preprocess = field(default_factory=Preprocess)
    crops: int = 1
    decoder: str = "auto"
    augmentation: Augmentation | None = None
    seed: int | None = None
    image_rate: float = IMAGE_RATE  # frames a second of a folder of images
    look: bool = False  # whether the first view is wanted at a size for people besides
    indices: tuple[int, ...] | None = None  # these frames, in place of ``sampling``'s choice
    threads: int = 1  # that decode


@dataclass
class Clip:
    """``pixels`` (views * crops, frames, h, w, 3) uint8, the crops of a view side by side.

    ``indices`` and ``times``: (views, frames), times in s from the first frame. ``look``: the centre of the first view,
    (frames, H, W, 3), where it was wanted and is larger than ``pixels``.
    """

    pixels: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    info: VideoInfo
    warning: str | None = None
    look: np.ndarray | None = None


@dataclass(frozen=True)
class Ready:
    """Stands for a request whose result is there already, and keeps its place in the order."""

    result: Any


def load_clip(request: ClipRequest) -> Clip:
    """Decode, sample and resize one video; with a seed, cut a box out of it, which may keep its size.

    Raises:
        VideoError: the file cannot be read.
    """
    preprocess, sampling = request.preprocess, request.sampling

    def choose(frame_count: int, rate: float = 30.0) -> list[int]:
        if request.indices is not None:
            return list(request.indices)
        rng = None if request.seed is None else np.random.default_rng([request.seed, 0])
        return [int(index) for index in view_indices(frame_count, sampling, rng=rng, rate=rate).reshape(-1)]

    cropper = Cropper(preprocess, request.crops, request.look)
    resize: Callable[[np.ndarray], np.ndarray] = cropper
    if request.augmentation is not None and request.seed is not None:
        resize = Cutter(request.augmentation, preprocess, request.seed)
    video = read_frames(
        *(request.path, choose),
        decoder=request.decoder,
        resize=resize,
        image_rate=request.image_rate,
        rated=sampling.way == "spans" or sampling.seconds is not None,
        threads=request.threads,
    )
    views, frames = sampling.views, sampling.frames
    found, look = (video.frames, None) if resize is not cropper else cropper.split(video.frames)
    crops, *shape = found.shape[1:]
    pixels = found.reshape(views, frames, crops, *shape).swapaxes(1, 2)
    return Clip(
        pixels=np.ascontiguousarray(pixels).reshape(views * crops, frames, *shape),
        indices=video.indices.reshape(views, frames),
        times=video.times.reshape(views, frames),
        info=video.info,
        warning=video.warning,
        look=None if look is None else np.ascontiguousarray(look[:frames]),
    )


def _itself(item: Any) -> Any:
    return item


class DecodePool:
    """Worker processes that turn requests into clips, in order, a bounded number ahead of the consumer.

    Args:
        workers: how many. 0 decodes in this process, with no protection.
        timeout: s a video, or a chunk of one that is streamed.
        memory_limit_mb: what one worker may hold (Linux). By default half the machine's memory is shared out.
        ahead: how many requests may be decoded, or waiting for it, beyond what was taken.
        load: what workers run. It is pickled by name.
        handed: descriptors of this process that workers have too (not on Windows).

    Attributes:
        threads: that decode each video.
    """

    def __init__(
        self,
        workers: int,
        timeout: float = 60,
        memory_limit_mb: int | None = None,
        ahead: int | None = None,
        load: Callable[[Any], Any] = load_clip,
        handed: tuple[int, ...] = (),
    ) -> None:
        """Start the workers."""
        if workers < 0 or timeout <= 0:
            raise ValueError("workers must be at least 0 and timeout more than 0")
        self.timeout, self.threads = timeout, 1
        self._memory_limit_mb, self._ahead = memory_limit_mb, ahead
        self.work = Work(timeout, 0, handed=handed)
        self.load = load
        self._keepers: list[Keeper] = []
        self.grow(workers)

    @property
    def workers(self) -> int:
        """How many processes decode; 0: this one does."""
        return len(self._keepers)

    @property
    def ahead(self) -> int:
        """How many requests may be decoded, or waiting for it, beyond what was taken."""
        return max(1, self._ahead if self._ahead is not None else 2 * self.workers + 2)

    @property
    def alone(self) -> int:
        """How many threads may decode a video where no other is decoded with it.

        One without workers: in this process anybody's log of FFmpeg's messages would hold threads up.
        """
        return min(DECODING_THREADS, available_cores()) if self.workers else 1

    def grow(self, workers: int) -> None:
        """Start what is missing to so many workers. For before the first request: then they share the memory."""
        self.work.memory_limit = (self._memory_limit_mb or fair_share_mb(max(workers, 1))) * 2**20
        self._keepers += [Keeper(self.work) for _ in range(workers - len(self._keepers))]

    def __enter__(self) -> DecodePool:
        """Close the pool where the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every worker."""
        self.close()

    def close(self) -> None:
        """End every worker at once, whatever it is doing, and wait for it. May be called twice."""
        self.work.closed.set()
        self.work.fetcher.closed.set()
        for keeper in self._keepers:
            keeper.kill()
        for _ in self._keepers:
            self.work.jobs.put(None)
        for keeper in self._keepers:
            keeper.thread.join()
        self._keepers = []
        self.work.fetcher.close()

    def imap(
        self, items: Iterable[Item], request: Callable[[Item], Any] = _itself
    ) -> Iterator[tuple[Item, Any]]:
        """Decode what each item asks for, and yield it with its result, in input order.

        ``items`` is read lazily in a thread, at most ``ahead`` beyond what was yielded. A result is out as soon as it
        is there, even if the next item is long in coming.

        Args:
            items: requests, or whatever ``request`` makes one of.
            request: gives an item's request for ``load``, or Ready.

        Yields:
            The item, and what ``load`` made of its request, or the VideoError that it ended in.
        """
        if not self._keepers:
            for item in items:
                asked = request(item)
                try:
                    with self.work.fetcher.local(asked) as asked:
                        result = asked.result if isinstance(asked, Ready) else self.load(asked)
                except VideoError as error:
                    result = error
                yield item, result
            return
        for item, job in self._submitted(items, request, self.load, streamed=False):
            kind, value = self._next(job.replies, None, None)
            if kind == "error" and not isinstance(value, VideoError):
                raise value
            yield item, value

    def stream(
        self,
        items: Iterable[Item],
        load: Callable[[Any], Iterable[Chunk]],
        request: Callable[[Item], Any] = _itself,
        stop: threading.Event | None = None,
        *,
        keep: bool = False,
    ) -> Iterator[tuple[Item, Iterator[Chunk]]]:
        """Yield each item, in order, with an iterator over its chunks, which raises VideoError where decoding fails.

        A worker waits while its chunks are not taken. What is left when the next item is asked for is lost. Once
        ``stop`` is set, everything ends soon, whatever a worker does and however long the next item is in coming.

        Args:
            items: requests, or whatever ``request`` makes one of.
            load: decodes a request, chunk by chunk. It is pickled by name.
            request: gives an item's request for ``load``.
            stop: ends everything once it is set.
            keep: what is fetched for it stays as long as there is room, as it is asked for again.
        """
        stop = stop or threading.Event()
        if not self._keepers:
            for item in items:
                with contextlib.closing(self._loaded(load, request(item))) as here:
                    yield item, here
            return
        for item, job in self._submitted(items, request, load, streamed=True, stop=stop, keep=keep):
            chunks = self._chunks(job, stop)
            yield item, chunks
            with contextlib.suppress(VideoError):
                for _ in chunks:  # whatever was not taken makes room
                    pass

    def _loaded(self, load: Callable[[Any], Iterable[Chunk]], request: Any) -> Generator[Chunk]:
        with self.work.fetcher.local(request) as local:
            yield from load(local)

    def _chunks(self, job: Job, stop: threading.Event) -> Iterator[Any]:
        while True:
            kind, value = self._next(job.replies, stop, otherwise=("end", None))
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def _next(self, waiting: queue.Queue[Any], stop: threading.Event | None, otherwise: Any) -> Any:
        """Take what comes next, in short waits: a signal's handler runs in this thread, and sets ``stop``."""
        while not (stop and stop.is_set()):
            try:
                return waiting.get(timeout=0.5)
            except queue.Empty:
                if self.work.closed.is_set():
                    raise RuntimeError("the decode pool was closed while it was in use") from None
        return otherwise

    def _submitted(
        self,
        items: Iterable[Item],
        request: Callable[[Item], Any],
        load: Callable[..., Any],
        streamed: bool,
        stop: threading.Event | None = None,
        keep: bool = False,
    ) -> Iterator[tuple[Item, Job]]:
        """Hand each item's job to the workers, and yield both, in order and at most ``ahead`` later."""
        room = threading.Semaphore(self.ahead)
        order: queue.Queue[tuple[Item, Job] | BaseException | None] = queue.Queue()
        left = threading.Event()

        def feed() -> None:
            try:
                for item in items:
                    while not room.acquire(timeout=0.5):
                        if left.is_set() or self.work.closed.is_set():
                            return
                    if left.is_set() or self.work.closed.is_set():
                        return
                    replies: queue.Queue[tuple[str, Any]] = queue.Queue(BUFFERED_CHUNKS if streamed else 0)
                    job = Job(request(item), load, replies, streamed, left)
                    order.put((item, job))
                    if is_remote(getattr(job.request, "path", None)):
                        job.fetch = self.work.fetcher.start(job.request.path, keep=keep)
                    if isinstance(job.request, Ready):
                        replies.put(("item", job.request.result))
                    else:
                        self.work.jobs.put(job)
                order.put(None)
            except BaseException as error:
                order.put(error)

        threading.Thread(target=feed, daemon=True, name="zsar-requests").start()
        try:
            while (found := self._next(order, stop, None)) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
                room.release()
        finally:
            left.set()
