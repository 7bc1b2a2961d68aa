"""Frames of any size, headers that lie, and many videos one after the other."""

from __future__ import annotations

import struct
from pathlib import Path

import psutil
import pytest

from tests.video_files import frame_number, patched, write_video
from zsar_cli.errors import VideoError
from zsar_cli.video.decode import iter_frames, read_frames
from zsar_cli.video.pool import ClipRequest, DecodePool, load_clip
from zsar_cli.video.transforms import Preprocess

SMALL = Preprocess(size=(64, 160))


def all_numbers(path: Path) -> list[int]:
    return [frame_number(frame) for frame in read_frames(path, range).frames]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("one.mp4", "libx264", "yuv444p"), ("one.avi", "mpeg4", "yuv420p"), ("one.gif", "gif", "rgb8")],
)
def test_frames_of_one_pixel(name: str, codec: str, pixel_format: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, 3, codec=codec, pixel_format=pixel_format, size=(1, 1))
    clip = load_clip(ClipRequest(str(path), crops=3))
    assert (clip.info.width, clip.info.height, clip.info.frame_count) == (1, 1, 3)
    assert clip.pixels.shape == (3, 8, 224, 224, 3)


@pytest.mark.slow
def test_frames_of_8k_fit_into_a_worker(tmp_path: Path) -> None:
    path = write_video(tmp_path / "8k.mp4", 2, size=(7680, 4320), options={"preset": "ultrafast"})
    with DecodePool(1, memory_limit_mb=1024) as pool:
        ((_, clip),) = pool.imap([ClipRequest(str(path), preprocess=SMALL)])
    assert (clip.info.width, clip.info.height) == (7680, 4320)
    assert [frame_number(frame) for frame in clip.pixels[0]] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_header_that_claims_gigabytes_a_frame_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "huge.gif", 2, codec="gif", pixel_format="rgb8", size=(20, 10))
    patched(path, (b"GIF8", 6, b"\xff\xff\xff\xff"))
    with pytest.raises(VideoError) as caught:
        read_frames(path, range)
    assert caught.value.kind in ("unreadable", "memory")


def test_a_rate_of_zero(tmp_path: Path) -> None:
    path = write_video(tmp_path / "zero.avi", 20, codec="mpeg4")
    patched(path, (b"strh", 32, bytes(4)), (b"avih", 8, bytes(4)))
    assert all_numbers(path) == list(range(20))
    video = read_frames(path, range)
    assert video.info.fps > 0
    assert video.info.duration > 0
    # All frames at one time: their order is what is left
    path = write_video(tmp_path / "zero.mp4", 20, options={"bf": "0"})
    patched(path, (b"stts", 16, bytes(4)))
    assert all_numbers(path) == list(range(20))


def test_ten_hours_claimed(tmp_path: Path) -> None:
    """What is there is used, and where the header is all there is to tell the length, the difference is told."""
    path = write_video(tmp_path / "hours.mkv", 20)
    patched(path, (b"00:00:01.", 0, b"10:00:00."))
    video = read_frames(path, range)
    assert [frame_number(frame) for frame in video.frames] == list(range(20))
    assert video.info.duration == pytest.approx(1, abs=0.06)
    assert video.warning == "only 1.0 of 36000.0 s could be read"
    assert list(iter_frames(path, rate=1))[-1].warning == video.warning
    # MP4 tells each frame's time besides, so there the header does not count
    path = write_video(tmp_path / "hours.mp4", 20)
    hours = struct.pack(">I", 0x7FFFFFFF)
    patched(path, (b"mvhd", 20, hours), (b"tkhd", 24, hours), (b"mdhd", 20, hours))
    video = read_frames(path, range)
    assert video.info.duration == pytest.approx(1, abs=0.06)
    assert all_numbers(path) == list(range(20))


@pytest.mark.slow
def test_memory_is_flat_over_thousands_of_videos(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", 3, size=(32, 32))
    process = psutil.Process()
    for number in range(2500):
        read_frames(path, lambda count: [0, count - 1])
        if number == 500:
            before = process.memory_info().rss
    assert process.memory_info().rss - before < 2.2e6  # `make soak` opens 5,000
