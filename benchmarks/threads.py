"""How many threads, and how they wait for each other: the visual tower of ViT-B/16 beside other work and without.

    python -m benchmarks.threads [--rounds 7] [--frames 2] [--busy 0 2]

``--busy``: processes that keep a core each busy meanwhile. Contenders take turns; ratios are of the same turn, so that
what else the machine does hits all alike. Weights are random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.material import make_clip_model
from benchmarks.measure import Contender
from benchmarks.report import machine
from zsar_cli.cli.threads import SPINS
from zsar_cli.resources import available_cores

WAYS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "all, waiting as OpenMP does by default": {},
    "all, waiting as zsar has it": {"GOMP_SPINCOUNT": SPINS},
    "all, sleeping at once": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def serve(model: str, precision: str, frames: int) -> None:
    """Encode as many frames for each line of input."""
    import torch

    from zsar_cli.model.backbone import load_backbone

    backbone = load_backbone(model, precision=precision)
    pixels = torch.rand(frames, 3, 224, 224)
    with torch.inference_mode():
        for _ in sys.stdin:
            backbone.encode_frames(pixels)
            print("done", flush=True)


def measure(model: Path, precision: str, frames: int, rounds: int, busy: int) -> None:
    """Print a table."""
    command = [sys.executable, "-m", "benchmarks.threads", "--serve", str(model), precision, str(frames)]
    threads = {"OMP_NUM_THREADS": str(available_cores())}
    contenders = {name: Contender(name, command, threads | way) for name, way in WAYS.items()}
    for contender in contenders.values():
        contender.turn(["warm up"])
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        seconds = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, contender in contenders.items():
                seconds[name].append(contender.turn(["go"])[0])
    finally:
        for process in (*others, *(contender.process for contender in contenders.values())):
            process.kill()
    load = f"{os.getloadavg()[0]:.1f}"
    print(f"\n**{frames} frames in {precision}, {busy} busy processes beside it (load {load})**\n")
    print("| threads | seconds | times one thread's |\n| --- | --- | --- |")
    for name, values in seconds.items():
        ratios = [value / one for value, one in zip(values, seconds["1 thread"], strict=True)]
        print(f"| {name} | {statistics.median(values):.2f} | {statistics.median(ratios):.2f} |")


def main() -> None:
    """Measure in each precision, beside each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, os.cpu_count() or 1])
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], options.serve[1], int(options.serve[2]))
        return
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['torch']}")
    with tempfile.TemporaryDirectory() as folder:
        model = make_clip_model(Path(folder) / "vit")
        for precision in options.precisions:
            for busy in options.busy:
                measure(model, precision, options.frames, options.rounds, busy)


if __name__ == "__main__":
    main()
