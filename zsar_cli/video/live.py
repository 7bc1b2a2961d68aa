"""Frames of a live source (:mod:`zsar_cli.video.live_source`) as they come, on the grid of sliding windows.

This is the one place where FFmpeg opens an address. Protocols and formats are limited to those of the source, so a
playlist that a server sends is none, and nothing leads to another protocol.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import av
import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.video.container import MOST_READ_ERRORS, demuxed, ready_streams
from zsar_cli.video.decode import Ticks, on_ticks
from zsar_cli.video.frames import DecodedVideo
from zsar_cli.video.grid import CHUNK_FRAMES, CHUNK_SECONDS, GridChunk, first_tick, grid_chunks
from zsar_cli.video.live_source import Source
from zsar_cli.video.looks import Cropper
from zsar_cli.video.times import VideoInfo
from zsar_cli.video.transforms import Preprocess
from zsar_cli.video.upright import pixel_aspect

PATIENCE = 10.0  # s that a stream or a camera may take to open, and from packet to packet
HELD = 256  # frames that wait for the model at most
HEAD, HEAD_SECONDS = 16, 2.0  # frames at the start, or s, that tell the frame rate
BACK, AHEAD = 1.0, 30.0  # s that time stamps may jump before the clock counts as set anew


@dataclass(frozen=True)
class LiveRequest:
    """Frames of a source for windows of ``window`` s and ``frames`` frames each."""

    source: Source
    window: float
    frames: int = 8
    preprocess: Preprocess = field(default_factory=Preprocess)
    shots: bool = False
    threads: int = 1  # that decode
    pipe: int = 0  # descriptor of the video that comes through a pipe
    stop: int | threading.Event = field(default_factory=threading.Event)  # or a descriptor that ends


@dataclass
class LivePart:
    """The next frames on the grid, if there are any.

    ``dropped``: frames before them that were left out, as the model was behind. ``end``: s from the first frame to the
    end of the last, once that is known.
    """

    chunk: GridChunk | None
    dropped: int = 0
    end: float | None = None


def load_live(request: LiveRequest) -> Iterator[LivePart]:
    """Decode a source until it ends or ``stop`` says so. What was read is yielded before an error is raised.

    Raises:
        VideoError: not_found, permission, no_video, unreadable, timeout.
    """
    reader = _Reader(request)
    try:
        grid = reader.grid()
        if grid is None:
            return
        step, first, interval = grid
        opening = min(step * request.frames, CHUNK_SECONDS) if request.shots else None
        for chunk in grid_chunks(reader.parts(), reader.cropper, step, first, opening, interval):
            yield LivePart(chunk, reader.take_dropped())
        yield LivePart(None, reader.take_dropped(), reader.end)
    finally:
        reader.closed = True


class _Reader:
    """A thread that reads and decodes, whatever the model does, and a bounded number of frames that wait."""

    def __init__(self, request: LiveRequest) -> None:
        self.request = request
        self.cropper = Cropper(request.preprocess)
        self.closed = False
        self.end = 0.0  # s
        self._grid: tuple[float, float, float] | None = None
        self._parts: deque[DecodedVideo] = deque()
        self._held = self._dropped = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="zsar-live").start()

    def grid(self) -> tuple[float, float, float] | None:
        """Wait for the first frames: s between ticks, the first tick, s between frames. None: told to stop before."""
        with self._changed:
            while self._grid is None and not self._ended:
                self._changed.wait(0.2)
                if _told(self.request.stop):
                    return None
            if self._grid is None and self._error is not None:
                raise self._error
        return self._grid

    def parts(self) -> Iterator[DecodedVideo]:
        """Yield what was read, to the end or until it is told to stop."""
        while True:
            with self._changed:
                while not self._parts and not self._ended and not _told(self.request.stop):
                    self._changed.wait(0.2)
                if not self._parts:
                    if self._error is not None:
                        raise self._error
                    return
                part = self._parts.popleft()
                self._held -= len(part.frames)
                self._changed.notify_all()
            yield part

    def take_dropped(self) -> int:
        """Count the frames that were left out since this was last asked."""
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def _put(self, part: DecodedVideo) -> None:
        with self._changed:
            while self._parts and self._held + len(part.frames) > HELD and not self.closed:
                if self.request.source.waits:
                    self._changed.wait(0.2)
                    continue
                old = self._parts.popleft()
                self._held -= len(old.frames)
                self._dropped += len(old.frames)
            self._parts.append(part)
            self._held += len(part.frames)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            with _opened(self.request) as (container, stream):
                for part in self._read(container, stream):
                    if self.closed:
                        return
                    self._put(part)
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self, container: Any, stream: Any) -> Iterator[DecodedVideo]:
        frames, head = _frames(container, stream, self.request.source), []
        for frame in frames:
            head.append(frame)
            if len(head) >= HEAD or frame[1] > HEAD_SECONDS:
                break
        if not head:
            raise VideoError("unreadable", "not one frame came that could be decoded")
        steps = np.diff([time for _, time, _ in head])
        interval = float(np.median(steps)) if (steps > 0).any() else 1 / _rate(stream)
        step = self.request.window / self.request.frames
        first = first_tick(step, interval)
        start = _start(container, stream, head[0][2], self.request.source)
        with self._changed:
            self._grid = step, first, interval
            self._changed.notify_all()

        def timed() -> Iterator[tuple[int, float, Any]]:
            for frame in chain(head, frames):
                self.end = frame[1] + interval
                yield frame

        def about(size: tuple[int, int], whole: bool) -> tuple[VideoInfo, str | None]:
            return VideoInfo(self.end, size[1], size[0], 0, 1 / interval, start, interval=interval), None

        opening = min(self.request.window, CHUNK_SECONDS) if self.request.shots else None
        chunk = max(1, min(CHUNK_FRAMES, int(1 / step)))  # a second: nothing waits for more
        aspect = pixel_aspect(stream.sample_aspect_ratio)
        yield from on_ticks(timed(), Ticks(1 / step, first, opening), self.cropper, chunk, aspect, about)


def _told(stop: int | threading.Event) -> bool:
    """Tell whether it is time to end: the event is set, or the other end of the pipe is closed."""
    if isinstance(stop, threading.Event):
        return stop.is_set()
    return bool(select.select([stop], [], [], 0)[0])


class _Pipe:
    """Standard input as PyAV reads it, from its descriptor: it cannot seek."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        """Wait for some bytes; none at the end."""
        return os.read(self._descriptor, size)


@contextmanager
def _opened(request: LiveRequest) -> Iterator[tuple[Any, Any]]:
    """Open a source: its container, and its largest video stream, made ready to decode."""
    source = request.source
    allowed = {"protocol_whitelist": source.protocols}
    if source.kind != "camera":
        allowed["format_whitelist"] = source.format or source.formats
    patient: dict[str, Any] = {} if source.kind == "pipe" else {"timeout": (PATIENCE, PATIENCE)}
    what: Any = _Pipe(request.pipe) if source.kind == "pipe" else source.address
    try:
        container: Any = av.open(
            what, format=source.format, container_options=allowed | dict(source.options), **patient
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _failed(source, error) from None
    with container:
        stream = max(ready_streams(container), key=lambda one: one.codec_context.width or 0)
        context = stream.codec_context
        context.thread_count, context.thread_type = request.threads, "FRAME"
        yield container, stream


def _frames(container: Any, stream: Any, source: Source) -> Iterator[tuple[int, float, Any]]:
    """Yield frames with their numbers and times in s from the first. Times never fall, whatever the stamps do."""
    base, latest, step, number = None, 0.0, 1 / _rate(stream), 0
    for packet in _packets(container, stream, source):
        try:
            decoded = packet.decode()
        except (
            av.error.FFmpegError,
            ValueError,
        ):  # before the first key frame, or damage: the next may be sound
            continue
        for frame in decoded:
            if frame.pts is None:
                time = latest + step if number else 0.0
            else:
                stamp = float(frame.pts * stream.time_base)
                base = stamp if base is None else base
                if number and not -BACK <= stamp - base - latest <= AHEAD:  # a clock that was set anew
                    base = stamp - latest - step
                time = stamp - base
            latest = max(time, latest)
            yield number, latest, frame
            number += 1


def _packets(container: Any, stream: Any, source: Source) -> Iterator[Any]:
    """Yield packets, going on behind damage; a stream of the network that fails is lost."""
    errors = 0
    while True:
        try:
            for packet in demuxed(container, stream):
                errors = 0
                yield packet
            return
        except (av.error.EOFError, EOFError):
            return
        except (av.error.FFmpegError, OSError) as error:
            errors += 1
            if source.kind != "pipe" or errors > MOST_READ_ERRORS:
                raise _failed(source, error) from None


def _failed(source: Source, error: Exception) -> VideoError:
    """Say in words why a source cannot be opened or read any more, without its address, which may hold a password."""
    if isinstance(error, av.error.ExitError):
        return VideoError("timeout", f"nothing came for {PATIENCE:g} s")
    if isinstance(error, av.error.ProtocolNotFoundError):
        scheme = source.address.partition(":")[0]
        return VideoError("unsupported", f"the FFmpeg in this PyAV has no {scheme}")
    reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
    if source.kind == "camera":
        kind = "permission" if isinstance(error, PermissionError) else "not_found"
        return VideoError(kind, f"the camera cannot be used ({reason})")
    if source.kind == "pipe":
        return VideoError("unreadable", f"standard input is no video in the given --format ({reason})")
    return VideoError("unreachable", f"the stream cannot be read ({reason})")


def _rate(stream: Any) -> float:
    rate = float(stream.average_rate or 0)
    return rate if 0.01 < rate < 1000 else 25.0


def _start(container: Any, stream: Any, frame: Any, source: Source) -> float:
    """Seconds from the start of the container's clock to the first frame, as for a file; 0 of what has no start."""
    if source.kind != "pipe" or frame.pts is None or container.start_time is None:
        return 0.0
    origin = 0.0 if source.format in ("mov", "matroska") else max(container.start_time, 0) / av.time_base
    return max(float(frame.pts * stream.time_base) - origin, 0.0)
