"""From a path to exactly the frames that were asked for.

Frame ``i`` means the i-th frame that decoding from the start puts out, edit lists applied. Reading in
sequence with PyAV is the reference. One short cut is taken unasked, in files whose index is plain: decoding
starts at the key frames before the wanted frames, and each is known by its own time stamp. At anything
unexpected the file is read in sequence after all. decord runs only when asked for, and only on plain files: on
long ones it was slower than this, on others it gives other frames, and on damaged ones it can end the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import av
import numpy as np
from PIL import Image

from zsar_cli.errors import VideoError
from zsar_cli.video.images import IMAGE_RATE, ImageSequence, image_sequence
from zsar_cli.video.probe import (
    Index,
    check_path,
    demuxed,
    file_errors,
    nothing_read,
    opened,
    packets,
    read_index,
)
from zsar_cli.video.times import Clock, VideoInfo, planned_timing, shortfall, timing
from zsar_cli.video.upright import STRAIGHT, to_rgb, turn_of_frame

Readable: TypeAlias = "str | os.PathLike[str] | ImageSequence"  # a path, or frames at hand
Choose = Callable[[int], Sequence[int]]
Resize = Callable[[np.ndarray], np.ndarray]

DECODERS = ("auto", "decord", "pyav")
SEEK_GAIN = 0.2  # seeking must spare at least this much of the decoding to be worth its risk
MP4_STARTS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}  # first boxes
DECORD_READS = {"h264", "vp8", "vp9", "mpeg4", "mjpeg"}  # in files that are cuttable, with the right frames
REFERRED = 0.6  # about the share of the decoding in H.264 that goes into frames to which others refer


@dataclass
class DecodedVideo:
    """``frames`` (n, H, W, 3) uint8 in the order asked for, or what ``resize`` made of them.

    ``times`` in s from the first frame; ``warning``: how much of the video could not be read.
    """

    frames: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    info: VideoInfo
    warning: str | None = None


@dataclass
class _Pixels:
    """Converted frames by index, and the size before any resizing."""

    frames: dict[int, np.ndarray]
    size: tuple[int, int] | None = None  # height, width


def read_frames(
    path: Readable,
    choose: Choose,
    *,
    decoder: str = "auto",
    resize: Resize | None = None,
    image_rate: float = IMAGE_RATE,
) -> DecodedVideo:
    """The frames ``choose(frame_count)`` names, in its order, repeats allowed.

    ``choose`` must be a pure function: it is asked again when the file holds fewer frames than it promises.
    ``resize`` gets each frame (H, W, 3) uint8 as soon as it is decoded, so that large frames never pile up.
    ``decoder``: "pyav" reads in sequence, "decord" has decord read what it reads rightly. ``image_rate``: frames
    a second of a folder of images. Raises VideoError.
    """
    _check_decoder(decoder)
    name, images = _images(path, image_rate)
    if images is not None:
        return _read_images(images, choose, resize)
    with file_errors(name):
        index = read_index(name)
        found = None
        if decoder == "decord" and _plain_for_decord(name, index):
            found = _read_decord(name, index, choose, resize)
        elif decoder == "auto":
            found = _read_seeking(name, index, choose, resize)
        return found or _read_in_sequence(name, index, choose, resize)


def iter_frames(
    path: Readable,
    rate: float,
    *,
    first: float = 0.0,
    resize: Resize | None = None,
    chunk: int = 32,
    image_rate: float = IMAGE_RATE,
) -> Iterator[DecodedVideo]:
    """Decode a long video once, in sequence, and yield ``chunk`` frames at a time: memory stays bounded.

    Args:
        path: a file, or a folder of images.
        rate: ticks a second. The first frame at or after each tick is taken, and none twice.
        first: when the first tick is, s from the first frame.
        resize: see :func:`read_frames`.
        chunk: the most frames that are held at a time.
        image_rate: frames a second of a folder of images.

    Yields:
        Frames in order. ``info`` comes from the file's index. The last chunk's ``warning`` says what could not be read.

    Raises:
        VideoError: the file cannot be read, or not one frame of it.
    """
    name, images = _images(path, image_rate)
    if images is not None:
        yield from _iter_images(images, _Ticks(rate, first), resize, chunk)
        return
    with file_errors(name):
        index = read_index(name)
        clock = Clock(index)
        ticks = _Ticks(rate, first)
        reader = _Sequence(name, index)
        batch: list[tuple[int, float, np.ndarray]] = []
        size = (0, 0)
        for number, frame in reader.frames():
            time = clock.time(number, frame.pts)
            if not ticks.takes(time):
                continue
            # Held back until a later frame comes, so that the last chunk can carry the warning
            if len(batch) == chunk:
                yield _chunk(batch, planned_timing(index, size), None)
                batch = []
            pixels = to_rgb(frame, index.aspect)
            size = pixels.shape[:2]
            batch.append((number, time, resize(pixels) if resize else pixels))
        if not reader.pts:
            raise nothing_read(name)
        info, _, timed = timing(reader.pts, index, size)
        if batch:
            yield _chunk(batch, info, shortfall(info, index, reader.problems, timed))


def planned_info(path: Readable, *, image_rate: float = IMAGE_RATE) -> VideoInfo:
    """What the file's index promises, without decoding: width and height are 0. Raises VideoError."""
    name, images = _images(path, image_rate)
    if images is not None:
        return _image_info(images)
    with file_errors(name):
        index = read_index(name)
        if not index.frame_count:
            raise nothing_read(name)
        return planned_timing(index, (0, 0))


