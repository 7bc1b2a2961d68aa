"""Opening a video, and an index of it made without decoding: which frames, when, and where to start."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np

from zsar_cli.errors import VideoError

av.logging.set_level(av.logging.PANIC)  # what is wrong with a file goes into its record, not onto the screen

# Containers that store an index. MPEG-TS, MPEG-PS, GIF and raw streams have none to trust.
INDEXED = {"mov", "matroska", "avi"}
CUTTABLE = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1", "mpeg4", "mjpeg"}
ORDERED_IN_AVI = {"mpeg4", "mjpeg"}
PACKED = 8  # bytes: an MPEG-4 packet this short stands for a frame that was packed into the one before
PLAYLISTS = {"hls", "concat", "dash", "imf", "webm_dash_manifest", "rtsp", "sdp", "sap"}
PLAYLIST = "this is a playlist, not a video; name the files that it lists"
TEXTS = {"tty", "bin", "xbin", "idf", "adf"}  # FFmpeg draws these as pictures of their letters
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
MOST_PIXELS = 16384 * 8192  # a frame beyond this is a forged header
MOST_PACKETS = 20_000_000  # 90 hours at 60 frames a second
MOST_READ_ERRORS = 64


@dataclass
class Index:
    """What demuxing tells. ``pts`` and ``key``: in stored order, one entry a packet that gives a frame."""

    container: str
    codec: str
    time_base: float
    pts: np.ndarray  # int64 ticks; all zero when some are missing (see timed)
    key: np.ndarray
    timed: bool  # every packet has its own time stamp
    whole: bool  # nothing to drop, nothing damaged, and the first packet starts the video
    claimed: float | None  # s that the header promises for the video
    rate: float
    order: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # packets by time

    @property
    def frame_count(self) -> int:
        return len(self.pts)

    @property
    def cuttable(self) -> bool:
        """Whether decoding can start at any key frame and frames be told by their time stamps."""
        if self.container == "avi" and self.codec not in ORDERED_IN_AVI:
            return False  # AVI stores the order of decoding only
        return self.container in INDEXED and self.codec in CUTTABLE and self.timed and self.whole


def check_path(path: str | os.PathLike[str]) -> str:
    """The path as a string if it is a file or directory that can be read; opens nothing, so never blocks.

    Raises VideoError: not_found, permission, not_a_file (pipe, device, loop of links), unreadable (empty).
    """
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError("not_found", "no such file; check the path") from None
    except PermissionError:
        raise VideoError("permission", "no permission to read this path; check its access rights") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise VideoError("not_a_file", f"cannot be opened: {reason.lower()}") from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise VideoError(
            "not_a_file", "this is a pipe, socket or device, not a file; save it to a file first"
        )
    if not os.access(name, os.R_OK):
        raise VideoError("permission", "no permission to read this file; check its access rights")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise VideoError("unreadable", "the file is empty; copy or download it again")
    return name


@contextmanager
def opened(path: str, threads: int = 1) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and video stream. Raises VideoError: no_video, unreadable, permission, memory."""
    with file_errors():
        source: Any = os.path.abspath(path)  # an absolute path is never taken for a protocol (data:, concat:)
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:  # bytes that are not UTF-8, which PyAV cannot pass on
            source = Path(path).open("rb")
        try:
            # A playlist may not reach for the network, whatever it calls itself. Not as ``options``: PyAV before
            # 18 crashes when it hands those to streams that FLV and MPEG-PS only show later.
            allowed = {"protocol_whitelist": "file"}
            container: Any = av.open(source, container_options=allowed, metadata_errors="ignore")
        except BaseException:
            if not isinstance(source, str):
                source.close()
            raise
        try:
            yield container, _video_stream(container, threads)
        finally:
            container.close()
            if not isinstance(source, str):
                source.close()


def leave_out_others(container: Any, stream: Any) -> None:
    """Read no packet of sound or subtitles, where this PyAV can say so (18 can)."""
    for other in container.streams if hasattr(stream, "discard") else ():
        if other.index != stream.index:
            other.discard = av.stream.Discard.all


@contextmanager
def file_errors() -> Iterator[None]:
    """Turns whatever a damaged file makes PyAV raise into a VideoError."""
    try:
        yield
    except VideoError:
        raise
    except PermissionError as error:
        if error.errno == errno.EPERM:  # FFmpeg says so of what a playlist names; a file's rights are EACCES
            raise VideoError("no_video", PLAYLIST) from None
        raise VideoError("permission", "no permission to read this file; check its access rights") from None
    except FileNotFoundError:
        raise VideoError("not_found", "the file vanished while it was being read") from None
    except MemoryError:
        raise VideoError(
            "memory", "not enough memory to decode this video; its frames may be very large"
        ) from None
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, EOFError, IndexError) as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        message = f"not a video that can be read ({detail.lower()}); the file may be cut short or damaged"
        raise VideoError("unreadable", message) from None


