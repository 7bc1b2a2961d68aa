"""Folders of frames and animated WebP: the order, the depth, the formats, and what is not read."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video_files import frame_number, numbered_frame
from zsar_cli.errors import VideoError
from zsar_cli.video.decode import DECODERS, iter_frames, planned_info, read_frames
from zsar_cli.video.images import image_files


def numbers(path: Path) -> list[int]:
    return [frame_number(frame) for frame in read_frames(path, range).frames]


@pytest.mark.parametrize(
    "names",
    [
        ["img_1", "img_2", "img_10"],
        ["t_0.000", "t_0.083", "t_0.917", "t_1.000", "t_1.083", "t_10.000"],
        ["a1_b2", "a1_b10", "a2_b1"],
        ["2024-01-02_9", "2024-01-02_10", "2024-02-01_1"],
        ["000009", "00010", "11"],
        ["IMG_1", "img_2", "IMG_3"],
        ["frame", "frame1", "frame1b", "frame2"],
        ["8", "9", "1" * 200],
    ],
)
def test_frames_come_in_natural_order(names: list[str], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"{name}.png")
    assert numbers(tmp_path) == list(range(len(names)))


def test_hidden_files_are_no_frames(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"a{number}.png")
        (tmp_path / f"._a{number}.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (tmp_path / "Thumbs.db").touch()
    assert [Path(name).name for name in image_files(str(tmp_path))] == ["a0.png", "a1.png", "a2.png"]


# --- depth ----------------------------------------------------------------------------------------------------

GREYS = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)


def saved(folder: Path, image: Image.Image, name: str) -> np.ndarray:
    image.save(folder / name)
    (frame,) = read_frames(folder, lambda count: [0]).frames
    return frame


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("16.png", GREYS.astype(np.uint16) * 257),
        ("16.tiff", GREYS.astype(np.uint16) * 257),
        ("32.tiff", GREYS.astype(np.int32) * 257),
        ("large.tiff", (GREYS * (2**31 - 1.0) / 255).astype(np.int32)),
        ("to_one.tiff", (GREYS / 255).astype(np.float32)),
        ("to_255.tiff", GREYS.astype(np.float32)),
        ("to_65535.tiff", GREYS.astype(np.float32) * 257),
        ("8.png", GREYS),
    ],
)
def test_deep_images_are_scaled_and_not_clipped(name: str, values: np.ndarray, tmp_path: Path) -> None:
    frame = saved(tmp_path, Image.fromarray(values), name)
    assert frame.shape == (16, 16, 3)
    assert frame.dtype == np.uint8
    assert np.abs(frame[..., 0].astype(int) - GREYS).max() <= 1


def test_a_dark_image_of_16_bits_stays_dark(tmp_path: Path) -> None:
    frame = saved(tmp_path, Image.fromarray(np.full((4, 4), 200, np.uint16)), "a.png")
    assert frame.max() <= 1


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"), ("L", "a.png"), ("LA", "a.png"), ("P", "a.png"), ("RGBA", "a.png"), ("RGBA", "a.webp"),
        ("CMYK", "a.jpg"), ("CMYK", "a.tiff"), ("YCbCr", "a.jpg"), ("P", "a.bmp"),
    ],
)  # fmt: skip
def test_every_mode_of_images_becomes_colour(mode: str, name: str, tmp_path: Path) -> None:
    options = {"quality": 95} if name.endswith(("jpg", "webp")) else {}
    image = Image.fromarray(numbered_frame(5)).convert(mode)
    image.save(tmp_path / name, **options)
    assert numbers(tmp_path) == [5]


def test_a_palette_with_transparent_colours(tmp_path: Path) -> None:
    image = Image.fromarray(numbered_frame(6)).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 254))
    assert numbers(tmp_path) == [6]


# --- formats --------------------------------------------------------------------------------------------------


def test_postscript_named_like_a_frame_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program is started"))
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("a program is started"))
    buffer = io.BytesIO()
    Image.fromarray(numbered_frame(1)).save(buffer, "EPS")
    for data in (buffer.getvalue(), b"\xc5\xd0\xd3\xc6" + bytes(26) + buffer.getvalue()):
        (tmp_path / "a.jpg").write_bytes(data)
        with pytest.raises(VideoError, match=r"frame 'a\.jpg' is not an image") as caught:
            read_frames(tmp_path, range)
        assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("format", ["PPM", "TGA", "PCX", "ICO", "PDF", "SGI", "DDS", "JPEG2000", "MPO"])
def test_only_the_formats_that_are_meant_are_read(format: str, tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(1)).save(tmp_path / "a.png", format)
    if format == "MPO":  # a JPEG with more pictures behind it, as some cameras write
        assert numbers(tmp_path) == [1]
        return
    with pytest.raises(VideoError, match="is not an image that can be read"):
        read_frames(tmp_path, range)


def test_images_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    head = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + bytes(40))
    with pytest.raises(VideoError) as caught:
        read_frames(tmp_path, range)
    assert caught.value.kind == "unreadable"
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 54, 40, 14_000, 10_000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(head)
    with pytest.raises(VideoError, match="14000 x 10000"):
        read_frames(tmp_path, range)


# --- the rate -------------------------------------------------------------------------------------------------


def test_the_rate_of_a_folder_is_what_was_said_and_marked_as_assumed(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"a{number}.png")
    usual = read_frames(tmp_path, range)
    assert (usual.info.duration, usual.info.fps, usual.info.assumed) == (pytest.approx(12 / 25), 25, True)
    slow = read_frames(tmp_path, range, image_rate=4)
    assert (slow.info.duration, slow.info.fps, slow.info.assumed) == (3, 4, True)
    assert slow.times == pytest.approx(np.arange(12) / 4)
    assert planned_info(tmp_path, image_rate=4).duration == 3
    parts = list(iter_frames(tmp_path, rate=1, image_rate=4))
    assert [frame_number(frame) for part in parts for frame in part.frames] == [0, 4, 8]


# --- animated WebP --------------------------------------------------------------------------------------------


def write_animation(path: Path, count: int = 12, **options: object) -> Path:
    pictures = [Image.fromarray(numbered_frame(number)) for number in range(count)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif", "a.apng", "webp_by_another_name.mp4"])
def test_animations_are_videos(name: str, tmp_path: Path) -> None:
    format = {"mp4": "WEBP", "apng": "PNG"}.get(name[-4:].strip("."))
    path = write_animation(tmp_path / name, duration=100, **({"format": format} if format else {}))
    for decoder in DECODERS:
        video = read_frames(path, range, decoder=decoder)
        assert [frame_number(frame) for frame in video.frames] == list(range(12))
        assert video.times == pytest.approx(np.arange(12) / 10, abs=0.01)
        assert video.info.duration == pytest.approx(1.2, abs=0.03)
        assert (video.warning, video.info.assumed) == (None, False)
    assert numbers(path) == list(range(12))
    parts = list(iter_frames(path, rate=5))
    assert [frame_number(frame) for part in parts for frame in part.frames] == [0, 2, 4, 6, 8, 10]
    assert planned_info(path).duration == pytest.approx(1.2, abs=0.03)


def test_an_animation_whose_frames_have_their_own_times(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", 4, duration=[500, 40, 40, 1000])
    video = read_frames(path, lambda count: [3, 0, 2])
    assert [frame_number(frame) for frame in video.frames] == [3, 0, 2]
    assert video.times == pytest.approx([0.58, 0, 0.54])
    assert video.info.duration == pytest.approx(1.58)


def test_a_webp_that_shows_one_picture(tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(9)).save(tmp_path / "a.webp", quality=95)
    assert numbers(tmp_path / "a.webp") == [9]


def test_a_cut_webp_gives_what_is_left_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", duration=100)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    video = read_frames(path, range)
    count = video.info.frame_count
    assert 4 < count < 12
    assert [frame_number(frame) for frame in video.frames] == list(range(count))
    assert video.warning == f"only {count / 10:.1f} s could be read; the file is cut short"
    for data in (whole[:20], whole[:12], whole[:30] + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(VideoError, match="WebP"):
            read_frames(path, range)
    path.write_bytes(whole[:24] + b"\xff" * 6 + whole[30:])
    with pytest.raises(VideoError, match="16777216 x 16777216"):
        read_frames(path, range)


def test_reference_folders(shared: Path) -> None:
    folder = shared / "cases/frames"
    if not folder.is_dir():
        pytest.skip("the cases are not here")

    def pixels(name: str) -> np.ndarray:
        return read_frames(folder / name, range).frames.astype(int)

    assert np.array_equal(pixels("seq_16bit"), pixels("seq_8bit"))
    assert np.array_equal(pixels("seq_seconds"), pixels("seq_plain"))
    assert np.abs(pixels("seq_exif") - pixels("seq_plain")).mean() < 3
    assert len(pixels("seq_macos")) == 8
    assert read_frames(shared / "cases/video/left.webp", range).frames.shape == (12, 128, 128, 3)