def _images(path: Readable, image_rate: float) -> tuple[str, ImageSequence | None]:
    """The name of a file, and the images that it holds or that are at hand."""
    if isinstance(path, ImageSequence):
        return "", path
    name = check_path(path)
    return name, image_sequence(name, image_rate)


class _Sequence:
    """The reference: every frame in output order. ``pts`` and ``problems`` fill up while it is read."""

    def __init__(self, path: str, index: Index) -> None:
        self.path = path
        self.index = index
        self.pts: list[int | None] = []
        self.problems: list[str] = []
        self.begun = (
            False  # a recording may begin between key frames: what comes before the first is no damage
        )

    def frames(self) -> Iterator[tuple[int, Any]]:
        with opened(self.path, self.index.stream) as (container, stream):
            flushed = False
            for packet in packets(container, stream, self.problems):
                flushed = not packet.size
                self.begun = self.begun or packet.is_keyframe
                yield from self._decoded(packet)
            if not flushed:
                yield from self._decoded(None, stream)

    def _decoded(self, packet: Any, stream: Any = None) -> Iterator[tuple[int, Any]]:
        try:
            frames = packet.decode() if packet is not None else stream.codec_context.decode(None)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            if self.begun and not isinstance(error, av.error.EOFError):
                self.problems.append(getattr(error, "strerror", None) or str(error))
            return
        for frame in frames:
            self.pts.append(frame.pts)
            yield len(self.pts) - 1, frame


def _read_in_sequence(path: str, index: Index, choose: Choose, resize: Resize | None) -> DecodedVideo:
    pixels = _Pixels({})
    wanted = set(_chosen(choose, index.frame_count)) if index.frame_count else {0}
    reader = _collect(path, index, wanted, pixels, resize)
    count = len(reader.pts)
    if count == 0:
        raise nothing_read(path)
    indices = _chosen(choose, count)
    missing = set(indices) - pixels.frames.keys()
    if missing:  # the file promised another number of frames than it gave: once more, now knowing
        _collect(path, index, missing, pixels, resize)
        if set(indices) - pixels.frames.keys():
            raise VideoError("unreadable", "decoding this file twice gives different frames; it is damaged")
    info, times, timed = timing(reader.pts, index, pixels.size or (0, 0))
    return _assemble(pixels, indices, times, info, shortfall(info, index, reader.problems, timed))


def _collect(path: str, index: Index, wanted: set[int], pixels: _Pixels, resize: Resize | None) -> _Sequence:
    reader = _Sequence(path, index)
    for number, frame in reader.frames():
        if number in wanted:
            _keep(pixels, number, to_rgb(frame, index.aspect), resize)
    return reader


