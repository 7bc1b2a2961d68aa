"""The stream to watch, of several; and when it is shown, by the container's clock."""

from __future__ import annotations

import struct
import types
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.video_files import frame_number, numbered_frame, patched, write_video, write_with_sound
from zsar_cli.video import decode, times
from zsar_cli.video.decode import iter_frames, planned_info, read_frames
from zsar_cli.video.probe import read_index

PICTURE = 1000  # the number that other streams' frames show


def write_streams(path: Path, *streams: dict[str, Any], rate: int = 20) -> Path:
    """A file of several video streams; each with ``frames`` numbers to show, and how."""
    with av.open(str(path), "w") as output:
        added = []
        for about in streams:
            stream: Any = output.add_stream(about.get("codec", "libx264"), rate=rate)
            stream.width, stream.height = about.get("size", (160, 64))
            stream.pix_fmt = about.get("pixel_format", "yuv420p")
            stream.codec_context.time_base = Fraction(1, rate)
            stream.codec_context.thread_count = 1
            stream.disposition = av.stream.Disposition[about.get("disposition", "default")]
            added.append(stream)
        for stream, about in zip(added, streams, strict=True):
            for tick, number in enumerate(about["frames"]):
                pixels = numbered_frame(number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = tick * about.get("step", 1), Fraction(1, rate)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return path


VIDEO = {"frames": range(40)}
JPEG = {"codec": "mjpeg", "pixel_format": "yuvj420p"}
OTHERS = {
    "a thumbnail": {"frames": [PICTURE], "size": (320, 180), **JPEG},
    "an attached picture": {"frames": [PICTURE], "disposition": "attached_pic", **JPEG},
    "slides": {"frames": [PICTURE] * 3, "step": 13, "size": (640, 360), **JPEG},
    "a mask": {"frames": [PICTURE] * 40, "codec": "png", "pixel_format": "gray", "size": (320, 128)},
    "small previews": {"frames": [PICTURE] * 40, "size": (32, 16), **JPEG},
    "a stream that is not default": {"frames": [PICTURE] * 40, "disposition": "dub"},
    "a smaller stream": {"frames": [PICTURE] * 40, "size": (80, 32)},
}


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_video_is_found_behind(name: str, suffix: str, tmp_path: Path) -> None:
    if name == "an attached picture" and suffix == "mkv":
        pytest.skip("Matroska has these as attachments")
    other = {**OTHERS[name], "codec": "ffv1"} if name == "a mask" and suffix == "mkv" else OTHERS[name]
    path = write_streams(tmp_path / f"two.{suffix}", other, VIDEO)
    for decoder in decode.DECODERS:
        video = read_frames(path, lambda count: [0, count // 2, count - 1], decoder=decoder)
        assert [frame_number(frame) for frame in video.frames] == [0, 20, 39]
        assert video.warning is None
        assert video.info.duration == pytest.approx(2, abs=0.06)
    streamed = [frame_number(frame) for part in iter_frames(path, rate=1000) for frame in part.frames]
    assert streamed == list(range(40))
    index = read_index(str(path))
    assert index.cuttable


def test_the_first_of_two_streams_alike_is_shown(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "two.mp4", VIDEO, {"frames": [PICTURE] * 40})
    assert [frame_number(frame) for frame in read_frames(path, range).frames] == list(range(40))


def test_a_single_picture_is_a_video_where_there_is_nothing_else(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "one.mkv", {"frames": [7], **JPEG})
    assert [frame_number(frame) for frame in read_frames(path, range).frames] == [7]


def test_reference_files_show_the_video_and_not_its_thumbnail(shared: Path) -> None:
    folder = shared / "cases/video"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    for decoder in decode.DECODERS:
        video = read_frames(folder / "left_thumbnail_first.mkv", range, decoder=decoder)
        assert video.frames.shape == (24, 128, 128, 3)
        assert read_frames(folder / "left.avif", range, decoder=decoder).frames.shape == (12, 128, 128, 3)


# --- the clock ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(("video_at", "sound_at"), [(1.5, 0.0), (0.0, 0.0), (0.0, 1.5), (3.0, 1.5)])
def test_the_first_frame_has_its_time_on_the_containers_clock(
    name: str, video_at: float, sound_at: float, tmp_path: Path
) -> None:
    path = write_with_sound(tmp_path / name, video_at=video_at, sound_at=sound_at)
    right = video_at if name != "a.ts" else max(video_at - sound_at, 0.0)  # its clock begins anywhere
    right = pytest.approx(right, abs=0.05)
    assert planned_info(path).start == right
    for decoder in decode.DECODERS:
        video = read_frames(path, range, decoder=decoder)
        assert video.info.start == right
        assert video.times[0] == 0
        assert video.info.duration == pytest.approx(2, abs=0.06)
        assert video.warning is None
    parts = list(iter_frames(path, rate=4))
    assert parts[-1].info.start == right


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_a_picture_without_sound_that_starts_late_has_its_time_on_the_containers_clock(
    name: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / name, ticks=range(30, 70))
    assert read_frames(path, range).info.start == pytest.approx(1.5, abs=0.01)
    assert read_frames(path, range).info.duration == pytest.approx(2, abs=0.06)


def test_a_longer_sound_is_no_missing_video_in_windows_media(tmp_path: Path) -> None:
    video = read_frames(write_with_sound(tmp_path / "a.wmv", sound_at=8.0), range)
    assert video.warning is None
    assert video.info.duration == pytest.approx(2, abs=0.06)


def test_a_transport_stream_that_starts_anywhere_starts_at_zero(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", ticks=range(2000, 2040))
    assert read_frames(path, range).info.start == 0
    assert read_frames(write_video(tmp_path / "b.avi"), range).info.start == 0


# --- what is missing, and what only seems to be ---------------------------------------------------------------


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_an_avi_with_dropped_frames_keeps_its_length(codec: str, tmp_path: Path) -> None:
    how = {"codec": codec, "pixel_format": "yuvj420p" if codec == "mjpeg" else "yuv420p"}
    ticks = (
        [*range(0, 80, 2), 119] if codec != "libx264" else range(0, 120, 2)
    )  # x264's B-frames are dated earlier
    path = write_video(tmp_path / "dropped.avi", ticks=ticks, **how)
    assert planned_info(path).duration == pytest.approx(6, abs=0.15)
    for decoder in decode.DECODERS:
        video = read_frames(path, range, decoder=decoder)
        assert [frame_number(frame) for frame in video.frames] == list(range(len(ticks)))
        assert video.times == pytest.approx(np.array(ticks) / 20, abs=0.16)
        assert video.info.duration == pytest.approx(6, abs=0.15)
        assert video.warning is None
    parts = list(iter_frames(path, rate=2))
    times = [time for part in parts for time in part.times]
    assert times[:8] == pytest.approx(np.arange(0, 4, 0.5), abs=0.16)
    assert parts[-1].info.duration == pytest.approx(6, abs=0.15)
    assert parts[-1].warning is None


def test_an_avi_that_ends_in_dropped_frames_lasts_until_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "dropped.avi", ticks=[*range(40), 119], codec="mpeg4")
    data = bytearray(path.read_bytes())
    index = data.index(b"idx1") + 8
    place, size = struct.unpack_from("<II", data, len(data) - 8)
    assert (data[len(data) - 16 : len(data) - 12], size > 0) == (b"00dc", True)
    struct.pack_into("<I", data, len(data) - 4, 0)  # the last frame becomes a dropped one
    struct.pack_into("<I", data, data.index(b"movi") + place + 4, 0)
    assert index < len(data) - 16
    path.write_bytes(data)
    for decoder in decode.DECODERS:
        video = read_frames(path, range, decoder=decoder)
        assert video.info.frame_count == 40
        assert video.info.duration == pytest.approx(6, abs=0.06)
        assert video.warning is None


def test_an_avi_that_starts_with_dropped_frames_starts_late(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.avi", ticks=[0, *range(30, 70)], codec="mpeg4")
    data = bytearray(path.read_bytes())
    index = data.index(b"idx1") + 8
    place, _ = struct.unpack_from("<II", data, index + 8)
    for at in (index + 12, data.index(b"movi") + place + 4):
        struct.pack_into("<I", data, at, 0)
    path.write_bytes(data)
    info = planned_info(path)
    assert (info.start, info.duration) == (pytest.approx(1.5, abs=0.06), pytest.approx(2, abs=0.06))


def test_a_cut_avi_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.avi", 80, codec="mpeg4", size=(640, 256))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    assert "of 4.0 s could be read" in (read_frames(path, range).warning or "")


def test_the_last_frame_lasts_as_long_every_way(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slides.mp4", ticks=[0, 10, 11, 40], rate=10)
    lengths = {round(read_frames(path, range, decoder=name).info.duration, 3) for name in decode.DECODERS}
    lengths |= {
        round(planned_info(path).duration, 3),
        round(list(iter_frames(path, rate=1000))[-1].info.duration, 3),
    }
    assert len(lengths) == 1


def test_stamps_in_the_order_of_decoding_are_put_in_order() -> None:
    index = read_index_stub()
    assert times._in_order([2, 8, 6, 10, 4], index).tolist() == [2, 4, 6, 8, 10]
    assert times._in_order([0, 2, 50_000, 4], index) is None  # a clock that was set anew
    assert times._in_order([0, 2, 2], index) is None
    assert times._in_order([0, None], index) is None


def read_index_stub() -> Any:
    return types.SimpleNamespace(time_base=0.001)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_cut_file_gives_the_same_frames_every_way_wherever_its_sound_is(name: str, tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / name, sound_last=True, frames=200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    counts = {read_frames(path, range, decoder=name).info.frame_count for name in decode.DECODERS}
    counts.add(sum(len(part.frames) for part in iter_frames(path, rate=1000)))
    assert len(counts) == 1
    assert counts.pop() > 50


def test_what_comes_before_the_first_key_frame_is_no_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 60, options={"x264-params": "keyint=20:scenecut=0:bframes=0"})
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[places[5] :])
    video = read_frames(path, range)
    assert [frame_number(frame) for frame in video.frames][-40:] == list(range(20, 60))
    assert video.warning == "only 2.0 of 2.8 s could be read"  # missing, not damaged


def test_reference_files_have_their_length_and_no_false_warning(shared: Path) -> None:
    folder = shared / "cases/video"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    for decoder in decode.DECODERS:
        dropped = read_frames(folder / "h264_null_chunks.avi", range, decoder=decoder)
        assert dropped.info.duration == pytest.approx(12, abs=0.1)
        assert dropped.warning is None
        fields = read_frames(folder / "field_coded.h264", range, decoder=decoder)
        assert (fields.info.frame_count, fields.warning) == (10, None)
        assert fields.info.duration == pytest.approx(0.4, abs=0.01)
        cut = read_frames(folder / "cut_with_subtitles.mp4", range, decoder=decoder)
        assert cut.info.frame_count == 138
        assert cut.warning == "only 5.6 of 12.0 s could be read"
    parts = list(iter_frames(folder / "cut_with_subtitles.mp4", rate=1000))
    assert sum(len(part.frames) for part in parts) == 138
    assert read_frames(folder / "video_starts_late.mp4", range).info.start == pytest.approx(1.5)


def test_a_broken_header_of_pixels_is_bounded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3, aspect=Fraction(2))
    patched(path, (b"pasp", 4, b"\0\0\0\2\0\0\0\0"))
    assert read_frames(path, range).frames.shape[1] == 64
