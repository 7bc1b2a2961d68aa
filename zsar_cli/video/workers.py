"""Decoding in worker processes: a decoder that crashes, hangs or eats memory costs one video, not the run.

A worker is a fresh interpreter that imports this module and no torch. It reads pickled jobs from its stdin
and answers on what was its stdout; a thread here looks after it, kills it when it is over its time and starts
another. Plain pipes and threads rather than multiprocessing: a worker never runs the caller's main module, so
a script needs no ``if __name__ == "__main__"`` and what it imports stays out of the workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.video.decode import DecodedVideo, VideoInfo, iter_frames, read_frames
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.serving import receive, send
from zsar_cli.video.transforms import (
    Augmentation,
    Preprocess,
    crop_box_and_resize,
    random_crop_box,
    resize_and_crop,
)

BUFFERED_CHUNKS = 2  # of a streamed video, beyond those in the pipe
LIFETIME = 1000  # videos of one worker before a fresh one takes over: what decoders leak stays small
START_LIMIT = 300.0  # s that a worker's imports may take, on a disk that sleeps or a machine that is busy
# Signals are the parent's business: a terminal or a service manager sends them to everybody, and what is in hand
# is still to be finished. Workers end when their stdin closes.
BOOT = (
    "import ast, signal, sys\n"
    "for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):\n"
    "    if hasattr(signal, name): signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
    "sys.path[:] = ast.literal_eval(sys.argv[1])\n"
    "from zsar_cli.video import serving, workers; serving.serve()"
)


@dataclass(frozen=True)
class ClipRequest:
    """One video's frames for the model. ``seed``: None for test sampling, an int to draw all chance from."""

    path: str
    sampling: Sampling = field(default_factory=Sampling)
    preprocess: Preprocess = field(default_factory=Preprocess)
    crops: int = 1
    decoder: str = "auto"
    augmentation: Augmentation | None = None
    seed: int | None = None


@dataclass
class Clip:
    """``pixels`` (views * crops, frames, h, w, 3) uint8, the crops of a view side by side.

    ``indices`` and ``times``: (views, frames), times in s from the first frame.
    """

    pixels: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    info: VideoInfo
    warning: str | None = None


@dataclass(frozen=True)
class Ready:
    """Stands among requests for one whose result is there already, and keeps its place in the order."""

    result: Any


@dataclass(frozen=True)
class StreamRequest:
    """A long video's frames, ``rate`` a second, ``chunk`` at a time."""

    path: str
    rate: float
    preprocess: Preprocess = field(default_factory=Preprocess)
    decoder: str = "auto"
    chunk: int = 32


def load_clip(request: ClipRequest) -> Clip:
    """Decodes, samples, resizes and (with a seed) augments one video. Raises VideoError."""
    preprocess, sampling = request.preprocess, request.sampling

    def choose(frame_count: int) -> list[int]:
        rng = None if request.seed is None else np.random.default_rng([request.seed, 0])
        return view_indices(frame_count, sampling, rng=rng).reshape(-1).tolist()

    if request.augmentation is not None and request.seed is not None:
        resize = _augmenter(request.augmentation, preprocess, request.seed)
    else:

        def resize(frame: np.ndarray) -> np.ndarray:
            cropped = resize_and_crop(frame[None], preprocess, crops=request.crops)
            return cropped.reshape(request.crops, *preprocess.size, 3)

    video = read_frames(request.path, choose, decoder=request.decoder, resize=resize)
    views, frames = sampling.views, sampling.frames
    crops = video.frames.shape[1]
    pixels = video.frames.reshape(views, frames, crops, *preprocess.size, 3).swapaxes(1, 2)
    return Clip(
        pixels=np.ascontiguousarray(pixels).reshape(views * crops, frames, *preprocess.size, 3),
        indices=video.indices.reshape(views, frames),
        times=video.times.reshape(views, frames),
        info=video.info,
        warning=video.warning,
    )


def load_stream(request: StreamRequest) -> Iterator[DecodedVideo]:
    """The chunks of one long video, resized and cropped to (n, h, w, 3). Raises VideoError."""
    yield from iter_frames(
        request.path,
        rate=request.rate,
        decoder=request.decoder,
        resize=lambda frame: resize_and_crop(frame, request.preprocess),
        chunk=request.chunk,
    )


