"""Frames to model input: resize and crop with Pillow in the decode worker, normalise with torch by the model.

The geometry (which size, which crop, how it rounds) is that of open_clip's inference transform, so the pixels
are the same bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import torch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bicubic", "bilinear", "linear")
RESIZE_MODES = ("shortest", "squash", "longest", "larger")
LARGER = 8 / 7  # of the model's size: 256 for 224
LARGEST = 4096  # pixels of a side that a model may want
# A strip longer than this many model widths is cut down before it is resized: a 1 x 5000 frame would
# otherwise become a million pixels wide.
LONGEST_STRIP = 16


@dataclass(frozen=True)
class Preprocess:
    """What a model wants to see. ``size`` is (height, width); ``mean`` and ``std`` are for values in [0, 1].

    ``resize_mode``: ``shortest`` scales the shorter side to fit and crops the rest, ``squash`` ignores the
    aspect ratio, ``longest`` fits the whole frame and pads with ``fill_color``, ``larger`` scales the shorter side to
    8/7 of the size and crops its centre. ``interpolation``: ``bicubic`` and ``bilinear`` smooth what they make smaller,
    ``linear`` does not, as OpenCV's and torch's own.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    def __post_init__(self) -> None:
        """Refuse what no model can mean."""
        if self.resize_mode not in RESIZE_MODES:
            raise ValueError(f"resize_mode must be {', '.join(RESIZE_MODES)}, not {self.resize_mode!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")
        sizes = isinstance(self.size, tuple) and len(self.size) == 2
        if not sizes or not all(type(side) is int and 1 <= side <= LARGEST for side in self.size):
            raise ValueError(f"size must be two numbers from 1 to {LARGEST}, not {self.size!r}")
        for name, least in (("mean", -math.inf), ("std", 0)):
            values = getattr(self, name)
            if len(values) != 3 or not all(least < float(v) < math.inf for v in values):
                raise ValueError(f"{name} must be three numbers, and std above 0, not {values!r}")
        if type(self.fill_color) is not int or not 0 <= self.fill_color <= 255:
            raise ValueError(f"fill_color must be a number from 0 to 255, not {self.fill_color!r}")


@dataclass(frozen=True)
class Augmentation:
    """Training-time changes, drawn once a clip so that its frames stay consistent."""

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    colour_jitter: float = 0.4
    grey: float = 0.0
    multiscale: bool = False  # crops as TSN's MultiScaleCrop, in place of scale and ratio


def resize_and_crop(frames: np.ndarray, preprocess: Preprocess, *, crops: int = 1) -> np.ndarray:
    """Resize frames (..., H, W, 3) uint8 to the model's size.

    Returns:
        With one crop, the centre: (..., h, w, 3). With three, (3, ..., h, w, 3): left, centre and right (or top to
        bottom) along the longer side. The shorter side is then always scaled to fit, whatever the resize mode.
    """
    if crops not in (1, 3):
        raise ValueError(f"crops must be 1 or 3, not {crops}")
    if crops == 1 and frames.shape[-3:-1] == tuple(preprocess.size) and preprocess.resize_mode != "larger":
        return np.ascontiguousarray(frames)  # there is nothing to do
    leading = frames.shape[:-3]
    flat = frames.reshape(-1, *frames.shape[-3:])
    done = np.stack([_one_frame(frame, preprocess, crops) for frame in flat])  # (F, crops, h, w, 3)
    done = done.reshape(*leading, crops, *preprocess.size, 3)
    return done[..., 0, :, :, :] if crops == 1 else np.moveaxis(done, len(leading), 0)


