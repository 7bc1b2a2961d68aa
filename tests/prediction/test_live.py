"""Live sources: the segments are those of a file, whatever the source does; and FFmpeg opens nothing but it."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.prediction.test_sliding_windows import ColourModel, text_side, write_colours
from zsar_cli.errors import VideoError
from zsar_cli.prediction import live
from zsar_cli.prediction.live import Watched, watch
from zsar_cli.prediction.windows import WindowOptions, run_windows
from zsar_cli.video import live as reading
from zsar_cli.video.container import opened
from zsar_cli.video.find import why_unread
from zsar_cli.video.live import LiveRequest
from zsar_cli.video.live_source import SCHEMES, Source, live_source
from zsar_cli.video.pool import DecodePool

SCENES = [((220, 30, 30), 2.0), ((30, 220, 30), 3.0), ((128, 128, 128), 2.5), ((30, 30, 220), 1.7)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red, green, nothing and blue, as MPEG-TS."""
    return write_colours(tmp_path_factory.mktemp("live") / "video.ts", SCENES)


def segments(
    source: Source, *, pipe: int = 0, stop: threading.Event | None = None, workers: int = 0, **options
):
    """What is found in a source, what was told, and how much was seen."""
    model, stop, told, seen = ColourModel(), stop or threading.Event(), [], Watched()
    windows = WindowOptions(2.0, 0.5, **options)
    ended, ending = os.pipe() if workers else (0, 0)
    request = LiveRequest(
        *(source, windows.window, windows.frames, model.preprocess, windows.shots),
        pipe=pipe,
        stop=ended if workers else stop,
    )
    with DecodePool(workers, handed=(pipe, ended) if workers else ()) as pool:
        found = watch(
            *(model, request, text_side(), pool, windows, seen),
            stop=stop,
            hard=threading.Event(),
            tell=told.append,
        )
        results = []
        try:
            for segment in found:
                results.append(segment)
        except VideoError as error:
            told.append(error)
    if workers:
        os.close(ended)
        os.close(ending)
    return results, told, seen


def piped(content: bytes | Path, container: str = "mpegts", **options):
    """What is found in bytes that come through a pipe, a few at a time."""
    content = content.read_bytes() if isinstance(content, Path) else content
    reading_end, writing_end = os.pipe()

    def write() -> None:
        with os.fdopen(writing_end, "wb", buffering=0) as file:
            for start in range(0, len(content), 5000):
                file.write(content[start : start + 5000])

    threading.Thread(target=write, daemon=True).start()
    try:
        source = live_source("-", container)
        assert source is not None
        return segments(source, pipe=reading_end, **options)
    finally:
        os.close(reading_end)


def numbers(segment) -> list[float]:
    pairs = [(found.score, found.yes) for found in segment.predictions]
    return [segment.start, segment.end, segment.unknown, *np.ravel(pairs)]


def assert_same(found, wanted) -> None:
    assert [segment.answer for segment in found] == [segment.answer for segment in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-5)


def of_file(path: Path, **options):
    with DecodePool(0) as pool:
        (found,) = run_windows(
            ColourModel(), [str(path)], text_side(), pool, WindowOptions(2.0, 0.5, **options)
        )
    return found.segments


@pytest.mark.parametrize("options", [{}, {"shots": True}, {"multi": True}])
def test_a_pipe_gives_the_segments_of_the_file(video, options):
    wanted = of_file(video, **options)
    assert len(wanted) > 2
    found, told, _ = piped(video, **options)
    assert_same(found, wanted)
    assert not told


def test_a_pipe_that_a_worker_reads_gives_them_too(video):
    found, told, _ = piped(video, workers=1)
    assert_same(found, of_file(video))
    assert not told