def _augmenter(
    augmentation: Augmentation, preprocess: Preprocess, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The same box and flip for every frame of a clip; (H, W, 3) to (1, h, w, 3)."""

    def resize(frame: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, 1])
        box = random_crop_box(frame.shape[0], frame.shape[1], augmentation, rng)
        flip = bool(rng.random() < augmentation.flip)
        return crop_box_and_resize(frame, box, flip, preprocess)[None]

    return resize


@dataclass
class _Job:
    request: Any
    load: Callable[..., Any]
    replies: queue.Queue[tuple[str, Any]]  # ("item", x)*, then ("end", None) or ("error", exception)
    streamed: bool
    cancelled: threading.Event  # nobody waits for the answer any more


class DecodePool:
    """Worker processes that turn requests into clips, in order, a bounded number ahead of the consumer.

    ``timeout`` is in s a video (a chunk, when streaming). ``memory_limit_mb`` bounds what one worker may hold
    (Linux; default: half the machine's memory shared out among them). ``workers=0`` decodes in this process,
    with no protection. ``load`` may replace the function that workers run; it is pickled by name.
    """

    def __init__(
        self,
        workers: int,
        timeout: float = 60,
        memory_limit_mb: int | None = None,
        ahead: int | None = None,
        load: Callable[[Any], Any] = load_clip,
    ) -> None:
        if workers < 0 or timeout <= 0:
            raise ValueError("workers must be at least 0 and timeout more than 0")
        self.timeout = timeout
        self.memory_limit = (memory_limit_mb or _fair_share_mb(max(workers, 1))) * 2**20
        self.ahead = max(1, ahead if ahead is not None else 2 * workers + 2)
        self.load = load
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._closed = threading.Event()
        self._keepers = [_Keeper(self) for _ in range(workers)]

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every worker at once, whatever it is doing, and waits for it. May be called twice."""
        self._closed.set()
        for keeper in self._keepers:
            keeper.kill()
        for _ in self._keepers:
            self._jobs.put(None)
        for keeper in self._keepers:
            keeper.thread.join()
        self._keepers = []

    def imap(self, requests: Iterable[Any]) -> Iterator[Any]:
        """What ``load`` makes of each request, in input order, or the VideoError it ended in; of a Ready, its result.

        ``requests`` is read lazily in a thread, at most ``ahead`` beyond what was yielded: a result is out as
        soon as it is there, even if the next request is long in coming.
        """
        if not self._keepers:
            for request in requests:
                try:
                    yield request.result if isinstance(request, Ready) else self.load(request)
                except VideoError as error:
                    yield error
            return
        for job in self._submitted(requests, self.load, streamed=False):
            kind, value = self._reply(job)
            if kind == "error" and not isinstance(value, VideoError):
                raise value
            yield value

    def stream(
        self, requests: Iterable[Any], load: Callable[..., Any] = load_stream
    ) -> Iterator[Iterator[Any]]:
        """For each request, in order, an iterator over its chunks that raises VideoError where it fails.

        A worker waits while its chunks are not taken. What is left when the next one is asked for is lost.
        """
        if not self._keepers:
            for request in requests:
                yield load(request)
            return
        for job in self._submitted(requests, load, streamed=True):
            chunks = self._chunks(job)
            yield chunks
            with contextlib.suppress(VideoError):
                for _ in chunks:  # whatever was not taken makes room
                    pass

    def _chunks(self, job: _Job) -> Iterator[Any]:
        while True:
            kind, value = self._reply(job)
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def _reply(self, job: _Job) -> tuple[str, Any]:
        while True:
            try:
                return job.replies.get(timeout=1)
            except queue.Empty:
                if self._closed.is_set():
                    raise RuntimeError("the decode pool was closed while it was in use") from None

    def _submitted(self, requests: Iterable[Any], load: Callable[..., Any], streamed: bool) -> Iterator[_Job]:
        """Jobs in order, each handed to the workers up to ``ahead`` before it is yielded."""
        room = threading.Semaphore(self.ahead)
        order: queue.Queue[_Job | BaseException | None] = queue.Queue()
        stop = threading.Event()

        def feed() -> None:
            try:
                for request in requests:
                    while not room.acquire(timeout=0.5):
                        if stop.is_set() or self._closed.is_set():
                            return
                    if stop.is_set() or self._closed.is_set():
                        return
                    replies: queue.Queue[tuple[str, Any]] = queue.Queue(BUFFERED_CHUNKS if streamed else 0)
                    job = _Job(request, load, replies, streamed, stop)
                    order.put(job)
                    if isinstance(request, Ready):
                        replies.put(("item", request.result))
                    else:
                        self._jobs.put(job)
                order.put(None)
            except BaseException as error:
                order.put(error)

        threading.Thread(target=feed, daemon=True, name="zsar-requests").start()
        try:
            while (job := order.get()) is not None:
                if isinstance(job, BaseException):
                    raise job
                yield job
                room.release()
        finally:
            stop.set()


class _Keeper:
    """A thread that owns one worker process: hands it jobs, watches the clock, replaces it when it fails."""

    def __init__(self, pool: DecodePool) -> None:
        self.pool = pool
        self.lock = threading.Lock()  # starting and killing exclude each other
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: subprocess.Popen[bytes] | None = None  # the process that has said so
        self.served = 0  # videos, by the process there is
        self._start()
        self.thread = threading.Thread(target=self._run, daemon=True, name="zsar-decode")
        self.thread.start()

    def kill(self) -> None:
        with self.lock:
            if self.process is not None:
                self.process.kill()

    def _start(self) -> None:
        with self.lock:
            if self.pool._closed.is_set():
                return
            # One heap: with one for each thread of a decoder, memory grows for thousands of videos
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
            self.served = 0
            self.process = subprocess.Popen(
                [sys.executable, "-c", BOOT, repr([os.path.abspath(entry) for entry in sys.path])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders chatter there
                env=environment,
            )

    def _run(self) -> None:
        while (job := self.pool._jobs.get()) is not None and not self.pool._closed.is_set():
            if job.cancelled.is_set():
                continue
            if self.served >= LIFETIME:
                self._restart()
            self.served += 1
            failed = self._work(job, job.request)
            if failed is None:
                continue
            error, delivered = failed
            again = _in_sequence(job.request) if error.kind == "crashed" and not delivered else None
            if again is not None and self._work(job, again) is None:
                continue
            self._put(job, ("error", error))
        self._end()

    def _restart(self) -> int:
        """A fresh worker in place of this one, at once if the system lets us; the old one's exit status."""
        code = self._end()
        with contextlib.suppress(OSError):
            self._start()
        return code

    def _worker(self) -> subprocess.Popen[bytes]:
        """The worker, once it is ready: however long starting takes, it is no fault of the video that waits.

        Raises VideoError where none starts.
        """
        try:
            if self.process is None or self.process.poll() is not None:
                self._end()
                self._start()
            process = self.process
            if process is None:
                raise VideoError("crashed", "the run was ended")
            if process is not self.ready:
                timer = threading.Timer(START_LIMIT, process.kill)
                timer.daemon = True
                timer.start()
                try:
                    receive(process.stdout)  # type: ignore[arg-type]
                finally:
                    timer.cancel()
                self.ready = process
            return process
        except (EOFError, OSError) as error:
            reason = getattr(error, "strerror", None) or _reason(self._end())
            message = f"no decoding process could be started ({reason.lower()}); --workers 0 does without"
            raise VideoError("crashed", message) from None

    def _work(self, job: _Job, request: Any) -> tuple[VideoError, bool] | None:
        """Runs one job; None once its answer is out, else why the worker failed and if a chunk had come."""
        try:
            process = self._worker()
        except VideoError as error:
            return error, False
        assert process.stdin is not None
        assert process.stdout is not None
        delivered = False
        overdue = threading.Event()
        while True:
            timer = threading.Timer(self.pool.timeout, _overrun, (process, overdue))
            timer.daemon = True
            timer.start()
            try:
                if not delivered:
                    task = (job.load, request, job.streamed, self.pool.timeout, self.pool.memory_limit)
                    send(process.stdin, task)
                kind, value = receive(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError):
                timer.cancel()
                code = self._restart()
                if overdue.is_set():
                    seconds = f"{self.pool.timeout:g} s"
                    message = (
                        f"decoding took longer than {seconds} and was stopped; allow more with --timeout"
                    )
                    return VideoError("timeout", message), delivered
                message = f"the decoder crashed on this file ({_reason(code)}); the file is probably damaged"
                return VideoError("crashed", message), delivered
            except (
                Exception
            ) as error:  # a request that cannot be pickled: the caller's mistake, not the video's
                timer.cancel()
                self._put(job, ("error", error))
                return None
            finally:
                timer.cancel()
            starved = isinstance(value, VideoError) and value.kind == "memory"
            late = overdue.is_set() and (kind != "item" or not job.streamed)  # killed just as it answered
            if starved or late:  # a heap in pieces is not used again either
                self._restart()
            wanted = self._put(job, (kind, value))
            if kind != "item" or not job.streamed:
                return None
            if not wanted:  # the rest of a long video is not worth decoding
                self._restart()
                return None
            delivered = True

    def _put(self, job: _Job, reply: tuple[str, Any]) -> bool:
        """Whether somebody is there to take it; waits while a stream's consumer is behind."""
        while not (self.pool._closed.is_set() or job.cancelled.is_set()):
            with contextlib.suppress(queue.Full):
                job.replies.put(reply, timeout=0.5)
                return True
        return False

    def _end(self) -> int:
        """Kills what is left of the worker and collects it; its exit status."""
        with self.lock:
            process, self.process = self.process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]  # a sound worker ends at that
        # A crash report is worth having: a worker that closed its pipe is given a moment to be gone by itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.0 if self.pool._closed.is_set() else 0.5)
        process.kill()
        code = process.wait()
        with contextlib.suppress(OSError):
            process.stdout.close()  # type: ignore[union-attr]
        return code


def _fair_share_mb(workers: int) -> int:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 8 * 2**30
    return max(1024, total // 2**20 // (2 * workers))


def _overrun(process: subprocess.Popen[bytes], overdue: threading.Event) -> None:
    overdue.set()
    process.kill()


def _in_sequence(request: Any) -> Any | None:
    """The same request for PyAV reading in sequence, the gentlest way, if the decoder was left open."""
    if getattr(request, "decoder", None) != "auto" or not dataclasses.is_dataclass(request):
        return None
    return dataclasses.replace(request, decoder="pyav")  # type: ignore[type-var]


def _reason(code: int) -> str:
    import signal

    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
