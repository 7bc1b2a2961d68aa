"""How near the answers of an exported folder are to those of ``zsar predict``, in an environment without zsar.

    python -m benchmarks.onnx VIDEO ... [--model motion-tiny] [--labels camera] [--precision fp32] [--venv DIR]

Makes an empty environment with onnxruntime, numpy and av (from the package index; ``--venv`` takes one that is there),
exports the model, runs ``run.py`` there and ``zsar predict --window 0`` here, and prints the largest difference of
scores, yes and unknown of each video.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import machine

PACKAGES = ("onnxruntime", "numpy", "av")


def zsar(*arguments: object) -> str:
    command = [sys.executable, "-m", "zsar_cli", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return done.stdout


def environment(folder: Path) -> Path:
    """Make an environment with three packages; its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def records(lines: str) -> dict[str, dict]:
    found = (json.loads(line) for line in lines.splitlines())
    return {record["video"]: record for record in found if "predictions" in record}


def difference(ours: dict, theirs: dict) -> float:
    """The largest of the scores and yes of the labels that both name, and of unknown."""
    known = {found["label"]: found for found in theirs["predictions"]}
    pairs = [(ours["unknown"], theirs["unknown"])]
    for found in ours["predictions"]:
        if other := known.get(found["label"]):
            pairs += [(found[key], other[key]) for key in ("score", "yes")]
    return max(abs(a - b) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--model", default="motion-tiny")
    parser.add_argument("--labels", default="camera")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"])
    parser.add_argument("--venv", type=Path, help="an environment that has the three packages")
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="zsar-bench-") as name:
        folder = Path(name)
        python = asked.venv / "bin" / "python" if asked.venv else environment(folder / "venv")
        about = ("--model", asked.model, "--labels", asked.labels)
        zsar("embed-prompts", *about, "--onnx", folder / "out", "--precision", asked.precision)
        run = subprocess.run(
            [python, "-I", folder / "out" / "run.py", *asked.videos],
            check=False,
            capture_output=True,
            text=True,
        )
        ours = records(run.stdout)
        theirs = records(zsar("predict", *asked.videos, *about, "--window", "0", "--format", "jsonl"))
    print(
        f"\n| video | answer of run.py ({asked.precision}) | same top-1 | largest difference |\n|---|---|---|---|"
    )
    worst = 0.0
    for video in asked.videos:
        if video not in ours or video not in theirs:
            print(
                f"| {Path(video).name} | read by predict: {video in theirs}, by run.py: {video in ours} | | |"
            )
            continue
        found, best = difference(ours[video], theirs[video]), ours[video]["predictions"][0]
        worst = max(worst, found)
        same = best["label"] == theirs[video]["predictions"][0]["label"]
        print(
            f"| {Path(video).name} | {best['label']} {best['score']:.4f} | {'yes' if same else 'NO'} | {found:.1e} |"
        )
    print(f"\nLargest difference: {worst:.1e}")


if __name__ == "__main__":
    main()
