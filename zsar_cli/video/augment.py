"""What chance does to a training clip: its box is cut out where it is decoded, the rest is done where the model is.

So a small crop goes through the pipe as it was decoded, and the device resizes whole clips and changes their colours at
once. On a CPU the same functions run there. A clip's pixels follow from its visit's seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from zsar_cli.video.transforms import Augmentation, Preprocess, random_crop_box, scale_frame

if TYPE_CHECKING:
    from torch import Tensor

MOST_SENT = 4  # times the pixels that the model sees: beyond that, copying a crop costs more than resizing it
GREY = (0.2989, 0.587, 0.114)  # shares of red, green and blue, as torchvision's


class Cutter:
    """Cuts the same box out of every frame of a clip, with the same flip: (H, W, 3) to (1, h, w, 3).

    A box of few pixels keeps its size; a larger one is resized to what the model sees.
    """

    def __init__(self, augmentation: Augmentation, preprocess: Preprocess, seed: int) -> None:
        self.augmentation, self.preprocess, self.seed = augmentation, preprocess, seed
        self._size: tuple[int, int] | None = None  # the first frame's: a stream may change half way

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Cut and perhaps resize a frame."""
        rng = np.random.default_rng([self.seed, 1])
        left, top, right, bottom = random_crop_box(frame.shape[0], frame.shape[1], self.augmentation, rng)
        flip = bool(rng.random() < self.augmentation.flip)
        part = frame[top:bottom, left:right]
        if self._size is None:
            height, width = self.preprocess.size
            small = part.shape[0] * part.shape[1] <= MOST_SENT * height * width
            self._size = (part.shape[0], part.shape[1]) if small else (height, width)
        if part.shape[:2] == self._size and not flip:
            return np.ascontiguousarray(part)[None]
        image = Image.fromarray(np.ascontiguousarray(part))
        if part.shape[:2] != self._size:
            image = scale_frame(image, self._size[::-1], self.preprocess)
        return np.asarray(ImageOps.mirror(image) if flip else image)[None]


def fit(frames: Tensor, preprocess: Preprocess) -> Tensor:
    """Resize frames (T, H, W, 3) uint8 to the model's size where they are, within a level or two of Pillow's."""
    import torch
    from torch.nn import functional as F

    if frames.shape[1:3] == preprocess.size:
        return frames
    mode = "bicubic" if preprocess.interpolation == "bicubic" else "bilinear"
    options: dict[str, Any] = {"mode": mode, "antialias": preprocess.interpolation != "linear"}
    channels_first = frames.movedim(-1, -3)
    if frames.device.type == "cpu":
        resized = F.interpolate(channels_first, preprocess.size, **options)
    else:  # only CPUs have kernels for bytes
        resized = F.interpolate(channels_first.to(torch.float32), preprocess.size, **options)
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized.movedim(-3, -1)


def draw_colours(augmentation: Augmentation, seeds: Sequence[int]) -> Tensor | None:
    """Draw how the colours of each clip change: (B, 4), or None where they do not.

    The factors of brightness, contrast and saturation, in [1 - j, 1 + j]; then 1 for a clip that loses all colour.
    """
    import torch

    jitter = augmentation.colour_jitter
    if not (jitter or augmentation.grey) or not seeds:
        return None
    drawn = torch.cat([torch.rand(1, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    factors = (1 + jitter * (2 * drawn[:, :3] - 1)).clamp_(min=0)
    return torch.cat([factors, (drawn[:, 3:] < augmentation.grey).to(torch.float32)], dim=1)


def change_colours(pixels: Tensor, colours: Tensor) -> Tensor:
    """Change the colours of clips (B, T, h, w, 3) uint8 on their device.

    Args:
        colours: as :func:`draw_colours` gives them, on the CPU.

    Returns:
        float32 from 0 to 255, whole numbers, as torchvision's changes of uint8 are.
    """
    import torch

    changed = pixels.to(torch.float32)
    at_once = 1 if pixels.device.type == "cpu" else len(pixels)  # a clip stays in a CPU's cache
    jitter, grey = bool((colours[:, :3] != 1).any()), bool(colours[:, 3].any())
    factors = colours.to(pixels.device, non_blocking=True)
    for part, of_part in zip(changed.split(at_once), factors.split(at_once), strict=True):
        brightness, contrast, saturation, lost = of_part[..., None, None, None, None].unbind(1)
        if jitter:
            _whole(part.mul_(brightness))
            mean = _grey(part).mean(dim=(-3, -2, -1), keepdim=True)
            _whole(part.mul_(contrast).add_(mean.mul_(1 - contrast)))
            colourless = _grey(part).mul_(1 - saturation)
            _whole(part.mul_(saturation).add_(colourless))
        if grey:
            part.lerp_(_grey(part).expand_as(part), lost.expand_as(part))
    return changed


def _grey(pixels: Tensor) -> Tensor:
    """Compute the brightness (..., 1) of pixels (..., 3)."""
    red, green, blue = pixels.unbind(-1)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).floor_()[..., None]


def _whole(values: Tensor) -> None:
    values.clamp_(0, 255).floor_()
