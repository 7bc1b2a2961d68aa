"""The pictures of the README, made of what the commands answer: ``make pictures``, or with another model
``python -m benchmarks.pictures --model MODEL``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
from rich.console import Console
from rich.text import Text

from zsar_cli.cli.output.formats import _answer_lines
from zsar_cli.cli.output.timelines import timeline_lines

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SAMPLES = "zsar_cli/assets/samples"
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


def answers(*arguments: str) -> list[dict[str, Any]]:
    """The records of ``zsar predict``."""
    command = [sys.executable, "-m", "zsar_cli", "predict", *arguments, "--format", "jsonl"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
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


def join(paths: list[Path], target: Path) -> None:
    """The frames of several clips, one after the other, as one video."""
    frames = [f.to_ndarray(format="rgb24") for p in paths for f in av.open(str(p)).decode(video=0)]
    rate = av.open(str(paths[0])).streams.video[0].average_rate
    with av.open(str(target), "w") as output:
        stream: Any = output.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))


def main() -> None:
    """Write terminal.svg, timeline.svg and explain.png into docs/images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="motion-tiny")
    model = parser.parse_args().model
    IMAGES.mkdir(parents=True, exist_ok=True)
    clips = sorted((ROOT / SAMPLES).glob("*.mp4"))
    labels = ("--labels", f"{SAMPLES}/labels.txt")
    shown = [str(clip.relative_to(ROOT)) for clip in clips[:3]]
    records = answers(*shown, *labels, "--model", model, "--top-k", "3", "--min-confidence", "0.5")
    command = f"zsar predict {SAMPLES} --model {model} --top-k 3 \\\n    --labels {SAMPLES}/labels.txt"
    command += " --min-confidence 0.5"
    screen(
        command,
        [line for record in records for line in _answer_lines(record, WIDTH)],
        IMAGES / "terminal.svg",
    )
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "long.mp4"
        join([clip for clip in clips if not clip.name.startswith("neither")][:5], long)
        (record,) = answers(str(long), *labels, "--model", model, "--window", "2", "--stride", "1")
        record["video"] = long.name
        command = f"zsar predict long.mp4 --labels {SAMPLES}/labels.txt --model {model} \\\n    --window 2 --stride 1"
        screen(command, timeline_lines(record, WIDTH), IMAGES / "timeline.svg")
        clip = next(clip for clip in clips if "moving-left" in clip.name)
        answers(
            str(clip.relative_to(ROOT)),
            *labels,
            "--model",
            model,
            "--min-confidence",
            "0.5",
            "--explain",
            folder,
        )
        (Path(folder) / f"{clip.stem}.png").replace(IMAGES / "explain.png")


if __name__ == "__main__":
    main()
