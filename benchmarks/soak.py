"""``make soak``: does memory stay flat over thousands of opens of a short video?

Prints the memory of this process and of its decoding process as they go, and exits with 1 where either was ever more
than a tenth above what it held at the first of the marks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.video_files import write_video
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool

MARKS = 20


def memory() -> tuple[float, float]:
    """MB of this process, and of all those below it: what they hold, in memory or swapped out."""

    def held(process: psutil.Process) -> float:
        info = process.memory_full_info()
        return (info.uss + getattr(info, "swap", 0)) / 2**20

    own = psutil.Process()
    return held(own), sum(held(child) for child in own.children(recursive=True))


def soak(opens: int, folder: Path) -> Iterator[tuple[int, float, float]]:
    """(opens so far, MB here, MB of the decoding process) at each mark."""
    videos = [
        write_video(folder / "a.mp4", 24, size=(320, 240)),
        write_video(folder / "b.mkv", 24, size=(320, 240)),
        write_video(folder / "c.avi", 24, size=(320, 240), codec="mpeg4"),
    ]
    damaged = folder / "d.mp4"
    damaged.write_bytes(videos[0].read_bytes()[:2000])
    paths = [*videos, damaged]
    with DecodePool(1) as pool:
        requests = (ClipRequest(str(paths[number % len(paths)])) for number in range(opens))
        for number, (_, result) in enumerate(pool.imap(requests), start=1):
            assert isinstance(result, Clip) or number % len(paths) == 0, result
            # Half-way between the rounds, so never while one worker makes way for the next
            if number % (opens // MARKS) == opens // MARKS // 2:
                yield number, *memory()


def main() -> int:
    """Print and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opens", type=int, default=5000)
    options = parser.parse_args()
    started = time.monotonic()
    rows = []
    print(f"{'opens':>6}  {'this process, MB':>16}  {'decoding, MB':>12}")
    with tempfile.TemporaryDirectory(prefix="zsar-soak-") as folder:
        for row in soak(options.opens, Path(folder)):
            rows.append(row)
            print(f"{row[0]:6d}  {row[1]:16.1f}  {row[2]:12.1f}", flush=True)
    growth = [100 * (max(row[k] for row in rows) / rows[0][k] - 1) for k in (1, 2)]
    seconds = time.monotonic() - started
    print(
        f"most over {rows[-1][0]} opens: {growth[0]:+.1f}% and {growth[1]:+.1f}% of the first, in {seconds:.0f} s"
    )
    return int(max(growth) > 10)


if __name__ == "__main__":
    sys.exit(main())
