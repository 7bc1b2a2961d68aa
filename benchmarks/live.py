"""Memory of ``zsar predict -`` while a video comes through a pipe: of a short one, and of one ten times as long.

python -m benchmarks.live [--seconds 60] [--times 10] [--model motion-tiny]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.material import make_clip, make_long
from benchmarks.measure import memory_of, python
from benchmarks.report import machine

CLIP = 10  # s


def watch(video: Path, model: str) -> tuple[float, int, float, float]:
    """Seconds, segments, and MB of the command with its decoder: the peak of the first half of its time and of all."""
    command = python("zsar_cli", "predict", "-", "--format", "mpegts", "--model", model, "--labels", "camera")
    start = time.perf_counter()
    with video.open("rb") as pipe:
        process = subprocess.Popen(
            [*command, "--format", "jsonl"], stdin=pipe, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    samples: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.2):
            samples.append(memory_of(process.pid) / 2**20)

    threading.Thread(target=sample, daemon=True).start()
    assert process.stdout is not None
    segments = sum(1 for _ in process.stdout)
    process.wait()
    ended.set()
    return time.perf_counter() - start, segments, max(samples[: len(samples) // 2]), max(samples)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--model", default="motion-tiny")
    options = parser.parse_args()
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['torch']}\n")
    print(
        "| s of video | s | segments | peak of the first half, MB | peak, MB |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", (320, 240), 0, seconds=CLIP)
        for seconds in (options.seconds, options.seconds * options.times):
            video = make_long(clip, Path(folder) / f"{seconds}.ts", max(1, seconds // CLIP))
            took, segments, half, peak = watch(video, options.model)
            print(f"| {seconds} | {took:.0f} | {segments} | {half:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
