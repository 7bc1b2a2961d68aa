"""The right frames, whatever the container and the codec, and whichever way they are reached."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.video_files import frame_number, numbered_frame, repeat_video, write_video
from zsar_cli.errors import VideoError
from zsar_cli.video import decode, seek
from zsar_cli.video.decode import iter_frames, read_frames
from zsar_cli.video.probe import read_index
from zsar_cli.video.sampling import segment_indices

GROUPS = "keyint=12:min-keyint=12:scenecut=0:bframes=3"
X264 = {"x264-params": GROUPS}
X265 = {"x265-params": f"{GROUPS}:open-gop=0:log-level=none"}
HEVC = {"codec": "libx265", "options": X265}
OPEN_HEVC = {"codec": "libx265", "options": {"x265-params": f"{GROUPS}:open-gop=1:log-level=none"}}
VARIABLE = {"ticks": [number * number // 4 + number for number in range(40)], "options": X264}
VP9 = {
    "codec": "libvpx-vp9",
    "options": {"g": "12", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16"},
}
VP8 = {  # no hidden frames come of this content, so the index leaving those out stays untested
    "codec": "libvpx",
    "options": {"g": "12", "deadline": "good", "cpu-used": "4", "auto-alt-ref": "1", "lag-in-frames": "16"},
}
AV1 = {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}}
MPEG2 = {"codec": "mpeg2video", "rate": 25, "options": {"bf": "2"}}
EDIT_LIST = {
    "ticks": range(-10, 30),
    "options": X264,
    "container_options": {"avoid_negative_ts": "disabled", "use_editlist": "1"},
}

# name: (how it is written, whether decoding may start at its key frames)
FILES = {
    "h264.mp4": ({"options": X264}, True),
    "h264.mov": ({"options": X264}, True),
    "h264.mkv": ({"options": X264}, True),
    "h264_open_group.mp4": ({"options": {"x264-params": f"{GROUPS}:open-gop=1"}}, True),
    "h264_variable_rate.mp4": (VARIABLE, True),
    "h264_variable_rate.mkv": (VARIABLE, True),
    "h264_late_start.mp4": ({"ticks": range(30, 70), "options": X264}, True),
    "h264_odd_size.mp4": ({"pixel_format": "yuv444p", "size": (161, 65)}, True),
    "h264_edit_list.mp4": (EDIT_LIST, False),
    "h264.ts": ({"options": X264}, False),
    "h264.avi": ({"options": X264}, False),
    "h264.flv": ({"options": X264}, False),
    "hevc.mp4": (HEVC, True),
    "hevc_open_group.mp4": (OPEN_HEVC, True),
    "hevc_10_bit.mkv": ({**OPEN_HEVC, "pixel_format": "yuv420p10le"}, True),
    "hevc.ts": (HEVC, False),
    "vp8.webm": (VP8, True),
    "vp9.webm": (VP9, True),
    "vp9.mp4": (VP9, True),
    "av1.mkv": (AV1, True),
    "av1.mp4": (AV1, True),
    "mpeg4.avi": ({"codec": "mpeg4"}, True),
    "mpeg4_b_frames.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, True),
    "mpeg4_b_frames.mp4": ({"codec": "mpeg4", "options": {"bf": "2"}}, True),
    "mjpeg.avi": ({"codec": "mjpeg", "pixel_format": "yuvj420p"}, True),
    "mpeg2.mpg": ({**MPEG2, "container": "mpeg"}, False),
    "mpeg2.vob": ({**MPEG2, "container": "vob"}, False),
    "mpeg2.ts": (MPEG2, False),
    "palette.gif": ({"codec": "gif", "pixel_format": "rgb8"}, False),
}


def centres(count: int) -> list[int]:
    return segment_indices(count, 8).tolist()


def numbers(video: decode.DecodedVideo) -> list[int]:
    return [frame_number(frame) for frame in video.frames]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "plain.mp4", options=X264)


@pytest.mark.parametrize("name", FILES)
def test_every_way_gives_the_frames_of_reading_in_sequence(name, tmp_path, monkeypatch):
    how, cuttable = FILES[name]
    codec = how.get("codec", "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV cannot write {codec}")
    path = write_video(tmp_path / name, **how)
    first = 10 if "edit_list" in name else 0
    reference = read_frames(path, range, decoder="pyav")
    assert numbers(reference) == list(range(first, 40))
    assert reference.info.frame_count == 40 - first
    assert reference.warning is None
    assert reference.times[0] == 0
    assert (np.diff(reference.times) > 0).all()
    (threaded,) = iter_frames(path, rate=1e9, chunk=40, threads=4)
    assert np.array_equal(threaded.frames, reference.frames)
    assert threaded.times == pytest.approx(reference.times)
    if "ticks" in how:
        ticks = np.asarray(how["ticks"])[first:]
        assert reference.times == pytest.approx((ticks - ticks[0]) / 20, abs=0.002)
    index = read_index(str(path))
    assert index.cuttable == cuttable
    assert index.frame_count == 40 - first
    if not cuttable:
        return
    monkeypatch.setattr(seek, "SEEK_GAIN", 0.0)
    for number in range(40):  # each frame alone, reached from the key frame before it
        found = seek.read_seeking(str(path), index, lambda _, number=number: [number], None)
        assert found is not None
        assert np.array_equal(found.frames[0], reference.frames[number]), number
        assert found.times[0] == pytest.approx(reference.times[number])
    monkeypatch.setattr(seek, "SEEK_GAIN", -1.0)  # however little it spares
    for chosen in (centres(40 - first), list(range(40 - first)), [5, 1, 5, 30 - first]):
        for threads in (1, 4):
            found = seek.read_seeking(str(path), index, lambda _, chosen=chosen: chosen, None, threads)
            assert found is not None
            assert np.array_equal(found.frames, reference.frames[chosen])


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "vp9.webm", "mpeg4.avi", "hevc.mp4", "mpeg2.ts"])
def test_forced_decord_and_iter_frames_agree_with_the_reference(name, tmp_path):
    path = write_video(tmp_path / name, **FILES[name][0])
    streamed = [
        frame_number(frame) for part in iter_frames(path, rate=1000, chunk=3) for frame in part.frames
    ]
    assert streamed == list(range(40))
    if name == "mpeg2.ts":
        return  # decord answers with other frames here, which is why nothing uses it unasked
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    assert numbers(read_frames(path, centres, decoder="decord")) == centres(40)


def test_long_videos_are_not_decoded_from_end_to_end(plain, tmp_path, monkeypatch):
    path = repeat_video(plain, tmp_path / "long.mp4", 100)
    converted = []
    monkeypatch.setattr(decode, "_read_in_sequence", lambda *_: pytest.fail("read in sequence"))
    video = read_frames(path, centres, resize=lambda frame: converted.append(1) or frame)
    assert video.info.frame_count == 4000
    assert video.info.duration == pytest.approx(200, abs=0.5)
    assert numbers(video) == [number % 40 for number in centres(4000)]
    assert len(converted) == 8


def test_where_seeking_disagrees_with_the_index_the_file_is_read_in_sequence(plain, tmp_path, monkeypatch):
    path = repeat_video(plain, tmp_path / "long.mp4", 20)
    monkeypatch.setattr(seek, "_decode_run", lambda *_: False)
    assert numbers(read_frames(path, centres)) == [number % 40 for number in centres(800)]


def test_a_video_that_is_left_early_leaks_no_packet(plain, monkeypatch):
    class Reading:  # PyAV's generator gives its packet back when it is closed, and not when it is merely dropped
        def __init__(self, packets):
            self.packets, self.open = packets, True

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.packets)

        def close(self):
            self.packets.close()
            self.open = False

    class Container:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def demux(self, streams):
            readings.append(Reading(self.container.demux(streams)))
            return readings[-1]

    readings: list[Reading] = []
    really_open = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: Container(really_open(*args, **options)))
    video = read_frames(plain, lambda _: [14])
    next(iter_frames(plain, rate=20, chunk=1))
    assert frame_number(video.frames[0]) == 14
    assert len(readings) == 4
    assert not any(reading.open for reading in readings)


def test_any_order_repeats_and_few_frames(tmp_path):
    path = write_video(tmp_path / "three.mp4", 3)
    assert numbers(read_frames(path, lambda count: [2, 0, 2, 1])) == [2, 0, 2, 1]
    assert numbers(read_frames(path, centres)) == [0, 0, 0, 1, 1, 2, 2, 2]
    one = read_frames(write_video(tmp_path / "one.mp4", 1), centres)
    assert numbers(one) == [0] * 8
    assert one.info.frame_count == 1


def test_resizing_happens_frame_by_frame(plain):
    video = read_frames(plain, centres, resize=lambda frame: frame[::2, ::2])
    assert video.frames.shape == (8, 32, 80, 3)
    assert (video.info.width, video.info.height) == (160, 64)
    assert numbers(video) == centres(40)


def test_frames_at_a_rate(plain):
    parts = list(iter_frames(plain, rate=4, chunk=3))
    assert [len(part.frames) for part in parts] == [3, 3, 2]
    assert [time for part in parts for time in part.times] == pytest.approx(np.arange(8) / 4)
    assert [number for part in parts for number in numbers(part)] == list(range(0, 40, 5))


@pytest.mark.parametrize(("damaged", "threads"), [(False, [4]), (True, [4, 1])])
def test_several_threads_decode_until_something_is_damaged(damaged, threads, plain, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    content = bytearray(plain.read_bytes())
    with av.open(str(plain)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][15]
    if damaged:
        content[packet.pos + 4 : packet.pos + 5] = b"\xff"  # the kind of a slice
    path.write_bytes(content)
    alone = [frame for part in iter_frames(path, rate=1e9) for frame in part.frames]
    used = []
    really = decode.opened
    monkeypatch.setattr(decode, "opened", lambda *given: used.append(given[2]) or really(*given))
    together = [frame for part in iter_frames(path, rate=1e9, threads=4) for frame in part.frames]
    assert np.array_equal(together, alone)
    assert used == threads


def test_frames_that_lean_on_damage_are_those_of_reading_in_sequence(tmp_path, monkeypatch):
    texture = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    moving = np.stack([np.roll(texture, 5 * number, axis=1) for number in range(24)])
    options = {"x264-params": "keyint=24:scenecut=0:bframes=3:b-adapt=0:open-gop=0"}
    path = write_video(tmp_path / "a.mp4", picture=moving, options=options, ticks=range(24))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][9]
    assert packet.pts * packet.time_base * 20 == 12  # stored before frames that are shown before it
    content[packet.pos + 20 : packet.pos + 24] = b"\x55\xaa\x55\xaa"
    path.write_bytes(content)
    alone, together = (
        [frame for part in iter_frames(path, rate=1e9, threads=threads) for frame in part.frames]
        for threads in (1, 4)
    )
    assert np.array_equal(together, alone)
    monkeypatch.setattr(seek, "SEEK_GAIN", -1.0)
    for number, threads in ((10, 1), (13, 1), (10, 4), (13, 4)):
        found = read_frames(path, lambda _, number=number: [number], threads=threads)
        assert np.array_equal(found.frames[0], alone[number])


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "mpeg4.avi"])
def test_a_file_cut_short_gives_what_is_left(name, tmp_path):
    options = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = write_video(tmp_path / name, **FILES[name][0], container_options=options, size=(640, 256))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    video = read_frames(path, centres)
    assert 8 < video.info.frame_count < 38
    # In the last group frames may be missing that others were to be shown after
    assert numbers(video)[:6] == centres(video.info.frame_count)[:6]
    if not name.endswith("ts"):  # a transport stream promises no length
        assert "could be read" in video.warning
    last = list(iter_frames(path, rate=1000, chunk=4))[-1]
    assert last.warning == video.warning


def test_hours_between_two_frames_cost_nothing(tmp_path):
    path = write_video(tmp_path / "hours.mkv", ticks=[*range(20), 10 * 3600 * 20], options=X264)
    video = read_frames(path, range)
    assert numbers(video) == list(range(21))
    assert video.info.duration == pytest.approx(36000, abs=3601)
    assert [number for part in iter_frames(path, rate=1) for number in numbers(part)] == [0, 20]


def test_a_stream_that_changes_its_size(tmp_path):
    small = write_video(tmp_path / "a.ts", 10, options=X264).read_bytes()
    large = write_video(tmp_path / "b.ts", 10, options=X264, size=(320, 128)).read_bytes()
    (tmp_path / "both.ts").write_bytes(small + large)
    video = read_frames(tmp_path / "both.ts", range)
    assert video.frames.shape[1:] == (64, 160, 3)
    assert numbers(video) == [*range(10), *range(10)]


def test_a_directory_of_images_is_a_video(tmp_path):
    for number in range(12):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"img_{number + 1}.png")  # 10 comes after 9
    video = read_frames(tmp_path, lambda count: range(count))
    assert numbers(video) == list(range(12))
    assert [len(part.frames) for part in iter_frames(tmp_path, rate=1000, chunk=5)] == [5, 5, 2]
    (tmp_path / "img_3.png").write_bytes(b"not an image")
    with pytest.raises(VideoError, match=r"img_3\.png"):
        read_frames(tmp_path, range)


def kind_of(path) -> str:
    with pytest.raises(VideoError) as caught:
        read_frames(path, centres)
    assert "\n" not in caught.value.message
    return caught.value.kind


def test_what_is_no_video_says_so(tmp_path, plain):
    assert kind_of(tmp_path / "missing.mp4") == "not_found"
    assert kind_of(plain / "below") == "not_found"
    assert kind_of(tmp_path) == "not_a_file"
    assert kind_of("nul\0byte") == "not_a_file"
    (tmp_path / "empty.mp4").touch()
    assert kind_of(tmp_path / "empty.mp4") == "unreadable"
    for content in (b"just some text\n" * 20, bytes(5000), b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n"):
        (tmp_path / "wrong.mp4").write_bytes(content)
        assert kind_of(tmp_path / "wrong.mp4") in ("unreadable", "no_video")
    (tmp_path / "letters.nfo").write_bytes(b"just some text\n" * 20)  # FFmpeg would draw the letters
    assert kind_of(tmp_path / "letters.nfo") == "no_video"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_pipes_loops_and_locked_files_never_block(tmp_path, plain):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert kind_of(tmp_path / "pipe.mp4") == "not_a_file"
    assert kind_of("/dev/null") == "not_a_file"
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert kind_of(tmp_path / "loop.mp4") == "not_a_file"
    if os.geteuid() != 0:
        (tmp_path / "locked.mp4").write_bytes(plain.read_bytes())
        (tmp_path / "locked.mp4").chmod(0)
        assert kind_of(tmp_path / "locked.mp4") == "permission"


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
@pytest.mark.parametrize(
    "name", [b"new\nline.mp4", b"not utf-8 \xff\xfe.mp4", b"http:__x", b"%03d.mp4", b"'\" #;.mp4", b"n" * 255]
)
def test_any_file_name_works(name, tmp_path, plain, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    with open(path, "wb") as file:
        file.write(plain.read_bytes())
    assert numbers(read_frames(path, centres)) == centres(40)


@pytest.mark.skipif(sys.platform == "win32", reason="file names with a colon")
@pytest.mark.parametrize("decoder", decode.DECODERS)
def test_a_folder_named_like_a_protocol_connects_nowhere(decoder, tmp_path, plain, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for protocol in ("http", "tcp", "rtmp"):
            path = Path(f"{protocol}:/{address}/v.mp4")
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_bytes(plain.read_bytes())
        monkeypatch.chdir(tmp_path)
        for protocol in ("http", "tcp", "rtmp"):
            for spelling in (f"{protocol}:/{address}/v.mp4", f"{protocol}://{address}/v.mp4"):
                assert numbers(read_frames(spelling, centres, decoder=decoder)) == centres(40)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_decord_is_given_plain_files_only(tmp_path, plain, monkeypatch):
    decord = pytest.importorskip("decord", reason="decord has no wheel for this machine")
    asked = []
    reader = decord.VideoReader
    monkeypatch.setattr(
        decord, "VideoReader", lambda path, **options: asked.append(path) or reader(path, **options)
    )
    for name in ("h264.ts", "mpeg2.mpg", "h264.avi", "hevc_open_group.mp4", "h264_edit_list.mp4"):
        read_frames(write_video(tmp_path / name, **FILES[name][0]), centres, decoder="decord")
    sneaky = tmp_path / "playlist.mp4"  # for an older FFmpeg a playlist, whatever is behind the first line
    sneaky.write_bytes(
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n" + (tmp_path / "h264.ts").read_bytes()
    )
    with contextlib.suppress(VideoError):
        read_frames(sneaky, centres, decoder="decord")
    assert asked == []
    read_frames(os.path.relpath(plain), centres, decoder="decord")
    assert asked == [str(plain)]


def test_decoders_are_silent_and_need_no_torch(shared):
    code = (
        "import sys; from zsar_cli.video.decode import read_frames\n"
        f"video = read_frames({str(shared / 'videos/corner/corrupted_nal.mp4')!r}, lambda n: [0, n - 1])\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


DAMAGED = {"corrupted_nal.mp4", "truncated_faststart_60pct.mp4", "truncated_half_no_error.mkv"}
UNREADABLE = {"truncated_no_moov.mp4": "unreadable", "audio_only.m4a": "no_video"}


def test_reference_videos(shared):
    paths = [path for path in (shared / "videos").rglob("*") if path.is_file()]
    assert len(paths) > 20
    for path in paths:
        if path.name in UNREADABLE:
            assert kind_of(path) == UNREADABLE[path.name]
            continue
        video = read_frames(path, centres, resize=lambda frame: frame[::8, ::8])
        assert len(video.frames) == 8
        assert (video.warning is not None) == (path.name in DAMAGED), (path.name, video.warning)
    assert (
        "5.0 of 10.3 s" in read_frames(shared / "videos/corner/truncated_half_no_error.mkv", centres).warning
    )


def test_rotation_is_applied_every_way(shared):
    path = shared / "videos/corner/nasa_13013_rotated.mp4"
    upright = read_frames(path, centres)
    assert upright.frames.shape[1:3] == (upright.info.height, upright.info.width) == (480, 270)
    assert next(iter_frames(path, rate=4)).frames.shape[1:3] == (480, 270)
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    other = read_frames(path, centres, decoder="decord")
    assert np.abs(upright.frames.astype(int) - other.frames).mean() < 3