def _read_seeking(path: str, index: Index, choose: Choose, resize: Resize | None) -> DecodedVideo | None:
    """Decodes only from the key frames before the wanted frames. None: not worth it, or not to be trusted."""
    if not index.cuttable:
        return None
    indices = _chosen(choose, index.frame_count)
    times = index.pts[index.order]
    runs = _runs(index, sorted(set(indices)))
    cost = sum(last - first + 1 for first, last, _ in runs) * (REFERRED if index.codec == "h264" else 1.0)
    if cost > (1 - SEEK_GAIN) * index.frame_count:
        return None
    pixels = _Pixels({})
    try:
        with opened(path, index.stream) as (container, stream):
            for first, _, numbers in runs:
                if not _decode_run(container, stream, index, first, numbers, pixels, resize):
                    return None
    except (av.error.FFmpegError, VideoError) as error:
        if isinstance(error, MemoryError) or getattr(error, "kind", "") == "memory":
            raise
        return None
    info, seconds, _ = timing(times.tolist(), index, pixels.size or (0, 0))
    return _assemble(pixels, indices, seconds, info, shortfall(info, index, []))


def _runs(index: Index, wanted: list[int]) -> list[tuple[int, int, list[int]]]:
    """Groups wanted frames by the key packet to start at: (first packet, last packet needed, frame numbers).

    A frame is reached from the last key packet that is stored before it and shown no later than it: after the
    key frame of an open group come frames that lean on the group before, but those are shown before it.
    """
    keys = np.flatnonzero(index.key)
    runs: list[tuple[int, int, list[int]]] = []
    for number in wanted:
        packet = int(index.order[number])
        before = keys[(keys <= packet) & (index.pts[keys] <= index.pts[packet])]
        first = int(before[-1])
        if runs and runs[-1][0] == first:
            runs[-1] = (first, max(runs[-1][1], packet), [*runs[-1][2], number])
        else:
            runs.append((first, packet, [number]))
    return runs


def _decode_run(
    container: Any,
    stream: Any,
    index: Index,
    first: int,
    numbers: list[int],
    pixels: _Pixels,
    resize: Resize | None,
) -> bool:
    """Decodes one run of packets; False as soon as anything differs from what the index says."""
    wanted = {int(index.pts[index.order[number]]): number for number in numbers}
    container.seek(int(index.pts[first]), stream=stream, backward=True, any_frame=False)
    context = stream.codec_context
    started = False
    for packet in demuxed(container, stream):
        if packet.size and not started:
            if packet.pts is None or packet.pts > index.pts[first]:
                return False
            started = packet.pts == index.pts[first]
        if context.name == "h264":
            # Nothing refers to these frames, so leaving them out changes no other
            context.skip_frame = "DEFAULT" if packet.pts in wanted or not packet.size else "NONREF"
        for frame in packet.decode():
            if frame.pts not in wanted:
                continue
            if frame.is_corrupt:
                return False
            _keep(pixels, wanted.pop(frame.pts), to_rgb(frame, index.aspect), resize)
        if not wanted:
            return started
    return False


def _plain_for_decord(path: str, index: Index) -> bool:
    """Whether decord would show the right frames of this file: upright, of the right stream."""
    if not (index.cuttable and index.codec in DECORD_READS and index.alone and index.aspect == 1.0):
        return False
    with open(
        path, "rb"
    ) as file:  # the older FFmpeg in decord must not see a playlist where ours sees a video
        start = file.read(12)
    if not start.startswith((b"RIFF", b"\x1a\x45\xdf\xa3")) and start[4:8] not in MP4_STARTS:
        return False
    _, frame = next(_Sequence(path, index).frames(), (0, None))
    # decord turns by the angle alone, mirrors nothing, and makes an angle of any matrix
    return frame is not None and frame.rotation == 0 and turn_of_frame(frame) == STRAIGHT


