"""From a path to exactly the frames that were asked for.

Frame ``i`` means the i-th frame that decoding from the start puts out, edit lists applied. Reading in sequence with
PyAV is the reference. One short cut is taken unasked, in files whose index is plain: decoding starts at the key frames
before the wanted frames, and each is known by its own time stamp (:mod:`zsar_cli.video.seek`). At anything unexpected
the file is read in sequence after all.

decord runs only when asked for, and only on plain files. On long ones it was slower than this, on others it gives other
frames, and on damaged ones it can end the process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import av
import numpy as np

from zsar_cli.errors import VideoError
from zsar_cli.video.container import check_path, file_errors, nothing_read, opened, packets
from zsar_cli.video.cuts import mark_cuts, shrinker
from zsar_cli.video.frames import Choose, DecodedVideo, KeptFrames, Resize, chosen, settled, stack
from zsar_cli.video.images import IMAGE_RATE, ImageSequence, image_sequence
from zsar_cli.video.probe import Index, read_index
from zsar_cli.video.seek import THREADED, read_seeking
from zsar_cli.video.times import Clock, VideoInfo, planned_timing, shortfall, timing
from zsar_cli.video.upright import STRAIGHT, to_rgb, turn_of_frame

Readable: TypeAlias = "str | os.PathLike[str] | ImageSequence"  # a path, or frames at hand

DECODERS = ("auto", "decord", "pyav")
DENSE = 4  # times as many ticks in the opening of a shot
MP4_STARTS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}  # first boxes
DECORD_READS = {"h264", "vp8", "vp9", "mpeg4", "mjpeg"}  # in files that are cuttable, with the right frames


def read_frames(
    path: Readable,
    choose: Choose,
    *,
    decoder: str = "auto",
    resize: Resize | None = None,
    image_rate: float = IMAGE_RATE,
    rated: bool = False,
    threads: int = 1,
) -> DecodedVideo:
    """Read the frames that ``choose`` names, in its order, repeats allowed.

    Args:
        path: a file, a folder of images, or frames at hand.
        choose: gives the numbers of frames for the number there are. It must be a pure function: it is asked again
            where the file holds fewer frames than it promises.
        decoder: "pyav" reads in sequence. "decord" has decord read what it reads rightly.
        resize: gets each frame (H, W, 3) uint8 as soon as it is decoded, so that large frames never pile up.
        image_rate: frames a second of a folder of images.
        rated: whether ``choose`` gets the frames a second too, as ``rate``.
        threads: as in :func:`iter_frames`.

    Raises:
        VideoError: the file cannot be read.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, not {decoder!r}")
    name, images = _images(path, image_rate)
    if images is not None:
        if rated:
            choose = partial(choose, rate=len(images) / max(images.duration, 1e-3))
        return _read_images(images, choose, resize)
    with file_errors(name):
        index = read_index(name)
        if rated:
            choose = partial(choose, rate=index.rate)
        found = None
        if decoder == "decord" and _plain_for_decord(name, index):
            found = _read_decord(name, index, choose, resize)
        elif decoder == "auto":
            found = read_seeking(name, index, choose, resize, threads)
        return found or _read_in_sequence(name, index, choose, resize, threads)


def iter_frames(
    path: Readable,
    rate: float,
    *,
    first: float = 0.0,
    resize: Resize | None = None,
    chunk: int = 32,
    image_rate: float = IMAGE_RATE,
    opening: float | None = None,
    threads: int = 1,
) -> Iterator[DecodedVideo]:
    """Decode a long video once, in sequence, and yield ``chunk`` frames at a time: memory stays bounded.

    Args:
        path: a file, or a folder of images.
        rate: ticks a second. The first frame at or after each tick is taken, and none twice.
        first: when the first tick is, s from the first frame.
        resize: see :func:`read_frames`.
        chunk: the most frames that are held at a time.
        image_rate: frames a second of a folder of images.
        opening: look for hard cuts. With each shot the ticks begin anew, and in so many seconds from its first frame
            on they come :data:`DENSE` times as often: it may be a short one.
        threads: that decode at the same time. The frames are the same, but for damage of HEVC that its decoder does not
            tell of: what stands in its place differs, also from run to run.

    Yields:
        Frames in order, of one shot each. ``info`` comes from the file's index. The last chunk's ``warning`` says what
        could not be read.

    Raises:
        VideoError: the file cannot be read, or not one frame of it.
    """
    name, images = _images(path, image_rate)
    ticks = Ticks(rate, first, opening)
    if images is not None:
        yield from _iter_images(images, ticks, resize, chunk)
        return
    with file_errors(name):
        index = read_index(name)
        clock = Clock(index)
        reader = _Sequence(name, index, threads)

        def about(size: tuple[int, int], whole: bool) -> tuple[VideoInfo, str | None]:
            if not whole:
                return planned_timing(index, size), None
            if not reader.pts:
                raise nothing_read(name)
            info, _, timed = timing(reader.pts, index, size)
            return info, shortfall(info, index, reader.problems, timed)

        timed = ((number, clock.time(number, frame.pts), frame) for number, frame in reader.frames())
        yield from on_ticks(timed, ticks, resize, chunk, index.aspect, about)