def packets(container: Any, stream: Any, problems: list[str]) -> Iterator[Any]:
    """Every packet of the stream, going on behind damaged spots; each of those adds to ``problems``.

    The last packet is the empty one that flushes the decoder.
    """
    for _ in range(MOST_READ_ERRORS):
        try:
            yield from container.demux(stream)
            return
        except (av.error.EOFError, EOFError):
            return
        except av.error.FFmpegError as error:
            problems.append(error.strerror or type(error).__name__)


def read_index(path: str) -> Index:
    """Demuxes the whole file, decoding nothing. Raises VideoError."""
    with opened(path) as (container, stream):
        claimed, from_container = _claimed_duration(container, stream)
        if not from_container:
            leave_out_others(container, stream)
        problems: list[str] = []
        pts: list[int] = []
        key: list[bool] = []
        timed, whole, furthest = True, True, 0.0
        vp8 = stream.codec_context.name in ("vp8", "libvpx")
        mpeg4 = stream.codec_context.name == "mpeg4"
        for packet in packets(container, None if from_container else stream, problems):
            if from_container:
                furthest = max(furthest, _end_of(packet))
                if packet.stream.index != stream.index:
                    continue
            if not packet.size:
                continue
            if packet.is_corrupt or packet.is_discard or (mpeg4 and packet.size <= PACKED):
                whole = False
            if packet.is_discard or (vp8 and not _shown_vp8(packet)):
                continue
            timed = timed and packet.pts is not None
            pts.append(packet.pts if packet.pts is not None else 0)
            key.append(packet.is_keyframe)
            if len(pts) >= MOST_PACKETS:
                break
        times = np.asarray(pts if timed else [0] * len(pts), np.int64)
        order = np.argsort(times, kind="stable")
        timed = timed and len(np.unique(times)) == len(times)
        whole = whole and not problems and bool(pts) and key[0] and order[0] == 0
        if from_container and claimed is not None and not problems:
            # The container speaks for all its streams; a longer sound track is no missing video
            start = (container.start_time or 0) / av.time_base
            span = _span(times[order], float(stream.time_base)) if timed and len(times) else 0.0
            claimed = max(span, claimed - (furthest - start) + span) if furthest else claimed
        return Index(
            container=container.format.name.split(",")[0],
            codec=stream.codec_context.name,
            time_base=float(stream.time_base),
            pts=times,
            key=np.asarray(key, bool),
            timed=timed,
            whole=whole,
            claimed=claimed,
            rate=_rate(stream),
            order=order,
        )


def image_files(folder: str) -> list[str]:
    """The images of a directory that holds one video's frames, in the order of the numbers in their names."""
    try:
        names = [entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in IMAGES]
    except PermissionError:
        raise VideoError(
            "permission", "no permission to read this directory; check its access rights"
        ) from None
    if not names:
        raise VideoError(
            "not_a_file", "this is a directory without images, not a video; name the files in it"
        )
    return [os.path.join(folder, name) for name in sorted(names, key=_number_then_name)]


def _number_then_name(name: str) -> tuple[int, str]:
    digits = "".join(character if character in "0123456789" else " " for character in Path(name).stem).split()
    return (int(digits[-1][-18:]) if digits else -1, name)


def _video_stream(container: Any, threads: int) -> Any:
    formats = set(container.format.name.split(","))
    if formats & PLAYLISTS:
        raise VideoError("no_video", PLAYLIST)
    if formats & TEXTS:
        raise VideoError("no_video", "this is a text file, not a video")
    for stream in container.streams.video:
        if stream.disposition & av.stream.Disposition.attached_pic:  # the cover of a song
            continue
        if stream.codec_context is None:
            raise VideoError("unreadable", "no decoder here reads this video's codec; convert it to H.264")
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        stream.codec_context.thread_count = threads
        return stream
    raise VideoError("no_video", "the file holds no video stream; is it sound only?")


def _claimed_duration(container: Any, stream: Any) -> tuple[float | None, bool]:
    """Seconds promised, and whether it is the container's word, which covers sound too."""
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
        if (
            container.format.name == "avi"
        ):  # FFmpeg shortens it to fit a file cut short; the frame count stays
            duration = max(duration, stream.frames / _rate(stream))
        return duration, False
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        # Matroska's tag counts from zero, not from the first frame
        start = max(float((stream.start_time or 0) * stream.time_base), 0.0)
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start, False
    except ValueError:
        pass
    return (container.duration / av.time_base, True) if container.duration else (None, False)


def _end_of(packet: Any) -> float:
    if packet.pts is None or not packet.size:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _span(times: np.ndarray, time_base: float) -> float:
    return float(times[-1] - times[0]) * time_base


def _shown_vp8(packet: Any) -> bool:
    """VP8 stores frames that are only referred to as packets of their own; bit 4 of the frame tag says so."""
    return bool(memoryview(packet)[0] & 0x10)


def _rate(stream: Any) -> float:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0.01 < float(rate) < 1000:
            return float(rate)
    return 25.0  # unknown: times then only order the frames
