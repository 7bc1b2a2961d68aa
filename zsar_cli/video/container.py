"""Opening a video: its container, video streams and packets, and clear errors."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.logging

from zsar_cli.errors import VideoError
from zsar_cli.video.boxes import has_licence_data, is_encrypted, is_scrambled
from zsar_cli.video.find import local_path, why_unread
from zsar_cli.video.identify import PLAYLIST, what_it_is
from zsar_cli.video.upright import MOST_PIXELS

# What is wrong with a file goes into its record, not onto the screen. Not PANIC: with any level, a decoder's threads
# wait for Python's lock whenever they have something to log, and whoever has it may wait for them.
av.logging.set_level(None)

PLAYLISTS = {"hls", "concat", "dash", "imf", "webm_dash_manifest", "rtsp", "sdp", "sap"}
TEXTS = {"tty", "bin", "xbin", "idf", "adf"}  # FFmpeg draws these as pictures of their letters
ENCRYPTED = "this video is encrypted (DRM) and cannot be decoded; get a copy without protection"
MOST_READ_ERRORS = 64
# Titles that are no UTF-8 end nothing. PyAV reads them so by itself from 19 on, which has no such option
LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


def check_path(path: str | os.PathLike[str]) -> str:
    """Check that a path is a file or a directory that can be read. It opens nothing, so it never blocks.

    Returns:
        The path as a string.

    Raises:
        VideoError: not_found, permission, not_a_file (pipe, device, loop of links), unreadable (empty).
    """
    name = local_path(os.fspath(path))
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        if why := why_unread(name):
            raise VideoError("not_found", why) from None
        raise VideoError("not_found", "no such file; check the path") from None
    except PermissionError:
        raise VideoError("permission", "permission denied; check the permissions of this path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise VideoError("not_a_file", f"cannot be opened: {reason.lower()}") from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise VideoError("not_a_file", "this is a pipe, socket or device; save the video to a file first")
    if not os.access(name, os.R_OK):
        raise VideoError("permission", "no permission to read this file; check its access rights")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise VideoError("unreadable", "the file is empty; copy or download it again")
    return name


@contextmanager
def opened(path: str, number: int | None = None, threads: int = 1) -> Iterator[tuple[Any, Any]]:
    """Open a video with PyAV: the container, and the video stream of that number, all others left out.

    Without a number: the container, and a list of the video streams that can be decoded, nothing left out.
    ``threads``: that decode frames of the stream at the same time.

    Raises:
        VideoError: no_video, encrypted, unreadable, permission, memory.
    """
    with file_errors(path):
        source: Any = os.path.abspath(path)  # an absolute path is never taken for a protocol (data:, concat:)
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:  # bytes that are not UTF-8, which PyAV cannot pass on
            source = Path(path).open("rb")
        try:
            # A playlist may not reach for the network, whatever it calls itself. Not as ``options``: PyAV before
            # 18 crashes when it hands those to streams that FLV and MPEG-PS only show later.
            allowed = {"protocol_whitelist": "file"}
            container: Any = av.open(source, container_options=allowed, **LENIENT)
        except BaseException:
            if not isinstance(source, str):
                source.close()
            raise
        try:
            if number is None and container.format.name.startswith("mov") and is_encrypted(path):
                raise VideoError("encrypted", ENCRYPTED)
            streams = _video_streams(container)
            if number is None and all("enc_key_id" in stream.metadata for stream in streams):  # Matroska
                raise VideoError("encrypted", ENCRYPTED)
            if number is None:
                yield container, streams
            else:
                stream = next((stream for stream in streams if stream.index == number), None)
                if stream is None:
                    raise VideoError(
                        "unreadable", "the file is damaged: opening it twice gives different streams"
                    )
                leave_out_others(container, [stream])
                if threads > 1:
                    context = stream.codec_context
                    context.thread_count, context.thread_type = threads, "FRAME"
                    # Damage is to be told: how it is concealed depends on the number of threads
                    context.options = {**context.options, "err_detect": "+explode+bitstream+buffer"}
                yield container, stream
        finally:
            container.close()
            if not isinstance(source, str):
                source.close()


def leave_out_others(container: Any, streams: list[Any]) -> None:
    """Read no packet of sound or subtitles, where this PyAV can say so (18 can)."""
    numbers = {stream.index for stream in streams}
    for other in container.streams if hasattr(streams[0], "discard") else ():
        if other.index not in numbers:
            other.discard = av.stream.Discard.all


@contextmanager
def file_errors(path: str) -> Iterator[None]:
    """Turn whatever a file that is no video, or is damaged, makes PyAV raise into a VideoError."""
    try:
        yield
    except MemoryError:
        raise VideoError(
            "memory", "not enough memory to decode this video; its frames may be very large"
        ) from None
    except VideoError as error:
        if error.kind in ("unreadable", "no_video"):
            _say_what_it_is(path)
        raise
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, EOFError, IndexError) as error:
        _say_what_it_is(path)
        if isinstance(error, PermissionError):
            if (
                error.errno == errno.EPERM
            ):  # FFmpeg says so of what a playlist names; a file's rights are EACCES
                raise VideoError("no_video", f"this is {PLAYLIST}") from None
            raise VideoError(
                "permission", "no permission to read this file; check its access rights"
            ) from None
        if isinstance(error, FileNotFoundError):
            raise VideoError("not_found", "the file was deleted while it was being read") from None
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        message = f"not a readable video ({detail.lower()}); the file may be truncated or damaged"
        raise VideoError("unreadable", message) from None


def _say_what_it_is(path: str) -> None:
    if (what := what_it_is(path)) is not None:
        raise VideoError("no_video", f"this is {what}") from None
    if is_encrypted(path) or is_scrambled(path):  # FFmpeg opens some of these, and others it calls invalid
        raise VideoError("encrypted", ENCRYPTED) from None


def demuxed(container: Any, streams: Any) -> Iterator[Any]:
    """Yield the packets of a stream or a list of streams. Left early, it gives back all that reading took.

    PyAV's own generator leaks an FFmpeg packet where it is dropped rather than closed. Few bytes, but each lies amid
    freed frames, which the C library can then neither join nor return to the system.
    """
    with contextlib.closing(container.demux(streams)) as read:
        yield from read


def packets(container: Any, stream: Any, problems: list[str]) -> Iterator[Any]:
    """Yield every packet of the stream, going on behind damaged spots; each of those adds to ``problems``.

    The last packet is the empty one that flushes the decoder.
    """
    for _ in range(MOST_READ_ERRORS):
        try:
            yield from demuxed(container, stream)
            return
        except (av.error.EOFError, EOFError):
            return
        except av.error.FFmpegError as error:
            problems.append(error.strerror or type(error).__name__)


def _video_streams(container: Any) -> list[Any]:
    """Find the streams of a file that may be the video, and make them ready to decode.

    Raises:
        VideoError: no_video, unreadable.
    """
    formats = set(container.format.name.split(","))
    if formats & PLAYLISTS:
        raise VideoError("no_video", f"this is {PLAYLIST}")
    if formats & TEXTS:
        raise VideoError("no_video", "this is a text file, not a video")
    return ready_streams(container)


def ready_streams(container: Any) -> list[Any]:
    """Find the streams that may be the video, and make them ready to decode.

    Raises:
        VideoError: no_video, unreadable.
    """
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not streams:
        raise VideoError("no_video", "the file has no video stream; is it audio only?")
    known = [stream for stream in streams if stream.codec_context is not None]
    for stream in known:
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        stream.codec_context.thread_count = 1
    if not known:
        raise VideoError("unreadable", "there is no decoder for this video's codec; convert it to H.264")
    return known


def nothing_read(path: str) -> VideoError:
    """Say why not one frame came of a file that looks like a video."""
    if has_licence_data(path):
        return VideoError("encrypted", ENCRYPTED)
    return VideoError("unreadable", "no frame of this video could be decoded; the file is damaged")
