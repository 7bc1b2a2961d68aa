"""``zsar predict`` on a machine that does other work too: its own number of threads against one thread.

    python -m benchmarks.busy [--clips 60] [--rounds 5] [--model motion-tiny] [--busy 0 2]

``--busy``: processes that keep a core each busy meanwhile. Contenders are running commands that take turns with the
same clips, so start-up is not counted, and ratios are of the same turn, so that what else the machine does hits all
alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.material import make_clip
from benchmarks.measure import Contender, python
from benchmarks.report import machine

WAYS: dict[str, dict[str, str]] = {"1 thread": {"OMP_NUM_THREADS": "1"}, "by default": {}}
OWN = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU of a process and its children so far."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in [root, *root.children(recursive=True)]]
    return sum(time.user + time.system for time in times)


def copies(master: Path, name: str, count: int) -> list[str]:
    """So many inputs of one clip: links of other names."""
    paths = [master.with_name(f"{name}-{number}.mp4") for number in range(count)]
    for path in paths:
        os.link(master, path)
    return [str(path) for path in paths]


def measure(
    contenders: dict[str, Contender], master: Path, clips: int, rounds: int, busy: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds and seconds of CPU of each turn of each contender."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        for number in range(rounds):
            paths = copies(master, f"{busy}-{number}", clips)
            for name, contender in contenders.items():
                before = cpu_seconds(contender.process.pid)
                seconds, _ = contender.turn(paths)
                figures[name].append((seconds, cpu_seconds(contender.process.pid) - before))
    finally:
        for process in others:
            process.kill()
    return figures


def main() -> None:
    """Print a table for each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="motion-tiny")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, os.cpu_count() or 1])
    options = parser.parse_args()
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['torch']}; {options.clips} clips of 2 s")
    for name in OWN:
        os.environ.pop(name, None)
    command = python(
        "zsar_cli", "predict", "-", "--model", options.model, "--labels", "camera", "--window", "0"
    )
    with tempfile.TemporaryDirectory() as folder:
        master = make_clip(Path(folder) / "clip.mp4", (320, 240), 0, seconds=2)
        contenders = {name: Contender(name, command, way) for name, way in WAYS.items()}
        try:
            for contender in contenders.values():
                contender.turn(copies(master, contender.name.replace(" ", ""), 8))
            for busy in options.busy:
                load = f"{os.getloadavg()[0]:.1f}"
                figures = measure(contenders, master, options.clips, options.rounds, busy)
                print(f"\n**{busy} busy processes beside it (load before: {load})**\n")
                print(
                    "| threads | seconds | times one thread's | seconds of CPU |\n| --- | --- | --- | --- |"
                )
                for name, turns in figures.items():
                    ratios = [mine[0] / one[0] for mine, one in zip(turns, figures["1 thread"], strict=True)]
                    seconds, cpu = (statistics.median(values) for values in zip(*turns, strict=True))
                    print(
                        f"| {name} | {seconds:.2f} | {statistics.median(ratios):.2f} | {cpu:.2f} |",
                        flush=True,
                    )
        finally:
            for contender in contenders.values():
                contender.close()


if __name__ == "__main__":
    main()