def on_ticks(
    frames: Iterator[tuple[int, float, Any]],
    ticks: Ticks,
    resize: Resize | None,
    chunk: int,
    aspect: float,
    about: Callable[[tuple[int, int], bool], tuple[VideoInfo, str | None]],
) -> Iterator[DecodedVideo]:
    """Keep one frame for each tick, ``chunk`` of them at a time, of one shot each.

    Args:
        frames: all of them in order, each with its number and its time in s.
        ticks: which are kept.
        resize: see :func:`read_frames`.
        chunk: the most frames that are held at a time.
        aspect: of a stored pixel, width over height.
        about: info and warning, for the height and width of a frame; True: all frames have come.
    """
    batch: list[tuple[int, float, np.ndarray]] = []
    size = (0, 0)
    for (number, time, frame), cut in _with_cuts(frames, ticks):
        # Held back until a later frame comes, so that the last chunk can carry the warning
        if batch and (cut or (len(batch) == chunk and ticks.takes(time))):
            yield _chunk(batch, about(size, False)[0], None, ticks.start)
            batch = []
        if cut:
            ticks.begin(time)
        if not ticks.takes(time):
            continue
        ticks.take(time)
        pixels = to_rgb(frame, aspect)
        size = pixels.shape[:2]
        batch.append((number, time, resize(pixels) if resize else pixels))
    info, warning = about(size, True)
    if batch:
        yield _chunk(batch, info, warning, ticks.start)


def planned_info(path: Readable, *, image_rate: float = IMAGE_RATE) -> VideoInfo:
    """Say what the file's index promises, without decoding: width and height are 0.

    Raises:
        VideoError: the file cannot be read.
    """
    name, images = _images(path, image_rate)
    if images is not None:
        return _image_info(images)
    with file_errors(name):
        index = read_index(name)
        if not index.frame_count:
            raise nothing_read(name)
        return planned_timing(index, (0, 0))


def _images(path: Readable, image_rate: float) -> tuple[str, ImageSequence | None]:
    """Give the name of a file, and the images that it holds or that are at hand."""
    if isinstance(path, ImageSequence):
        return "", path
    name = check_path(path)
    return name, image_sequence(name, image_rate)


class _Sequence:
    """The reference: every frame in output order. ``pts`` and ``problems`` fill up while it is read.

    ``threads`` decode at the same time where the file is plain. At the first damage that the decoder tells of, one
    alone starts over.
    """

    def __init__(self, path: str, index: Index, threads: int = 1) -> None:
        """Open nothing yet."""
        self.path = path
        self.index = index
        self.threads = threads if index.cuttable and index.codec in THREADED else 1
        self.pts: list[int | None] = []
        self.problems: list[str] = []
        # A recording may begin between key frames: what comes before the first is no damage
        self.begun = False

    def frames(self) -> Iterator[tuple[int, Any]]:
        """Yield each frame with its number."""
        if self.threads == 1:
            yield from self._read(1)
            return
        sound = 0
        for number, frame in settled(self._read(self.threads), self.index.order):
            if self.problems:
                break
            yield number, frame
            sound = number + 1
        if self.problems or not sound == len(self.pts) == self.index.frame_count:
            self.pts, self.problems, self.begun = [], [], False
            yield from ((number, frame) for number, frame in self._read(1) if number >= sound)

    def _read(self, threads: int) -> Iterator[tuple[int, Any]]:
        with opened(self.path, self.index.stream, threads) as (container, stream):
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


def _read_in_sequence(
    path: str, index: Index, choose: Choose, resize: Resize | None, threads: int
) -> DecodedVideo:
    kept = KeptFrames(resize)
    wanted = set(chosen(choose, index.frame_count)) if index.frame_count else {0}
    reader = _collect(path, index, wanted, kept, threads)
    count = len(reader.pts)
    if count == 0:
        raise nothing_read(path)
    indices = chosen(choose, count)
    missing = set(indices) - kept.pixels.keys()
    if missing:  # the file promised another number of frames than it gave: once more, now knowing
        _collect(path, index, missing, kept, threads)
        if set(indices) - kept.pixels.keys():
            raise VideoError("unreadable", "the file is damaged: decoding it twice gives different frames")
    info, times, timed = timing(reader.pts, index, kept.size)
    return kept.video(indices, times, info, shortfall(info, index, reader.problems, timed))


def _collect(path: str, index: Index, wanted: set[int], kept: KeptFrames, threads: int) -> _Sequence:
    reader = _Sequence(path, index, threads)
    for number, frame in reader.frames():
        if number in wanted:
            kept.keep(number, to_rgb(frame, index.aspect))
    return reader


