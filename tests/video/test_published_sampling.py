"""Frames that published models are tested on, against a plain reading of how their authors choose them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zsar_cli.video.pool import ClipRequest, load_clip
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.transforms import Preprocess

Plain = Callable[[int, int, int, float], list[list[int]]]


def centres(count: int, frames: int, views: int, rate: float) -> list[list[int]]:
    """mmaction's: N/T apart, the first half of that from the start."""
    return [[math.floor(i * (count / frames) + count / frames / 2) for i in range(frames)]]


def ticks(count: int, frames: int, views: int, rate: float) -> list[list[int]]:
    """MoTE's: N/T apart, each view some frames later."""
    found = []
    for view in range(views):
        start = math.floor(view * (count / frames - 1) / (views - 1)) if views > 1 else 0
        found.append([math.floor(start + i * count / frames) for i in range(frames)])
    return found


def spans(count: int, frames: int, views: int, rate: float) -> list[list[int]]:
    """SlowFast's: clips of T times 16/30 s; one that is too long stays on the last frame."""
    length = frames * 16 * rate / 30
    found = []
    for view in range(views):
        room = max(count - length, 0)
        start = view * math.floor(room / (views - 1)) if views > 1 else math.floor(room / 2)
        places = [start + i * (length - 1) / (frames - 1) for i in range(frames)]
        found.append([min(math.floor(place), count - 1) for place in places])
    return found


def steps(count: int, frames: int, views: int, rate: float) -> list[list[int]]:
    """ViCLIP's: every N//T-th."""
    return [list(range(count))[:: count // frames][:frames]] * views


def ends(count: int, frames: int, views: int, rate: float) -> list[list[int]]:
    """PE-Core's: from the first to the last."""
    return [[math.floor(i * (count - 1) / (frames - 1)) for i in range(frames)]] * views


WAYS: dict[str, Plain] = {"segments": centres, "ticks": ticks, "spans": spans, "steps": steps, "ends": ends}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frames", [8, 16, 32])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_frames_are_those_of_a_plain_reading(way: str, frames: int, views: int) -> None:
    if way == "segments" and views > 1:
        pytest.skip("the authors draw several views by chance")
    for count in (32, 33, 61, 100, 299, 300, 301, 1801):
        for rate in (25.0, 30.0, 30000 / 1001):
            found = view_indices(count, Sampling(frames, views, way), rate=rate)  # type: ignore[arg-type]
            plain = np.array(WAYS[way](count, frames, views, rate))
            assert np.abs(found - plain).max() <= 1  # at whole numbers, arithmetic may fall on either side
            assert (found != plain).mean() < 0.02


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_a_video_with_fewer_frames_than_asked_for_repeats_some(way: str, count: int) -> None:
    found = view_indices(count, Sampling(8, 3, way), rate=25.0)  # type: ignore[arg-type]
    assert found.shape == (3, 8)
    assert found.min() >= 0
    assert found.max() < count
    assert (np.diff(found, axis=1) >= 0).all()


def test_known_values() -> None:
    assert view_indices(80, Sampling(8, 3, "ticks")).tolist() == [
        [0, 10, 20, 30, 40, 50, 60, 70],
        [4, 14, 24, 34, 44, 54, 64, 74],
        [9, 19, 29, 39, 49, 59, 69, 79],
    ]
    assert view_indices(300, Sampling(8, 3, "spans"), rate=30.0)[:, [0, -1]].tolist() == [
        [0, 127],
        [86, 213],
        [172, 299],
    ]
    assert view_indices(60, Sampling(8, 1, "spans"), rate=30.0).tolist() == [[0, 18, 36, 54, 59, 59, 59, 59]]
    assert view_indices(100, Sampling(8, 1, "steps")).tolist() == [[0, 12, 24, 36, 48, 60, 72, 84]]
    assert view_indices(100, Sampling(8, 1, "ends")).tolist() == [[0, 14, 28, 42, 56, 70, 84, 99]]


@pytest.mark.parametrize("way", ["segments", "ticks", "spans", "ends"])
@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "applying_eye_makeup.avi"])
def test_frames_of_a_video_are_those_of_a_plain_reading(shared: Path, way: str, name: str) -> None:
    views = 1 if way == "segments" else 3
    request = ClipRequest(str(shared / "videos" / name), Sampling(8, views, way), Preprocess(size=(8, 8)))  # type: ignore[arg-type]
    clip = load_clip(request)
    plain = WAYS[way](clip.info.frame_count, 8, views, clip.info.fps)
    assert np.abs(clip.indices - np.array(plain)).max() <= 1
