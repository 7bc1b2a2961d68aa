"""The pictures of the README, made of what the commands answer: ``make pictures``, or with another model
``python -m benchmarks.pictures --model MODEL``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from benchmarks import footage
from benchmarks.samples import SHOTS
from zsar_cli.cli.output.formats import _answer_lines
from zsar_cli.cli.output.timelines import timeline_lines
from zsar_cli.data import motion_shapes
from zsar_cli.prediction.records import NONE_OF_THESE
from zsar_cli.text.labels import load_labels

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
LABELS = "zsar_cli/assets/samples/labels.txt"
SMALL = 96  # pixels high: more than the bundled model sees
CANDIDATES, SHOWN = 6, 4
BOUND = ("--min-confidence", "0.5", "--top-k", "3")
WIDTH = 92
# Rich's own page, less the fonts that it would fetch from the network
PAGE = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def answers(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """The records of ``zsar predict`` in a folder."""
    command = [sys.executable, "-m", "zsar_cli", "predict", *arguments, "--format", "jsonl"]
    found = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


def screen(command: str, lines: list[Text], path: Path) -> None:
    """A terminal with a command and what it showed."""
    console = Console(
        record=True, width=WIDTH, file=open("/dev/null", "w"), force_terminal=True, highlight=False
    )
    console.print(Text(f"$ {command}", style="bold"))
    for line in lines:
        console.print(line)
    path.write_text(console.export_svg(title="zsar", code_format=PAGE, unique_id="zsar"), encoding="utf-8")


def name_of(label: str) -> str:
    """A file name that says what a clip shows."""
    return re.sub(r"\b(a|the|while|each|other)\b", "", label)


def filmed(labels: Sequence[str], folder: Path, seed: int, height: int = footage.HEIGHT) -> dict[str, str]:
    """A clip of each label: the path of its file, and the label."""
    folder.mkdir(exist_ok=True)
    found = {}
    for label in labels:
        path = folder / f"{'-'.join(name_of(label).split())}.mp4"
        footage.write(path, footage.film(label, seed, height))
        found[f"{folder.name}/{path.name}"] = label
    return found


def right(folder: Path, clips: dict[str, str], *options: str) -> list[dict[str, Any]]:
    """The records of the clips that are answered with their label, the surest first."""
    records = [r for r in answers(folder, *clips, *options) if r["answer"] == clips[r["video"]]]
    return sorted(records, key=lambda record: record["unknown"])


def choose(folder: Path, options: Sequence[str], labels: Sequence[str]) -> tuple[list[str], str]:
    """Try clips of every label, small ones first: four that are answered right, and one that is "none of these"."""
    small = filmed(labels, folder / "small", 0, SMALL)
    known = right(folder, small, *options)
    surest = [small[record["video"]] for record in known]
    for name, moves in (("stands still", False), ("moves", True)):
        asked = [label for label in labels if ("camera" in label) == moves]
        print(f"right about {len({*surest} & {*asked})} of {len(asked)} clips whose camera {name}")
    clips = filmed(surest[:CANDIDATES], folder / "clips", 0)
    chosen = [record["video"] for record in right(folder, clips, *options)][:SHOWN]
    other = filmed(motion_shapes.class_labels("neither"), folder / "other", 1, SMALL)
    rejected = [r for r in answers(folder, *other, *options) if r["answer"] == NONE_OF_THESE]
    print(f'of {len(other)} clips of other labels it says "{NONE_OF_THESE}" about {len(rejected)}')
    strangest = max(rejected, key=lambda record: record["unknown"])
    (none,) = filmed([other[strangest["video"]]], folder / "clips", 1)
    return sorted(chosen), none


def join(paths: Sequence[Path], target: Path) -> None:
    """The frames of several clips, one after the other, as one video."""
    frames = [f.to_ndarray(format="rgb24") for p in paths for f in av.open(str(p)).decode(video=0)]
    footage.write(target, np.stack(frames))


def smaller(source: Path, target: Path) -> None:
    """A picture as a JPEG: a repository keeps every one it ever had."""
    with Image.open(source) as image:
        image.convert("RGB").save(target, quality=88, subsampling=0, optimize=True)


def draw(folder: Path, model: str, chosen: Sequence[str], none: str) -> None:
    """The pictures of some clips in a folder; ``none`` is one that shows none of the labels."""
    labels = load_labels(str(ROOT / LABELS)).names
    options = ("--model", model, "--labels", str(ROOT / LABELS))
    records = answers(folder, *chosen, none, *options, *BOUND)
    command = f"zsar predict clips --labels labels.txt --model {model} {' '.join(BOUND)}"
    lines = [line for record in records for line in _answer_lines(record, WIDTH)]
    screen(command, lines, IMAGES / "terminal.svg")

    parts = [folder / clip for clip in [*chosen[:2], none, *chosen[2:]]]
    join(parts, folder / "long.mp4")
    windows = ("--window", "2", "--stride", "1")
    (record,) = answers(folder, "long.mp4", *options, *windows, "--explain", "sheets")
    smaller(folder / "sheets" / "long.png", IMAGES / "explain-timeline.jpg")
    command = f"zsar predict long.mp4 --labels labels.txt --model {model} {' '.join(windows)}"
    screen(command, timeline_lines(record, WIDTH, labels), IMAGES / "timeline.svg")

    answers(folder, chosen[0], *options, *BOUND[:2], "--explain", "sheets")
    smaller(folder / "sheets" / f"{Path(chosen[0]).stem}.png", IMAGES / "explain.jpg")


def draw_camera(folder: Path, model: str) -> None:
    """Draw the camera's moves in the video that make demo asks about."""
    shutil.copy(SHOTS, folder)
    answers(folder, SHOTS.name, "--model", model, "--labels", "camera", "--explain", "camera")
    smaller(folder / "camera" / f"{SHOTS.stem}.png", IMAGES / "camera.jpg")


def main() -> None:
    """Write terminal.svg, timeline.svg, explain.jpg, camera.jpg and explain-timeline.jpg into docs/images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="motion-tiny")
    model = parser.parse_args().model
    IMAGES.mkdir(parents=True, exist_ok=True)
    options = ("--model", model, "--labels", str(ROOT / LABELS), *BOUND)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen, none = choose(folder, options, load_labels(str(ROOT / LABELS)).names)
        draw(folder, model, chosen, none)
        draw_camera(folder, model)


if __name__ == "__main__":
    main()