def _read_decord(path: str, index: Index, choose: Choose, resize: Resize | None) -> DecodedVideo | None:
    """Only when asked for by name, and for plain files: elsewhere decord gives other frames, or ends the process.

    None: decord cannot read it, or counts other frames than there are.
    """
    try:
        import decord
    except ImportError:
        raise VideoError("unreadable", "decord is not installed here; use the pyav decoder") from None
    decord.logging.set_level(decord.logging.QUIET)
    pixels = _Pixels({})
    try:
        reader = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1)
        indices = _chosen(choose, len(reader))
        for number in sorted(set(indices)):
            _keep(pixels, number, reader[number].asnumpy(), resize)
        count = len(reader)
    except (decord.DECORDError, RuntimeError, IndexError, AssertionError, UnicodeError):
        return None
    if count != index.frame_count:
        return None
    info, seconds, _ = timing(index.pts[index.order].tolist(), index, pixels.size or (0, 0))
    return _assemble(pixels, indices, seconds, info, shortfall(info, index, []))


def _read_images(images: ImageSequence, choose: Choose, resize: Resize | None) -> DecodedVideo:
    indices = _chosen(choose, len(images))
    pixels = _Pixels({})
    numbers = sorted(set(indices))
    for number, picture in zip(numbers, images.read(numbers), strict=True):
        _keep(pixels, number, picture, resize)
    return _assemble(
        pixels, indices, images.times, _image_info(images, pixels.size or (0, 0)), images.warning
    )


def _iter_images(
    images: ImageSequence, ticks: _Ticks, resize: Resize | None, chunk: int
) -> Iterator[DecodedVideo]:
    numbers = [number for number, time in enumerate(images.times) if ticks.takes(float(time))]
    for start in range(0, len(numbers), chunk):
        part = numbers[start : start + chunk]
        yield _read_images(images, lambda _, part=part: part, resize)  # type: ignore[misc]


def _image_info(images: ImageSequence, size: tuple[int, int] = (0, 0)) -> VideoInfo:
    count = len(images)
    rate = images.assumed_rate or count / images.duration
    return VideoInfo(images.duration, size[1], size[0], count, rate, assumed=images.assumed_rate is not None)


class _Ticks:
    """Ticks of a clock, ``rate`` a second, the first at ``first`` s."""

    def __init__(self, rate: float, first: float) -> None:
        self.rate, self.first = rate, first
        self.next = 0

    def takes(self, time: float) -> bool:
        """Whether a frame at that time is the first at or after a tick; times must not fall."""
        ticks = (time - self.first) * self.rate + 1e-6
        if ticks < self.next:
            return False
        self.next = int(ticks) + 1
        return True


def _chunk(batch: list[tuple[int, float, np.ndarray]], info: VideoInfo, warning: str | None) -> DecodedVideo:
    numbers, times, frames = zip(*batch, strict=True)
    stacked = np.stack(_one_shape(list(frames)))
    return DecodedVideo(stacked, np.asarray(numbers, np.int64), np.asarray(times, float), info, warning)


def _assemble(
    pixels: _Pixels, indices: list[int], seconds: np.ndarray, info: VideoInfo, warning: str | None
) -> DecodedVideo:
    frames = np.stack(_one_shape([pixels.frames[number] for number in indices]))
    numbers = np.asarray(indices, np.int64)
    return DecodedVideo(frames, numbers, seconds[numbers], info, warning)


def _keep(pixels: _Pixels, number: int, frame: np.ndarray, resize: Resize | None) -> None:
    if pixels.size is None:
        pixels.size = (frame.shape[0], frame.shape[1])
    pixels.frames[number] = resize(frame) if resize else frame


def _one_shape(frames: list[np.ndarray]) -> list[np.ndarray]:
    """A stream may change its size half way; the frames then follow the first."""
    shape = frames[0].shape
    if all(frame.shape == shape for frame in frames) or len(shape) != 3:
        return frames
    size = (shape[1], shape[0])
    return [np.asarray(Image.fromarray(frame).resize(size)) for frame in frames]


def _chosen(choose: Choose, frame_count: int) -> list[int]:
    return [min(max(int(number), 0), frame_count - 1) for number in choose(frame_count)]


def _check_decoder(decoder: str) -> None:
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, not {decoder!r}")