def test_segments_come_before_the_video_ends(video):
    content = video.read_bytes()
    reading_end, writing_end = os.pipe()
    first = threading.Event()

    def write() -> None:
        with os.fdopen(writing_end, "wb", buffering=0) as file:
            file.write(content[: len(content) * 4 // 5])
            first.wait(20)
            file.write(content[len(content) * 4 // 5 :])

    threading.Thread(target=write, daemon=True).start()
    model, windows = ColourModel(), WindowOptions(2.0, 0.5)
    request = LiveRequest(live_source("-", "mpegts"), 2.0, 8, model.preprocess, pipe=reading_end)  # type: ignore[arg-type]
    with DecodePool(0) as pool:
        stop = threading.Event()
        found = watch(
            *(model, request, text_side(), pool, windows, Watched()), stop=stop, hard=stop, tell=pytest.fail
        )
        assert next(found).answer == "red"
        waited_for_the_rest = not first.is_set()
        first.set()
        assert [segment.answer for segment in found][-1] == "blue"
    os.close(reading_end)
    assert waited_for_the_rest


def test_what_ends_in_the_middle_of_a_packet_is_answered_up_to_there(video):
    found, told, _ = piped(video.read_bytes()[:-1000])
    assert [segment.answer for segment in found[:2]] == ["red", "green"]
    assert found[-1].end == pytest.approx(9.2, abs=2.5)
    assert not told


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nrtsp://127.0.0.1/a\n", os.urandom(3000)])
def test_what_is_no_video_is_said_to_be_none(content):
    found, (error,), _ = piped(content)
    assert not found
    assert (error.kind, "--format" in error.message or "frame" in error.message) == ("unreadable", True)


def test_what_is_kept_of_a_long_video_does_not_grow(video, monkeypatch):
    kept = []
    take = live.LiveTimeline.take

    def noted(timeline, part):
        yield from take(timeline, part)
        slider = timeline._slider
        shots = [len(shot.spans) + len(shot.ticks) + len(shot.shown) for shot in slider.shots]
        kept.append(len(slider.embeddings) + len(timeline._rows) + sum(shots))

    monkeypatch.setattr(live.LiveTimeline, "take", noted)
    piped(write_colours(video.with_name("long.ts"), [((220, 30, 30), 60.0)]))
    assert max(kept[-20:]) <= max(kept[:40])


def test_an_interrupted_run_closes_the_segment_in_progress(video):
    reading_end, writing_end = os.pipe()
    content, stop = video.read_bytes(), threading.Event()

    def write() -> None:
        with os.fdopen(writing_end, "wb", buffering=0, closefd=False) as file:
            file.write(content)

    threading.Thread(target=write, daemon=True).start()
    threading.Timer(1.0, stop.set).start()
    source = live_source("-", "mpegts")
    assert source is not None
    found, told, _ = segments(source, pipe=reading_end, stop=stop)
    os.close(writing_end)
    os.close(reading_end)
    assert [segment.answer for segment in found][:2] == ["red", "green"]
    assert found[-1].end > 6
    assert not told


# --- the network ------------------------------------------------------------------------------------------------


class Server:
    """Listens on 127.0.0.1 and lets ``serve`` answer each connection, with its number."""

    def __init__(self, serve) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.count = 0
        threading.Thread(target=self._run, args=(serve,), daemon=True).start()

    def _run(self, serve) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            with connection:
                serve(connection, self.count)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def serve():
    servers = []

    def start(answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(live, "DELAYS", (0.01, 0.02))
    monkeypatch.setattr(reading, "PATIENCE", 5.0)


def test_a_stream_that_is_lost_is_had_again_and_given_up_in_the_end(video, serve, quick):
    content = video.read_bytes()

    def send(connection, number) -> None:
        if number <= 2:
            connection.sendall(content)

    server = serve(send)
    source = live_source(f"tcp://someone:secret@{server.address}")
    assert source is not None
    assert "secret" not in source.name
    source = live_source(f"tcp://{server.address}")
    assert source is not None
    found, told, seen = segments(source)
    assert [segment.answer for segment in found].count("blue") == 2  # of both connections
    starts = [segment.start for segment in found]
    assert starts == sorted(starts)
    assert "trying again in 0.01 s" in told[0]
    assert isinstance(told[-1], VideoError)
    assert "2 more tries failed" in told[-1].message
    assert seen.began is not None


def test_a_stream_that_was_never_there_is_not_waited_for(quick):
    source = live_source("tcp://127.0.0.1:9")
    assert source is not None
    found, told, _ = segments(source)
    assert not found
    assert [error.kind for error in told] == ["unreachable"]
    assert "refused" in told[0].message


@pytest.mark.parametrize("playlist", ["#EXTM3U\n#EXTINF:4,\n{}\n", "ffconcat version 1.0\nfile '{}'\n"])
def test_a_playlist_leads_nowhere(playlist, tmp_path, serve, quick):
    watched = serve(lambda connection, number: None)
    text = playlist.format(f"tcp://{watched.address}").encode()
    for name in ("list.m3u8", "list.ffconcat", "list.mp4"):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(VideoError), opened(str(tmp_path / name)):
            pass
    sending = serve(lambda connection, number: connection.sendall(text))
    source = live_source(f"tcp://{sending.address}")
    assert source is not None
    assert segments(source)[1][0].kind == "unreachable"
    assert sending.count == 1
    assert watched.count == 0


def rtsp(content: bytes):
    """Answer as a camera does: RTSP, and MPEG-TS in RTP over the same connection."""

    def serve(connection: socket.socket, number: int) -> None:
        if number > 1:
            return
        requests = connection.makefile("rb")
        while True:
            lines = list(iter(lambda: requests.readline().strip().decode(), ""))
            if not lines:
                return
            method = lines[0].split()[0]
            head = ["RTSP/1.0 200 OK", next(line for line in lines if line.startswith("CSeq"))]
            body = ""
            if method == "OPTIONS":
                head.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=a\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:0\r\n"
                head += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                head += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            elif method == "PLAY":
                head.append("Session: 1")
            connection.sendall(("\r\n".join(head) + "\r\n\r\n" + body).encode())
            if method == "PLAY":
                for place, start in enumerate(range(0, len(content), 7 * 188)):
                    packet = struct.pack(">BBHII", 0x80, 33, place & 0xFFFF, place * 900, 7)
                    packet += content[start : start + 7 * 188]
                    connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                return

    return serve


def test_a_camera_is_watched_by_rtsp(video, serve, quick):
    server = serve(rtsp(video.read_bytes()))
    source = live_source(f"rtsp://{server.address}/stream")
    assert source is not None
    found, told, _ = segments(source)
    assert [segment.answer for segment in found][:2] == ["red", "green"]
    assert "trying again" in told[0]


def test_where_the_model_is_behind_old_frames_are_left_out_and_counted(video, serve, quick, monkeypatch):
    monkeypatch.setattr(reading, "HELD", 4)
    content = video.read_bytes()
    server = serve(lambda connection, number: connection.sendall(content if number == 1 else b""))
    source = live_source(f"tcp://{server.address}")
    assert source is not None
    slow = ColourModel.encode_frames

    def encode(model, pixels):
        threading.Event().wait(0.05)
        return slow(model, pixels)

    monkeypatch.setattr(ColourModel, "encode_frames", encode)
    patient, _, waited = segments(source)
    assert not waited.dropped
    server.count = 0
    found, told, seen = segments(Source(**{**vars(source), "waits": False}))
    assert seen.dropped > 0
    assert seen.frames < waited.frames
    assert "frames were left out" in told[0]
    assert found[-1].end == pytest.approx(patient[-1].end, abs=1)


# --- what is one --------------------------------------------------------------------------------------------------


def test_live_sources_are_streams_cameras_and_a_pipe_with_a_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").write_bytes(b"")
    for text in ("RTSP://user:secret@h/a", "rtmp://h/a", "udp://@239.0.0.1:1234", "srt://h:1"):
        found = live_source(text)
        assert found is not None
        assert (found.kind, "secret" in found.name) == ("network", False)
        assert "file" not in found.protocols
    for text in (
        "a.mp4",
        "7",
        "-",
        "http://h/a.ts",
        "file:///a",
        "rtsp:",
        "concat:a|b",
        "data:abc",
        "subfile,,:a",
    ):
        assert live_source(text) is None
    assert live_source("-", "mpegts") is not None
    monkeypatch.setattr("sys.platform", "linux")
    for text, address in (("0", "/dev/video0"), ("/dev/video3", "/dev/video3")):
        camera = live_source(text)
        assert camera is not None
        assert (camera.kind, camera.address, camera.format, camera.waits) == (
            "camera",
            address,
            "v4l2",
            False,
        )


def test_a_list_names_no_live_source():
    for scheme in SCHEMES:
        assert "never from a list" in str(why_unread(f"{scheme}://h/a"))
    assert "camera" in str(why_unread("/dev/video9"))


def test_a_playlist_that_a_server_sends_opens_no_file(video, serve, quick):
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{video}\n#EXT-X-ENDLIST\n"
    sending = serve(lambda connection, number: connection.sendall(text.encode() if number == 1 else b""))
    source = live_source(f"tcp://{sending.address}/list.m3u8")
    assert source is not None
    found, (error,), _ = segments(source)
    assert not found
    assert error.kind == "unreachable"
