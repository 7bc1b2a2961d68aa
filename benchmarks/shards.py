"""``make shards``: 100,000 videos through eight shards whose processes are killed at random, and their merged answers.

The videos are links to a few tiny clips that are made here; some are damaged, and some of the list are missing. Each
shard is a process of ``zsar predict --shard``, some at once. All but the first are killed (SIGKILL) when their part has
reached random sizes, and started again. Prints memory of the first one as it goes, and exits with 1 unless the merged
file has each input of the list once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.video_files import write_video

SHARDS = 8
ZSAR = [sys.executable, "-m", "zsar_cli"]
BYTES = 200  # of a record, at least
POLL, SAMPLE = 0.1, 2.0  # s


def make_inputs(folder: Path, size: int) -> Path:
    """Link to a few clips under many names; a list of all, one in a hundred of them damaged, one missing."""
    clips = [write_video(folder / f"clip{n}.mp4", 8, size=(64, 48)) for n in range(4)]
    damaged = folder / "damaged.mp4"
    damaged.write_bytes(clips[0].read_bytes()[:700])
    names = []
    for number in range(size):
        name = folder / f"{number // 1000:03d}" / f"{number:06d}.mp4"
        names.append(str(name))
        if number % 100 == 1:
            continue  # missing
        name.parent.mkdir(exist_ok=True)
        os.link(damaged if number % 100 == 0 else clips[number % 4], name)
    listing = folder / "list.txt"
    listing.write_text("\n".join(names) + "\n")
    return listing


@dataclass
class Run:
    """A shard's processes, one after the other."""

    shard: int
    command: list[str]
    unfinished: Path
    errors: Path  # what the process says
    kill_at: list[int]  # bytes of the part
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0
    sampled: float = 0.0
    started: float = 0.0
    memory: list[tuple[float, int, float, float]] = field(
        default_factory=list
    )  # s, records, MB here, MB decoding

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(self.command, env=environment, stderr=errors)
        self.started = self.started or time.monotonic()

    def poll(self) -> bool:
        """Sample, kill, start again; whether the part is complete."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            if code not in (0, -9):
                said = self.errors.read_text(errors="replace")[-2000:]
                raise SystemExit(f"shard {self.shard} ended with {code}:\n{said}")
            if code:
                self.start()
            return code == 0
        size = self.unfinished.stat().st_size if self.unfinished.exists() else 0
        if self.kill_at and size >= self.kill_at[0]:
            self.kill_at.pop(0)
            for process in (
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(True),
            ):
                process.kill()  # a node that dies takes all of them
            self.kills += 1
        elif time.monotonic() - self.sampled > SAMPLE and size and not self.kills:
            self.sampled = time.monotonic()
            self._sample()
        return False

    def _sample(self) -> None:
        assert self.process is not None
        try:
            own = psutil.Process(self.process.pid)
            held = [
                process.memory_full_info().uss / 2**20 for process in (own, *own.children(recursive=True))
            ]
            with open(self.unfinished, "rb") as file:
                records = sum(1 for _ in file)
        except (psutil.Error, OSError):  # it ended just now
            return
        self.memory.append((self.sampled - self.started, records, held[0], sum(held[1:])))


def run_all(runs: list[Run], at_once: int) -> None:
    """Run the shards, so many at once."""
    waiting, running = list(runs), []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(waiting.pop(0))
            running[-1].start()
        running = [run for run in running if not run.poll()]
        time.sleep(POLL)


def check(merged: Path, listing: Path) -> tuple[Counter[str], list[str]]:
    """Count the records by what they say; and what is wrong."""
    kinds: Counter[str] = Counter()
    videos: Counter[str] = Counter()
    with open(merged, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            videos[record["video"]] += 1
            kinds[record["error"]["kind"] if "error" in record else "answered"] += 1
    wanted = set(listing.read_text().splitlines())
    wrong = []
    if twice := sum(count > 1 for count in videos.values()):
        wrong.append(f"{twice} inputs have more than one record")
    if missing := len(wanted - videos.keys()):
        wrong.append(f"{missing} inputs have none")
    if more := len(videos.keys() - wanted):
        wrong.append(f"{more} records are of no input")
    return kinds, wrong


def main() -> int:
    """Print and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="inputs")
    parser.add_argument("--kills", type=int, default=3, help="of each shard but the first")
    parser.add_argument("--at-once", type=int, default=2, help="shards that run at the same time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="zsar-shards-") as place:
        folder = Path(place)
        listing, parts = make_inputs(folder, options.size), folder / "parts"
        most = BYTES * options.size // SHARDS
        runs = []
        for shard in range(SHARDS):
            command = [
                *ZSAR,
                "predict",
                str(listing),
                "--model",
                "motion-tiny",
                "--window",
                "0",
                "--workers",
                "1",
            ]
            command += ["--label", "a shape moves left", "--label", "the camera pans left", "--top-k", "2"]
            command += ["--frames", "2", "--batch-size", "32"]
            command += ["--shard", f"{shard}/{SHARDS}", "--output", str(parts)]
            kills = sorted(chance.randrange(1, most) for _ in range(options.kills if shard else 0))
            unfinished = parts / f"_unfinished-{shard:05d}-of-{SHARDS:05d}.jsonl"
            runs.append(Run(shard, command, unfinished, folder / f"errors{shard}.txt", kills))
        start = time.monotonic()
        run_all(runs, options.at_once)
        seconds = time.monotonic() - start
        rows = runs[0].memory
        print(f"{'s':>6}  {'records':>8}  {'this process, MB':>16}  {'decoding, MB':>12}")
        for row in [rows[len(rows) * k // 10] for k in range(10)] + rows[-1:]:
            print(f"{row[0]:6.0f}  {row[1]:8d}  {row[2]:16.1f}  {row[3]:12.1f}")
        merged = folder / "answers.jsonl"
        start = time.monotonic()
        done = subprocess.run([*ZSAR, "predict", "--merge", str(parts), "--output", str(merged)], check=False)
        merging = time.monotonic() - start
        kinds, wrong = check(merged, listing)
    print(
        f"{options.size:,} inputs, {SHARDS} shards, {options.at_once} at once, {sum(r.kills for r in runs)} kills"
    )
    print(
        f"records: {sum(kinds.values()):,} ({', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common())})"
    )
    print(
        f"{seconds:.0f} s with start-ups and restarts, {options.size / seconds:.0f} videos/s; merged in {merging:.0f} s"
    )
    for line in wrong:
        print(f"WRONG: {line}")
    return int(bool(wrong) or done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
