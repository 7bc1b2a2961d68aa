"""Small videos for tests, each frame showing its number in big black and white blocks that survive coding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 10
COLUMNS, ROWS = 5, 2


def numbered_frame(number: int, width: int = 160, height: int = 64) -> np.ndarray:
    """(height, width, 3) uint8: ten blocks, the bits of ``number``, lowest first, row by row."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)]).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    grey = np.where(bits[rows][:, columns] == 1, 235, 16).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def frame_number(frame: np.ndarray) -> int:
    """The number that a frame of any size shows; each block is judged by its middle."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, COLUMNS)
        top, left = (row + 0.3) * height / ROWS, (column + 0.3) * width / COLUMNS
        bottom, right = (row + 0.7) * height / ROWS, (column + 0.7) * width / COLUMNS
        block = frame[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
        number |= int(block.mean() > 127) << bit
    return number


def write_video(
    path: Path,
    frames: int = 40,
    *,
    codec: str = "libx264",
    container: str | None = None,
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (160, 64),
    rate: int = 20,
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    picture: np.ndarray | None = None,
) -> Path:
    """Writes numbered frames of ``size`` (width, height), or one ``picture`` (height, width, 3) over and over, or a
    picture for each frame (frames, height, width, 3).

    ``ticks``: when each frame is shown, in 1 / ``rate`` s (default 0, 1, 2, ...); a gap makes the rate
    variable, a start other than 0 an offset, and in MP4 a negative start an edit list that hides frames.
    ``aspect``: of a pixel, width over height.
    """
    stamps = list(ticks) if ticks is not None else list(range(frames))
    if picture is not None:
        size = picture.shape[-2], picture.shape[-3]
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.thread_count = 1
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(
                numbered_frame(number, *size)
                if picture is None
                else picture[number]
                if picture.ndim == 4
                else picture,
                format="rgb24",
            )
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def repeat_video(source: Path, path: Path, times: int) -> Path:
    """A long video made quickly: the packets of ``source`` over and over, without encoding anything."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        step = max(packet.pts for packet in packets) - min(packet.pts for packet in packets)
        step += packets[0].duration or 1
        first = [(packet.pts, packet.dts, packet.duration) for packet in packets]
        for turn in range(times):
            for packet, (pts, dts, duration) in zip(packets, first, strict=True):
                # Muxing has turned all of these into the copy's time base
                packet.time_base, packet.stream, packet.duration = stream.time_base, copy, duration
                packet.pts, packet.dts = pts + turn * step, dts + turn * step
                output.mux(packet)
    return path


def patched(path: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """The file with some bytes changed, each so many bytes behind the first place where a mark is found."""
    content = bytearray(path.read_bytes())
    for mark, offset, value in changes:
        start = content.index(mark) + offset
        content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def write_with_sound(
    path: Path, *, video_at: float = 0.0, sound_at: float = 0.0, sound_last: bool = False, frames: int = 40
) -> Path:
    """Numbered frames and silence, each from its own time on; with ``sound_last`` all of it behind the frames."""
    options = {"max_interleave_delta": "1"} if sound_last else {}
    if path.suffix == ".mp4":
        options["movflags"] = "faststart"
    with av.open(str(path), "w", container_options=options) as output:
        stream: Any = output.add_stream(
            "wmv2" if path.suffix == ".wmv" else "libx264", rate=20, options={"bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 20)
        stream.codec_context.thread_count = 1
        sound: Any = output.add_stream({".ts": "mp2", ".wmv": "wmav2"}.get(path.suffix, "aac"), rate=48000)
        sound.codec_context.bit_rate = 64_000
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = number + round(video_at * 20), Fraction(1, 20)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        size = sound.codec_context.frame_size or 1024
        layout = "stereo"
        for start in range(0, frames * 2400, size):
            block = av.AudioFrame.from_ndarray(np.zeros((2, size), np.float32), format="fltp", layout=layout)
            block.sample_rate, block.pts = 48000, start + round(sound_at * 48000)
            block.time_base = Fraction(1, 48000)
            packets += sound.encode(block)
        packets += sound.encode(None)
        for packet in packets:
            output.mux(packet)
    return path
