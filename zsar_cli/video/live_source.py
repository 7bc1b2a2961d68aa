"""Which arguments name a live source: a stream of the network, a camera, or a video that comes through a pipe.

FFmpeg opens the address of a stream only of the schemes in :data:`SCHEMES`, and only where a user has typed it as an
argument. Each is allowed the protocols that its row names.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from zsar_cli.errors import UsageError
from zsar_cli.video.address import public, scheme_of

# What --format says of a video on standard input, and FFmpeg's name of it
CONTAINERS = {
    "mpegts": "mpegts",
    "matroska": "matroska",
    "webm": "matroska",
    "mp4": "mov",
    "flv": "flv",
    "avi": "avi",
    "nut": "nut",
    "ogg": "ogg",
    "h264": "h264",
    "hevc": "hevc",
    "mjpeg": "mjpeg",
    "y4m": "yuv4mpegpipe",
}
_STREAMS = ",".join(dict.fromkeys(CONTAINERS.values()))


@dataclass(frozen=True)
class _Scheme:
    """How a stream is opened."""

    protocols: str  # of FFmpeg's, that it may open
    formats: str = _STREAMS
    waits: bool = False  # whether the sender waits while nothing is read
    options: tuple[tuple[str, str], ...] = ()


SCHEMES = {
    "rtsp": _Scheme("rtp,udp,tcp", "rtsp", options=(("rtsp_flags", "prefer_tcp"),)),
    "rtsps": _Scheme("rtp,udp,tcp,tls", "rtsp"),
    "rtmp": _Scheme("rtmp,tcp", "flv"),
    "rtmps": _Scheme("rtmps,rtmp,tls,tcp", "flv"),
    "udp": _Scheme("udp", options=(("overrun_nonfatal", "1"),)),
    "srt": _Scheme("srt"),
    "tcp": _Scheme("tcp", waits=True),
}
PIPE = "standard input"  # as records name it
_CAMERA = re.compile(r"\d{1,2}|/dev/video\d+")


@dataclass(frozen=True)
class Source:
    """What is watched. ``name``: as records have it, without a password. ``kind``: network, camera or pipe."""

    name: str
    kind: str
    address: str = ""  # for FFmpeg
    format: str | None = None  # FFmpeg's, where it is known
    formats: str = _STREAMS  # that it may turn out to be
    protocols: str = "none"
    options: tuple[tuple[str, str], ...] = ()
    waits: bool = True


def live_source(text: str, container: str | None = None) -> Source | None:
    """Find the live source that an argument names; None where it is none. What exists as a file is no camera's number.

    Args:
        text: an address, a camera's number or device, or ``-``.
        container: of the video on standard input, as :data:`CONTAINERS` has it; None: it holds a list.

    Raises:
        UsageError: there is no such camera.
    """
    if text == "-":
        return None if container is None else Source(PIPE, "pipe", format=CONTAINERS[container])
    if (scheme := scheme_of(text)) in SCHEMES:
        assert scheme is not None
        row = SCHEMES[scheme]
        return Source(public(text), "network", text, None, row.formats, row.protocols, row.options, row.waits)
    if not _CAMERA.fullmatch(text) or (os.path.lexists(text) and not text.startswith("/dev/")):
        return None
    return Source(text, "camera", *_camera(text), waits=False)


def is_live(name: str) -> bool:
    """Tell whether a record's name of a video is one of a live source."""
    return name == PIPE or scheme_of(name) in SCHEMES or _CAMERA.fullmatch(name) is not None


def _camera(text: str) -> tuple[str, str]:
    """Find what FFmpeg opens for a camera, and as what format; its formats are those of devices."""
    if sys.platform == "darwin":
        return f"{text}:none", "avfoundation"
    if sys.platform == "win32":
        import av

        names = [device.name for device in av.enumerate_input_devices("dshow")]
        if not text.isdecimal() or int(text) >= len(names):
            raise UsageError(f"There is no camera {text}; there are {len(names)}, counted from 0.")
        return f"video={names[int(text)]}", "dshow"
    return (f"/dev/video{int(text)}" if text.isdecimal() else text), "v4l2"
