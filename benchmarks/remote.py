"""``python -m benchmarks.remote``: what videos on a far server cost beside the same files on this disk.

A server on 127.0.0.1 answers each request after a delay, at a limited speed, and counts bytes and requests. Prints the
bytes that were fetched per byte of the videos, and which share of the time the model waited for videos, for files on
this disk and for those of the server. Exits with 1 where more than 1.05 times a video was fetched, or answers
differ.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import psutil

from benchmarks.material import make_clip
from zsar_cli import Recognizer
from zsar_cli.prediction.inputs import find_videos
from zsar_cli.run_log import StageTimes

LABELS = ["a static shot", "the camera shakes", "the camera pans left"]


class FarServer(BaseHTTPRequestHandler):
    """Gives ranges of files, late and slowly, and counts."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    delay: ClassVar[float] = 0.0
    speed: ClassVar[float] = 0.0  # bytes a second of a connection
    sent: ClassVar[int] = 0
    requests: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Send the range that is asked for."""
        time.sleep(self.delay)
        data = (self.folder / self.path.lstrip("/")).read_bytes()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        for place in range(start, end, 65536):
            block = data[place : min(place + 65536, end)]
            time.sleep(len(block) / self.speed)
            self.wfile.write(block)
        with self.lock:
            FarServer.sent += end - start
            FarServer.requests += 1


def answers(
    recognizer: Recognizer, videos: list[str], workers: int
) -> tuple[list[list[float]], float, float]:
    """Score the videos: the scores, the seconds, and those that the model waited."""
    recognizer.times = StageTimes()
    started = time.perf_counter()
    found = [
        [round(label.score, 5) for label in result.predictions]
        for result in recognizer.predict_many(videos, LABELS, workers=workers)
    ]
    return found, time.perf_counter() - started, recognizer.times.seconds["waiting for decoders"]


def read_lines(count: int) -> None:
    """Print the memory of this process while a list of so many lines is read, as predict reads it."""

    class Lines(io.RawIOBase):
        """A list of which each line is new."""

        number = 0

        def read(self, size: int = -1) -> bytes:
            start, self.number = self.number, min(self.number + 1000, count)
            return b"".join(
                b"s3://bucket/videos/%012d/clip.mp4\n" % line for line in range(start, self.number)
            )

    started = time.perf_counter()
    for number, _ in enumerate(find_videos(["-"], Lines()), start=1):
        if number in (10_000, count) or number % (count // 5) == 0:
            held = psutil.Process().memory_info().rss / 1e6
            print(f"{number:>9,} lines: {held:.0f} MB, {time.perf_counter() - started:.0f} s")


def main() -> int:
    """Print and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.05, help="s before each answer")
    parser.add_argument("--speed", type=float, default=20.0, help="MB/s of a connection")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="motion-tiny")
    parser.add_argument("--lines", type=int, help="read a list of so many lines instead")
    options = parser.parse_args()
    if options.lines:
        read_lines(options.lines)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        FarServer.folder, FarServer.delay, FarServer.speed = Path(folder), options.delay, options.speed * 1e6
        clip = Path(folder) / "0.mp4"
        make_clip(clip, (640, 360), 0)
        for number in range(1, options.videos):
            shutil.copy(clip, Path(folder) / f"{number}.mp4")
        server = ThreadingHTTPServer(("127.0.0.1", 0), FarServer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        recognizer = Recognizer.load(options.model)
        names = [f"{number}.mp4" for number in range(options.videos)]
        answers(recognizer, [f"{folder}/{name}" for name in names[:8]], options.workers)  # the first is slow
        rows = {
            "disk": answers(recognizer, [f"{folder}/{name}" for name in names], options.workers),
            "server": answers(
                recognizer,
                [f"http://127.0.0.1:{server.server_port}/{name}" for name in names],
                options.workers,
            ),
        }
        size = clip.stat().st_size * options.videos
        server.shutdown()
    print(
        f"{options.videos} videos of {size / options.videos / 1e6:.2f} MB, {options.model}, {options.workers} workers"
    )
    for name, (_, seconds, waited) in rows.items():
        print(
            f"{name:>7}: {options.videos / seconds:6.1f} videos/s, the model waited {waited / seconds:4.0%} of the time"
        )
    ratio, requests = FarServer.sent / size, FarServer.requests / options.videos
    print(
        f"fetched: {ratio:.3f} bytes per byte of the videos, {requests:.2f} requests a video, "
        f"each after {1000 * options.delay:.0f} ms and at {options.speed:g} MB/s"
    )
    same = rows["disk"][0] == rows["server"][0]
    print("the answers are the same" if same else "THE ANSWERS DIFFER")
    return 0 if same and ratio <= 1.05 else 1


if __name__ == "__main__":
    sys.exit(main())
