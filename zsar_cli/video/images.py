"""Videos that are images: a folder of frames, or an animated WebP, which FFmpeg cannot read. Pillow reads both."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zsar_cli.errors import VideoError
from zsar_cli.video.find import image_names
from zsar_cli.video.upright import EXIF_TAG, EXIF_TURNS, MOST_PIXELS, STRAIGHT, Turn

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # no reader of these starts a program
IMAGE_RATE = 25.0  # frames a second that a folder of images has unless somebody says better
UNTOLD = 0.1  # s that a frame of an animation is shown where the file says 0, as browsers do


@dataclass(frozen=True)
class ImageSequence:
    """Frames, and when they are shown. ``read`` gives the pictures (H, W, 3) uint8 of rising numbers."""

    times: np.ndarray  # s from the first
    duration: float  # s
    read: Callable[[Iterable[int]], Iterator[np.ndarray]]
    assumed_rate: float | None = None  # where the times rest on it, and on nothing in the files
    warning: str | None = None

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.times)


def image_sequence(path: str, rate: float = IMAGE_RATE) -> ImageSequence | None:
    """Find the images that a folder or an animated WebP holds. None for any other file.

    Raises:
        VideoError: the folder cannot be read, or has no images; the WebP file is damaged.
    """
    if os.path.isdir(path):
        files = image_files(path)

        def read(numbers: Iterable[int]) -> Iterator[np.ndarray]:
            return (read_image(files[number]) for number in numbers)

        return ImageSequence(np.arange(len(files)) / rate, len(files) / rate, read, assumed_rate=rate)
    with open(path, "rb") as file:
        if not re.match(rb"RIFF....WEBP", file.read(12), re.DOTALL):
            return None
    return _animation(path)


def image_files(folder: str) -> list[str]:
    """List the images of a folder that holds one video's frames, in natural order: 9 comes before 10.

    Raises:
        VideoError: permission, not_a_file (no images).
    """
    try:
        names = image_names(folder)
    except PermissionError:
        raise VideoError(
            "permission", "no permission to read this directory; check its access rights"
        ) from None
    if not names:
        raise VideoError(
            "not_a_file", "this is a directory without images, not a video; name the files in it"
        )
    return [os.path.join(folder, name) for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    """Sort names by their words and, where those agree, by the numbers between them."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", os.path.splitext(name)[0])
    return [(word.casefold(), int(digits or -1)) for word, digits in parts if word or digits], name


def read_image(file: str) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8, turned as its EXIF data say.

    Raises:
        VideoError: it cannot be read.
    """
    name = os.path.basename(file)
    with _image_errors(f"the frame {name!r}"), Image.open(file, formats=FORMATS) as image:
        return _upright(image)


def read_picture(image: Image.Image, what: str) -> np.ndarray:
    """Read a picture that is open as (H, W, 3) uint8, turned as its EXIF data say.

    Raises:
        VideoError: it cannot be read.
    """
    with _image_errors(what):
        return _upright(image)


@contextmanager
def _image_errors(what: str) -> Iterator[None]:
    """Turn whatever a damaged image makes Pillow raise into a VideoError, and keep Pillow silent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except VideoError:
        raise
    except MemoryError:
        raise VideoError("memory", f"not enough memory to decode {what}; it may be very large") from None
    except Exception:  # Pillow's readers let many kinds through
        message = f"{what} is not an image that can be read (of {', '.join(FORMATS)})"
        raise VideoError("unreadable", message) from None


def _upright(image: Image.Image) -> np.ndarray:
    if image.width * image.height > MOST_PIXELS:
        raise VideoError(
            "unreadable", f"an image of {image.width} x {image.height} pixels is too large to decode"
        )
    if not image.width * image.height:
        raise VideoError("unreadable", "an image without pixels")
    image.load()  # Pillow turns a TIFF meanwhile, and takes the tag off
    return _exif_turn(image).apply(_as_rgb(image))


def _exif_turn(image: Image.Image) -> Turn:
    try:
        return EXIF_TURNS.get(image.getexif().get(EXIF_TAG, 1), STRAIGHT)
    except Exception:  # EXIF data are often damaged, and the picture is sound all the same
        return STRAIGHT


def _as_rgb(image: Image.Image) -> np.ndarray:
    """Make (H, W, 3) uint8. Pillow's own conversion clips what is deeper than 8 bits, so that is scaled here."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGB"))
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    if image.mode.startswith("I;16") or image.format == "PNG":
        white = 65535.0
    else:  # nothing says what white is, but the usual ways to store it
        usual = (1.0, 255.0) if image.mode == "F" else ()
        brightest = float(values.max(initial=0.0))
        white = next((w for w in (*usual, 65535.0, 2.0**31 - 1) if brightest <= w), brightest)
    grey = np.clip(values * (255 / white) + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


# --- animated WebP --------------------------------------------------------------------------------------------


def _animation(path: str) -> ImageSequence:
    with open(path, "rb") as file:
        data = file.read()
    end, durations = _webp_chunks(data)
    whole = min(struct.unpack_from("<I", data, 4)[0] + 8, 2**32) <= len(data)
    # What a cut file holds in whole frames is made a file of its own, since no reader takes the cut one
    content = data if whole else b"RIFF" + struct.pack("<I", end - 8) + data[8:end]
    shown = np.asarray(durations or [UNTOLD])

    def read(numbers: Iterable[int]) -> Iterator[np.ndarray]:
        with _image_errors("this WebP file"), Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
            for number in numbers:
                image.seek(number)
                yield _upright(image)

    warning = None if whole else f"only {shown.sum():.1f} s could be read; the file is cut short"
    return ImageSequence(np.cumsum(shown) - shown, float(shown.sum()), read, warning=warning)


def _webp_chunks(data: bytes) -> tuple[int, list[float]]:
    """Find where the last whole chunk ends, and how long each frame of an animation is shown, in s."""
    place, durations = 12, []
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        end = place + 8 + size + size % 2
        if end > len(data) + size % 2:
            break
        if kind == b"VP8X" and size >= 10:
            width, height = (
                int.from_bytes(data[place + at : place + at + 3], "little") + 1 for at in (12, 15)
            )
            if width * height > MOST_PIXELS:
                raise VideoError(
                    "unreadable", f"an image of {width} x {height} pixels is too large to decode"
                )
        if kind == b"ANMF" and size >= 16:
            durations.append(int.from_bytes(data[place + 20 : place + 23], "little") / 1000 or UNTOLD)
        place = end
    return min(place, len(data)), durations
