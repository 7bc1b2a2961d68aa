"""Videos as Python gives them: paths, frames at hand (arrays, tensors, pictures) and open files.

Frames at hand are an :class:`~zsar_cli.video.images.ImageSequence`, as a folder of frames is: they are sampled, timed
and resized by the same code.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from zsar_cli import checks
from zsar_cli.errors import UsageError
from zsar_cli.video.address import public
from zsar_cli.video.images import ImageSequence, read_picture
from zsar_cli.video.upright import MOST_PIXELS

_PATHS = (str, bytes, bytearray, os.PathLike)
_OF_TEXT = "The file is open for reading text; open a video with open(path, 'rb')."
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True, eq=False)
class Given:
    """A video that is no path: what is read for it, and what its answer calls it.

    ``source``: the frames, or the path of a copy that is removed once the video is read.
    """

    name: str
    source: str | ImageSequence

    def done(self) -> None:
        """Remove the copy."""
        if isinstance(self.source, str) and os.path.exists(self.source):
            os.unlink(self.source)


Video: TypeAlias = "str | Given"


def named(video: Video) -> tuple[str, str | ImageSequence]:
    """Say what an answer calls a video, and what is read for it."""
    return (video.name, video.source) if isinstance(video, Given) else (public(video), video)


class Inputs:
    """Makes what Python gives readable, one video after the other.

    Copies of open files lie in a folder of its own, which goes when the block ends.

    Args:
        fps: frames a second of frames at hand, which do not tell.
    """

    def __init__(self, fps: float) -> None:
        """Make no folder before there is a copy."""
        self.fps = fps
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count(1)

    def __enter__(self) -> Inputs:
        """Remove the copies where the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the copies."""
        if self._folder is not None:
            self._folder.cleanup()

    def each(self, videos: Iterable[Any]) -> Iterator[Video]:
        """Take several videos, one by one. Those without a path are called by their number."""
        return (self.take(video, number) for number, video in enumerate(videos, start=1))

    def take(self, video: Any, number: int | None = None) -> Video:
        """Take one video.

        Raises:
            UsageError: it is none.
        """
        found = frames_at_hand(video, self.fps)
        if found is not None:
            kind, frames = found
            return Given(_name(kind, number), frames)
        if callable(getattr(video, "read", None)):
            return self._copy(video, number)
        return str(checks.video_path(video))  # and no text of a kind of numpy's

    def _copy(self, file: Any, number: int | None) -> Given:
        """Copy an open file, from where it stands to its end.

        Raises:
            UsageError: it is closed, or cannot be copied.
        """
        name = getattr(file, "name", None)
        name = name if isinstance(name, str) and name else None
        ending = _ENDING.fullmatch(os.path.splitext(name or "")[1])
        try:
            first = _first_byte(file)
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="zsar-")
            path = os.path.join(self._folder.name, f"{next(self._numbers)}{ending[0] if ending else ''}")
            with open(path, "xb") as copy:
                copy.write(first)
                shutil.copyfileobj(file, copy, 1 << 20)
        except UnicodeDecodeError as error:
            raise UsageError(_OF_TEXT) from error
        except io.UnsupportedOperation as error:
            raise UsageError("The file is open for writing; open a video with open(path, 'rb').") from error
        except ValueError as error:
            raise UsageError("The file is closed; pass an open file.") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(f"The open file cannot be copied: {reason}.") from error
        return Given(name or _name("file", number), path)


def _first_byte(file: Any) -> bytes:
    seekable = callable(getattr(file, "seekable", None)) and file.seekable()
    start = file.tell() if seekable else 0
    first = file.read(1)
    if not isinstance(first, (bytes, bytearray)):
        raise UsageError(_OF_TEXT)
    if not first and start:
        raise UsageError("The file has been read to its end; go back to its start with file.seek(0).")
    return bytes(first)


def check_videos(videos: Any) -> Iterable[Any]:
    """Check several videos, to be taken one by one; those of a list are looked at now.

    Raises:
        UsageError: they are one video, or no videos.
    """
    alone = isinstance(videos, (*_PATHS, Image.Image)) or callable(getattr(videos, "read", None))
    if (
        alone
        or not isinstance(videos, Iterable)
        or (_is_array(videos) and getattr(videos, "ndim", 5) < 5)
        or getattr(videos, "ndim", 1) == 0
    ):
        raise UsageError(
            f"videos must be a list of videos, not {checks.brief(videos)}; predict() takes a single video."
        )
    if isinstance(videos, (list, tuple)):
        for video in videos:
            if frames_at_hand(video, 1.0) is None and not callable(getattr(video, "read", None)):
                checks.video_path(video)
    return videos


def frames_at_hand(video: Any, fps: float) -> tuple[str, ImageSequence] | None:
    """Find the frames of an array, a tensor or a list of pictures, and what they came as. None for anything else.

    Args:
        video: (T, H, W, 3) or (T, 3, H, W), uint8 or floats from 0 to 1; or T pictures, or arrays (H, W, 3).
        fps: frames a second.

    Raises:
        UsageError: they are no such frames, or their shape may be read in two ways.
    """
    if isinstance(video, _PATHS):
        return None
    if _is_array(video):
        kind = "tensor" if type(video).__module__.partition(".")[0] == "torch" else "array"
        return kind, _sequence(_frames_of_array(video, kind), len(video), fps)
    if isinstance(video, Image.Image):
        raise UsageError("This is a single image; give a list of frames.")
    if not isinstance(video, Sequence) or not video:
        return None
    if all(isinstance(picture, Image.Image) for picture in video):
        pictures = list(video)
        return "images", _sequence(
            lambda number: read_picture(pictures[number], f"frame {number}"), len(pictures), fps
        )
    if all(map(_is_array, video)):
        if len({tuple(frame.shape) for frame in video}) > 1:
            raise UsageError("All frames of a video must have the same shape; these differ.")
        stacked = np.stack([_readable(frame, "list of frames") for frame in video])
        return "frames", _sequence(_frames_of_array(stacked, "list of frames"), len(stacked), fps)
    return None


def _sequence(frame: Callable[[int], np.ndarray], length: int, fps: float) -> ImageSequence:
    return ImageSequence(
        np.arange(length) / fps, length / fps, lambda numbers: map(frame, numbers), assumed_rate=fps
    )


def _frames_of_array(video: Any, kind: str) -> Callable[[int], np.ndarray]:
    """Make what gives the frame (H, W, 3) uint8 of a number."""
    shape = tuple(map(int, video.shape))
    channels = [place for place in (1, 3) if len(shape) == 4 and shape[place] == 3]
    if not channels or 0 in shape:
        raise UsageError(
            f"The frames of a video must have the shape (T, H, W, 3) or (T, 3, H, W), in RGB; this {kind} has {shape}."
        )
    if len(channels) == 2:
        raise UsageError(
            f"The shape {shape} is ambiguous, (T, H, W, 3) or (T, 3, H, W); give frames of another width."
        )
    first = channels == [1]
    height, width = shape[2:] if first else shape[1:3]
    if height * width > MOST_PIXELS:
        raise UsageError(f"Frames of {width} x {height} pixels are too large.")
    _readable(video[0], kind)
    scaled = _is_scaled(video, kind)

    def frame(number: int) -> np.ndarray:
        picture = _numpy(video[number])
        picture = picture.transpose(1, 2, 0) if first else picture
        if scaled:
            picture = (picture.astype(np.float32) * 255 + 0.5).astype(np.uint8)
        return np.ascontiguousarray(picture)

    return frame


def _readable(frame: Any, kind: str) -> np.ndarray:
    """Make an array of a frame that somebody else made. UsageError where it has no values that can be read."""
    try:
        return _numpy(frame)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"The values of this {kind} cannot be read: it is quantized, or has no values."
        ) from error


def _is_scaled(video: Any, kind: str) -> bool:
    """Tell whether the values are floats from 0 to 1, and not uint8. UsageError where they are neither."""
    name = getattr(video.dtype, "name", str(video.dtype)).removeprefix("torch.")
    if name == "uint8":
        return False
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise UsageError(f"Frames must be uint8, or floats from 0 to 1; this {kind} is {name}.")
    values = video.detach() if hasattr(video, "detach") else video
    least, most = float(values.min()), float(values.max())
    if not 0 <= least <= most <= 1:  # NaN is neither
        raise UsageError(
            f"Float frames must be between 0 and 1; these range from {least:g} to {most:g}. For 0 to 255 use uint8."
        )
    return True


def _is_array(value: Any) -> bool:
    """Tell whether it is an array or a tensor of numbers; an array of texts may be a list of paths."""
    layout = str(getattr(value, "layout", "torch.strided"))
    if layout.startswith("torch.") and (layout != "torch.strided" or getattr(value, "is_nested", False)):
        raise UsageError(
            "The values of this tensor cannot be read: it is sparse or nested. Give a dense tensor."
        )
    return hasattr(value, "shape") and getattr(getattr(value, "dtype", None), "kind", "f") not in "USO"


def _numpy(array: Any) -> np.ndarray:
    """Make an array of one, or of a tensor of any device."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if "float" in str(array.dtype) else array  # numpy has no bfloat16
    return np.asarray(array)


def _name(kind: str, number: int | None) -> str:
    return f"<{kind}>" if number is None else f"<{kind} {number}>"
