"""What the two default models cost: parameters, the size of their weights, and the time of a clip on this machine.

    python benchmarks/models.py

The weights are random, so nothing is downloaded: sizes and times do not depend on their values.
"""

from __future__ import annotations

import statistics
import time

import open_clip
import torch

from zsar_cli.model.backbone import Backbone
from zsar_cli.model.factory import without_initialisation
from zsar_cli.model.onnx_engine import runtime_installed

MODELS = {"PE-Core-B-16": "meta, of `predict` and `embed-prompts`", "ViT-B-16": "openai, of `train`"}
FRAMES = 8
PRECISIONS = ["fp32", "int8"] if runtime_installed() else ["fp32", "bf16"]


def main() -> None:
    """Print a Markdown table."""
    print(
        "| default model | parameters | of the text tower | weights in fp32 | "
        + " | ".join(f"8 frames, {precision}" for precision in PRECISIONS)
        + " |"
    )
    print("|---|---:|---:|---:|" + "---:|" * len(PRECISIONS))
    for name, use in MODELS.items():
        with without_initialisation():
            backbone = Backbone.from_config(open_clip.get_model_config(name), spec=name)
        clip = backbone.clip
        for parameter in clip.parameters():  # faster than the draws of open_clip
            torch.nn.init.uniform_(parameter, -0.03, 0.03)
        count = sum(p.numel() for p in clip.parameters())
        text = count - sum(p.numel() for p in clip.visual.parameters())
        times = [seconds(backbone, precision) for precision in PRECISIONS]
        print(
            f"| `{name}` ({use}) | {count / 1e6:.0f} M | {text / 1e6:.0f} M | {4 * count / 1e9:.2f} GB | "
            + " | ".join(f"{t:.2f} s" for t in times)
            + " |",
            flush=True,
        )
    print(f"\nMedian of 5 on {torch.get_num_threads()} threads of a CPU.")


def seconds(backbone: Backbone, precision: str) -> float:
    """Of one clip's frames through the visual tower."""
    backbone.set_precision(precision)
    pixels = torch.rand(FRAMES, 3, *backbone.preprocess.size).to(backbone.dtype)
    taken = []
    with torch.no_grad():
        for _ in range(6):
            started = time.perf_counter()
            backbone.encode_frames(pixels)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