def random_crop_box(
    height: int, width: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a random resized crop (Inception's), its area and aspect from the ranges.

    Of ten draws the first that fits counts. If none fits, it is the largest centred box whose aspect is allowed.

    Returns:
        (left, top, right, bottom).
    """
    if augmentation.multiscale:
        return multiscale_box(height, width, rng)
    low, high = math.log(augmentation.ratio[0]), math.log(augmentation.ratio[1])
    for _ in range(10):
        area = height * width * rng.uniform(*augmentation.scale)
        aspect = math.exp(rng.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(rng.integers(0, width - box_width + 1))
            top = int(rng.integers(0, height - box_height + 1))
            return left, top, left + box_width, top + box_height
    aspect = min(max(width / height, augmentation.ratio[0]), augmentation.ratio[1])
    box_width = max(1, min(width, round(height * aspect)))
    box_height = max(1, min(height, round(width / aspect)))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


SIDES = (1.0, 0.875, 0.75, 0.66)  # of a crop, as parts of the frame's shorter side


def multiscale_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a crop as TSN's MultiScaleCrop: its sides from :data:`SIDES`, at most one apart, at one of 13 places.

    These are a grid of five by five, from edge to edge, of which every other place counts.
    """
    sides = [round(min(height, width) * side) for side in SIDES]
    pairs = [(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1]
    box_height, box_width = pairs[rng.integers(len(pairs))]
    places = [(down, across) for down in range(5) for across in range(5) if (down + across) % 2 == 0]
    down, across = places[rng.integers(len(places))]
    top, left = down * ((height - box_height) // 4), across * ((width - box_width) // 4)
    return left, top, left + box_width, top + box_height


def normalise(pixels: torch.Tensor, preprocess: Preprocess, dtype: Any = None) -> torch.Tensor:
    """Turn uint8 (..., h, w, 3) into (..., 3, h, w) in ``dtype`` (default float32), as ToTensor and Normalize do."""
    import torch

    mean, std = (values.to(pixels.device) for values in statistics(preprocess))
    return to_floats(pixels, mean, std, dtype or torch.float32)


def statistics(preprocess: Preprocess) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the mean and the standard deviation of the channels as float32 (3, 1, 1)."""
    import torch

    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (preprocess.mean, preprocess.std))
    return mean.view(3, 1, 1), std.view(3, 1, 1)


def to_floats(
    pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Compute :func:`normalise` with mean and standard deviation that are on the pixels' device.

    ``pixels`` may also be float32 from 0 to 255.
    """
    return pixels.movedim(-1, -3).div(255).sub_(mean).div_(std).to(dtype)


def _one_frame(frame: np.ndarray, preprocess: Preprocess, crops: int) -> np.ndarray:
    """Resize (H, W, 3) to (crops, h, w, 3)."""
    height, width = preprocess.size
    image = Image.fromarray(np.ascontiguousarray(frame))
    if crops == 1 and preprocess.resize_mode == "squash":
        return np.asarray(scale_frame(image, (width, height), preprocess))[None]
    if crops == 1 and preprocess.resize_mode == "longest":
        ratio = max(image.height / height, image.width / width)
        scaled = max(1, round(image.width / ratio)), max(1, round(image.height / ratio))
        image = scale_frame(image, scaled, preprocess)
        image = _pad(image, preprocess)
        return np.asarray(_crop(image, preprocess.size, 0.5))[None]
    larger = LARGER if crops == 1 and preprocess.resize_mode == "larger" else 1.0
    image = _scale_shortest(_cut_strip(image, preprocess.size), preprocess, larger)
    places = (0.5,) if crops == 1 else (0.0, 0.5, 1.0)
    return np.stack(
        [np.asarray(_crop(image, preprocess.size, place, _start(preprocess))) for place in places]
    )


def _scale_shortest(image: Image.Image, preprocess: Preprocess, larger: float) -> Image.Image:
    height, width = (round(side * larger) for side in preprocess.size)
    if height == width:  # the longer side rounds down, as torchvision's does; to nearest, as mmcv's
        half = 0.5 if preprocess.resize_mode == "larger" else 0.0
        if image.width <= image.height:
            scaled = (width, int(width * image.height / image.width + half))
        else:
            scaled = (int(height * image.width / image.height + half), height)
        return scale_frame(image, scaled, preprocess)
    # timm's rule, which open_clip uses for targets that are not square: round to nearest, always bicubic
    ratio = min(image.height / height, image.width / width)
    return image.resize((round(image.width / ratio), round(image.height / ratio)), Image.Resampling.BICUBIC)


def _cut_strip(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    ratio = min(image.height / size[0], image.width / size[1])
    longest_height, longest_width = (max(1, int(LONGEST_STRIP * side * ratio)) for side in size)
    if image.height <= longest_height and image.width <= longest_width:
        return image
    return _crop(image, (min(longest_height, image.height), min(longest_width, image.width)), 0.5)


def _crop(
    image: Image.Image, size: tuple[int, int], place: float, start: Callable[[float], int] = round
) -> Image.Image:
    """Cut a window of ``size`` out. ``place``: 0 is left or top, 0.5 the centre, 1 right or bottom."""
    height, width = size
    left, top = start((image.width - width) * place), start((image.height - height) * place)
    return image.crop((left, top, left + width, top + height))


def _start(preprocess: Preprocess) -> Callable[[float], int]:
    """Choose where a crop begins that falls between two pixels: mmaction takes the first, SlowFast the second."""
    if preprocess.resize_mode == "larger":
        return math.floor
    return math.ceil if preprocess.interpolation == "linear" else round


def _pad(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Pad to at least the model's size. An odd pixel goes to the right and the bottom."""
    missing_height = max(preprocess.size[0] - image.height, 0)
    missing_width = max(preprocess.size[1] - image.width, 0)
    if not (missing_height or missing_width):
        return image
    border = (missing_width // 2, missing_height // 2, (missing_width + 1) // 2, (missing_height + 1) // 2)
    return ImageOps.expand(image, border, fill=(preprocess.fill_color,) * 3)


def _filter(preprocess: Preprocess) -> Image.Resampling:
    # open_clip knows two filters; anything but bilinear (its "random" too) means bicubic at inference
    return Image.Resampling.BILINEAR if preprocess.interpolation == "bilinear" else Image.Resampling.BICUBIC


def scale_frame(image: Image.Image, size: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    """Scale to (width, height)."""
    if preprocess.interpolation == "linear":
        return Image.fromarray(resize_linear(np.asarray(image), size[1], size[0]))
    return image.resize(size, _filter(preprocess))


def resize_linear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 between the four nearest pixels, however much smaller it gets.

    Pixel i of n lies at ``(i + 0.5) N/n - 0.5``: OpenCV's ``INTER_LINEAR``, and torch's ``interpolate`` with
    ``mode="bilinear"`` and neither ``antialias`` nor ``align_corners``. Rounds to nearest.
    """
    above, below, down = _neighbours(frame.shape[0], height)
    left, right, across = _neighbours(frame.shape[1], width)
    upper, lower = frame[above].astype(np.float32), frame[below].astype(np.float32)
    rows = upper + (lower - upper) * down[:, None, None]
    between = rows[:, left] + (rows[:, right] - rows[:, left]) * across[:, None]
    rounded: np.ndarray = (between + 0.5).astype(np.uint8)
    return rounded


def _neighbours(count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pixels of a side on either side of each wanted one, and how far it is from the first of them."""
    place = np.clip((np.arange(wanted) + 0.5) * (count / wanted) - 0.5, 0, count - 1)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, count - 1), (place - first).astype(np.float32)
