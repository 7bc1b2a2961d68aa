"""A video as a training run reads it soonest: small, upright, without sound, with a key frame at every twelfth frame.

Every frame that decoding in sequence gives is kept, at its own time, so that what is sampled of the copy is what is
sampled of the video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.files import atomic_write
from zsar_cli.video.decode import iter_frames
from zsar_cli.video.images import IMAGE_RATE

SIDE = 256  # pixels of the shorter side
ENDING = ".mp4"
TICK = Fraction(1, 90_000)  # s; whole numbers of them for 24, 25 and 30 frames a second, and for 30000/1001
EVERY_FRAME = 1e9  # ticks a second, so that no two frames share one
AT_ONCE = 32  # frames that are held
# Frames between references are referred to by none, so that the decoder leaves them out (see zsar_cli.video.seek);
# and neither arithmetic coding nor deblocking, which take half of its time
CODEC = "libx264"
OPTIONS = {
    **{"preset": "veryfast", "tune": "fastdecode", "crf": "20", "g": "12", "bf": "3"},
    "x264-params": "b-pyramid=none:b-adapt=0:scenecut=0:open-gop=0",
}


@dataclass(frozen=True)
class CopyRequest:
    """A video to copy to ``target``, whose folder exists; a copy that is there is replaced."""

    path: str
    target: Path
    side: int = SIDE
    image_rate: float = IMAGE_RATE  # frames a second of a folder of images


@dataclass(frozen=True)
class Copied:
    """What a copy has: frames, s, bytes; ``warning``: how much of the video could not be read."""

    frames: int
    duration: float
    size: int
    warning: str | None


def copy_video(request: CopyRequest) -> Copied:
    """Copy one video; the file is there whole or not at all.

    Raises:
        VideoError: the video cannot be read; ``output`` where the copy cannot be written.
    """
    try:
        with atomic_write(request.target) as aside:
            frames, duration, warning = _encode(request, aside)
            size = aside.stat().st_size
    except UsageError as error:
        raise VideoError("output", str(error)) from None
    return Copied(frames, duration, size, warning)


def _encode(request: CopyRequest, aside: Path) -> tuple[int, float, str | None]:
    shrink = _shrinker(request.side)
    with av.open(str(aside), "w", format="mp4") as container:
        stream: Any = None
        shown: dict[int, int] = {}  # for how long each frame is, by its time; both in ticks
        last, warning, duration = -1, None, 0.0
        for part in iter_frames(
            *(request.path, EVERY_FRAME),
            resize=shrink,
            chunk=AT_ONCE,
            image_rate=request.image_rate,
        ):
            if stream is None:
                stream = _add_stream(container, part.frames[0], part.info.fps)
            for pixels, time in zip(part.frames, part.times, strict=True):
                tick = max(last + 1, round(float(time) / TICK))
                shown[last] = tick - last
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base, last = tick, TICK, tick
                _write(container, stream.encode(frame), shown)
            warning, duration = part.warning, part.info.duration
        shown[last] = max(1, round(duration / TICK) - last)
        _write(container, stream.encode(), shown)
    return len(shown) - 1, duration, warning


def _add_stream(container: Any, pixels: np.ndarray, rate: float) -> Any:
    try:
        stream = container.add_stream(CODEC, rate=Fraction(rate).limit_denominator(1001))
    except ValueError:
        raise UsageError(f"This PyAV has no {CODEC} to encode with; install av from PyPI.") from None
    stream.height, stream.width = pixels.shape[:2]
    stream.pix_fmt, stream.options = "yuv420p", dict(OPTIONS)
    stream.codec_context.time_base = TICK
    stream.codec_context.thread_count = 1
    return stream


def _write(container: Any, packets: Any, shown: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = shown.get(packet.pts, packet.duration)
        container.mux(packet)


def _shrinker(side: int) -> Callable[[np.ndarray], np.ndarray]:
    """Make what scales frames (H, W, 3) so that the first one's shorter side is ``side`` at most, and both are even."""
    size: list[int] = []

    def shrink(frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        if not size:
            factor = min(1.0, side / min(height, width))
            size.extend(max(2, round(length * factor) // 2 * 2) for length in (width, height))
        if (width, height) == tuple(size):
            return frame
        whole = av.VideoFrame.from_ndarray(frame, format="rgb24")
        wanted: dict[str, Any] = {"width": size[0], "height": size[1], "interpolation": "BICUBIC"}
        small: np.ndarray = whole.reformat(format="rgb24", **wanted).to_ndarray()
        return small

    return shrink
