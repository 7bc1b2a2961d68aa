"""How published models want their frames, against a plain reading of how their authors prepare them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from zsar_cli.video.decode import read_frames
from zsar_cli.video.sampling import segment_indices
from zsar_cli.video.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
    normalise,
    resize_and_crop,
    resize_linear,
)

MM = Preprocess(
    size=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="linear", resize_mode="larger"
)
SLOW = Preprocess(size=(224, 224), interpolation="linear")
SQUASH = Preprocess(
    size=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="linear", resize_mode="squash"
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def torchs(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = torch.from_numpy(frame).movedim(-1, 0)[None].float()
    found = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=False
    )
    return found[0].movedim(0, -1).numpy()


def mm(frame: np.ndarray) -> np.ndarray:
    """Short side to 256, the other to the nearest number; the crop's start rounds down; normalised on 0 to 255."""
    height, width = frame.shape[:2]
    scale = 256 / min(height, width)
    resized = torchs(frame, int(height * scale + 0.5), int(width * scale + 0.5))
    top, left = (resized.shape[0] - 224) // 2, (resized.shape[1] - 224) // 2
    crop = resized[top : top + 224, left : left + 224]
    return (crop - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])


def slow(frame: np.ndarray) -> np.ndarray:
    """Short side to 224, the other rounds down; the crop's start rounds up."""
    height, width = frame.shape[:2]
    short = min(height, width)
    resized = torchs(frame, math.floor(height / short * 224), math.floor(width / short * 224))
    top, left = math.ceil((resized.shape[0] - 224) / 2), math.ceil((resized.shape[1] - 224) / 2)
    crop = resized[top : top + 224, left : left + 224] / 255
    mean, std = np.array(SLOW.mean), np.array(SLOW.std)
    return (crop - mean) / std


@pytest.mark.parametrize("size", [(240, 320), (256, 340), (426, 240), (31, 47), (225, 224), (400, 711)])
@pytest.mark.parametrize("wanted", [(224, 224), (256, 341), (7, 300)])
def test_linear_is_torchs_without_antialiasing(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    frame = noise(*size)
    assert np.abs(resize_linear(frame, *wanted) - torchs(frame, *wanted)).max() <= 0.51


@pytest.mark.parametrize("size", [(240, 320), (352, 288), (333, 500), (256, 340), (200, 201)])
@pytest.mark.parametrize(("preprocess", "plain"), [(MM, mm), (SLOW, slow)])
def test_pixels_are_those_of_a_plain_reading(preprocess, plain, size) -> None:  # type: ignore[no-untyped-def]
    frame = noise(*size)
    found = normalise(torch.from_numpy(resize_and_crop(frame, preprocess)), preprocess)
    level = 1 / 255 / min(preprocess.std)
    assert np.abs(found.movedim(0, -1).numpy() - plain(frame)).max() <= 0.51 * level


def test_squash_takes_the_whole_frame() -> None:
    frame = noise(240, 320)
    assert np.abs(resize_and_crop(frame, SQUASH) - torchs(frame, 224, 224)).max() <= 0.51


def test_three_crops_of_mm_are_cut_from_a_short_side_of_224() -> None:
    frame = noise(240, 320)
    resized = torchs(frame, 224, 299)
    found = resize_and_crop(frame, MM, crops=3)
    for crop, left in zip(found, (0, 37, 75), strict=True):
        assert np.abs(crop - resized[:, left : left + 224]).max() <= 0.51


@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "flipping_a_pancake.mkv"])
@pytest.mark.parametrize(("preprocess", "plain"), [(MM, mm), (SLOW, slow)])
def test_pixels_of_a_video_are_those_of_a_plain_reading(shared: Path, preprocess, plain, name) -> None:  # type: ignore[no-untyped-def]
    video = read_frames(str(shared / "videos" / name), lambda count: segment_indices(count, 2).tolist())
    for frame in video.frames:
        found = normalise(torch.from_numpy(resize_and_crop(frame, preprocess)), preprocess)
        assert np.abs(found.movedim(0, -1).numpy() - plain(frame)).max() <= 0.51 / 255 / min(preprocess.std)
