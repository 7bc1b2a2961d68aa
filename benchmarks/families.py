"""What published families cost beside a plain CLIP: one ``zsar predict`` each, with random B/16 weights of real size.

    python -m benchmarks.families [VIDEO ...]

Files are written in their authors' formats (about 5 GB, removed at the end). The time is that of the processor, which
other processes of the machine lengthen little; labels' and bank's prompts are embedded in it, from one template.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests import published_files as files
from zsar_cli.files import ASSETS

LABELS = ["archery", "arm wrestling", "apply eye makeup"]
LAYERS, WIDTH, TEXT, EMBED = 12, 768, 512, 512
REAL = {"image": 224, "width": WIDTH, "text": TEXT, "embed": EMBED}


def main() -> None:
    """Print a Markdown table."""
    videos = sys.argv[1:] or sorted(map(str, (ASSETS / "samples").glob("*.mp4")))[:3]
    files.draw = draw  # the tests' rule draws with NumPy, which takes minutes at this size
    print(f"| model | frames | exit | records | CPU time of {len(videos)} videos | most memory so far |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="zsar-families-") as folder:
        base = Path(folder) / "base.pt"
        torch.save(clip(), base)
        print(row("plain CLIP", f"ViT-B-16-quickgelu/{base}", [], videos, folder), flush=True)
        for family, state in contents():
            path = files.write(Path(folder), family, state)
            print(row(family, f"{family}:{path}", ["--backbone", str(base)], videos, folder), flush=True)
            path.unlink()


def row(name: str, model: str, more: list[str], videos: list[str], folder: str) -> str:
    """Run the command in a process of its own, and format what it cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    labels = [part for label in LABELS for part in ("--label", label)]
    templates = "plain" if name == "xclip" else "photo"
    command = [sys.executable, "-m", "zsar_cli", "predict", *videos, *labels, "--model", model, *more]
    command += ["--workers", "1", "--format", "jsonl", "--templates", templates]
    environment = os.environ | {"ZSAR_CACHE_DIR": f"{folder}/cache-{name}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    records = [json.loads(line) for line in done.stdout.splitlines()]
    frames = records[0]["frames"] if records else "-"
    # the most of all processes so far: what a later one adds to it
    memory = f"{after.ru_maxrss / 1e6:.1f} GB"
    return f"| {name} | {frames} | {done.returncode} | {len(records)} | {taken:.0f} s | {memory} |"


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a tensor, quickly."""
    if shape == ():
        return torch.tensor(2.65926)
    values = torch.randn(shape)
    if len(shape) == 1:
        return 0.2 * values + (1.0 if name.endswith(".weight") else 0.0)
    return values / values[0].numel() ** 0.5


def clip(context: int = 77) -> dict[str, Tensor]:
    """Give OpenAI's ViT-B/16 with random values: the tests' CLIP with its last blocks repeated."""
    tensors = files.clip(**REAL, context=context)
    for name in [name for name in tensors if "resblocks.2." in name]:
        for layer in range(3, LAYERS):
            tensors[name.replace("resblocks.2.", f"resblocks.{layer}.")] = tensors[name].clone()
    return tensors


def contents() -> Any:
    """Yield each family with what its file holds, one at a time."""
    base = clip()
    named = files.in_encoders(base)
    del named["text_encoder.token_embedding.weight"]
    yield "vifi", files.with_settings(files.wrapped(named))
    yield "openvclip", {"model_state": files.wrapped(base, "model.")}
    own = files.head(4, 4, EMBED) | {
        "spe_cls_feature": torch.nn.functional.normalize(torch.randn(400, EMBED))
    }
    yield "mote", {"model_state_dict": files.visual(base), "fusion_model_state_dict": own}
    yield "xclip", files.with_settings(base | repeated(files.xclip_own(32, WIDTH, EMBED), 2))
    yield "tcclip", files.with_settings(files.wrapped(tcclip(named)))
    yield "viclip", {"model": viclip()}


def repeated(own: dict[str, Tensor], last: int) -> dict[str, Tensor]:
    """Repeat what the tests' three visual blocks have of a family for twelve."""
    mark = f"visual.transformer.resblocks.{last}."
    more = {
        name.replace(f"resblocks.{last}.", f"resblocks.{layer}."): tensor.clone()
        for name, tensor in own.items()
        if name.startswith(mark)
        for layer in range(last + 1, LAYERS)
    }
    return own | more


def tcclip(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give TC-CLIP's state dict: q, k and v apart, and its own tensors."""
    state: dict[str, Tensor] = {}
    for name, tensor in named.items():
        place, joined, kind = name.partition(".attn.in_proj_")
        if name.startswith("image_encoder.") and joined:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            state |= {f"{place}.attn.{letter}_proj.{kind}": part.clone() for letter, part in parts}
        else:
            state[name] = tensor
    layer = "text_encoder.prompt_generation_layer.0."
    own = files.block(layer, TEXT) | {"prompt_learner.ctx": (4, TEXT)}
    own |= {f"{layer}ln_1_kv.weight": (TEXT,), f"{layer}ln_1_kv.bias": (TEXT,)}
    table = "image_encoder.transformer.resblocks.{}.attn.local_global_bias_table"
    own |= {table.format(number): (WIDTH // 64, 1, 2) for number in range(1, LAYERS)}
    return state | {name: draw(name, shape) for name, shape in own.items()}


def viclip() -> dict[str, Tensor]:
    """Give ViCLIP's state dict."""
    state = {}
    for name, tensor in clip(context=32).items():
        place = (
            name.replace("visual.", "vision_encoder.", 1)
            if name.startswith("visual.")
            else f"text_encoder.{name}"
        )
        state[place] = tensor[:, :, None] if name == "visual.conv1.weight" else tensor
    state["temp"] = state.pop("text_encoder.logit_scale")
    return state | {"vision_encoder.temporal_positional_embedding": 0.02 * torch.randn(1, 8, WIDTH)}


if __name__ == "__main__":
    main()