def _plain_for_decord(path: str, index: Index) -> bool:
    """Tell whether decord would show the right frames of this file: upright, of the right stream."""
    if not (index.cuttable and index.codec in DECORD_READS and index.alone and index.aspect == 1.0):
        return False
    # The older FFmpeg in decord must not see a playlist where ours sees a video
    with open(path, "rb") as file:
        start = file.read(12)
    if not start.startswith((b"RIFF", b"\x1a\x45\xdf\xa3")) and start[4:8] not in MP4_STARTS:
        return False
    _, frame = next(_Sequence(path, index).frames(), (0, None))
    # decord turns by the angle alone, mirrors nothing, and makes an angle of any matrix
    return frame is not None and frame.rotation == 0 and turn_of_frame(frame) == STRAIGHT


def _read_decord(path: str, index: Index, choose: Choose, resize: Resize | None) -> DecodedVideo | None:
    """Read a plain file with decord. None where it cannot, or counts other frames than there are."""
    try:
        import decord
    except ImportError:
        raise VideoError("unreadable", "decord is not installed; use --decoder pyav") from None
    decord.logging.set_level(decord.logging.QUIET)
    kept = KeptFrames(resize)
    try:
        reader = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1)
        indices = chosen(choose, len(reader))
        for number in sorted(set(indices)):
            kept.keep(number, reader[number].asnumpy())
        count = len(reader)
    except (decord.DECORDError, RuntimeError, IndexError, AssertionError, UnicodeError):
        return None
    if count != index.frame_count:
        return None
    info, seconds, _ = timing(index.pts[index.order].tolist(), index, kept.size)
    return kept.video(indices, seconds, info, shortfall(info, index, []))


def _read_images(images: ImageSequence, choose: Choose, resize: Resize | None) -> DecodedVideo:
    indices = chosen(choose, len(images))
    kept = KeptFrames(resize)
    numbers = sorted(set(indices))
    for number, picture in zip(numbers, images.read(numbers), strict=True):
        kept.keep(number, picture)
    return kept.video(indices, images.times, _image_info(images, kept.size), images.warning)


def _iter_images(
    images: ImageSequence, ticks: Ticks, resize: Resize | None, chunk: int
) -> Iterator[DecodedVideo]:
    cuts: set[int] = set()
    if ticks.opening is not None:
        pictures = (
            av.VideoFrame.from_ndarray(picture, "rgb24") for picture in images.read(range(len(images)))
        )
        cuts = {number for number, (_, cut) in enumerate(mark_cuts(pictures, shrinker())) if cut}
    shots: dict[float, list[int]] = {}
    for number, time in enumerate(map(float, images.times)):
        if number in cuts:
            ticks.begin(time)
        if ticks.takes(time):
            ticks.take(time)
            shots.setdefault(ticks.start, []).append(number)
    for start, numbers in shots.items():
        for place in range(0, len(numbers), chunk):
            part = numbers[place : place + chunk]
            yield replace(_read_images(images, lambda _, part=part: part, resize), shot=start)


def _with_cuts(
    frames: Iterator[tuple[int, float, Any]], ticks: Ticks
) -> Iterator[tuple[tuple[int, float, Any], bool]]:
    """Yield frames with their numbers and times, and whether a shot begins with them where cuts are looked for."""
    if ticks.opening is None:
        return ((frame, False) for frame in frames)
    shrink = shrinker()
    return mark_cuts(frames, lambda timed: shrink(timed[2]))


def _image_info(images: ImageSequence, size: tuple[int, int] = (0, 0)) -> VideoInfo:
    count = len(images)
    rate = images.assumed_rate or count / images.duration
    return VideoInfo(images.duration, size[1], size[0], count, rate, assumed=images.assumed_rate is not None)


class Ticks:
    """Ticks of a clock, ``rate`` a second, the first at ``first`` s of a shot; denser in its ``opening`` s."""

    def __init__(self, rate: float, first: float, opening: float | None = None) -> None:
        self.rate, self.first, self.opening = rate, first, opening
        self.begin(0.0)

    def begin(self, time: float) -> None:
        """Begin a shot."""
        self.start = time
        self.last = -1.0 if self.opening is None else -math.inf  # tick that a frame was taken for

    def takes(self, time: float) -> bool:
        """Tell whether a frame at that time is the first at or after a tick; times must not fall."""
        return self._tick(time) > self.last

    def take(self, time: float) -> None:
        """Take that frame."""
        self.last = self._tick(time)

    def _tick(self, time: float) -> float:
        dense = DENSE if self.opening is not None and time - self.start < self.opening else 1
        return math.floor(((time - self.start - self.first) * self.rate + 1e-6) * dense) / dense


def _chunk(
    batch: list[tuple[int, float, np.ndarray]], info: VideoInfo, warning: str | None, shot: float
) -> DecodedVideo:
    numbers, times, frames = zip(*batch, strict=True)
    return DecodedVideo(
        stack(list(frames)), np.asarray(numbers, np.int64), np.asarray(times, float), info, warning, shot
    )
