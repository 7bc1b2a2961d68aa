"""What a run would cost, said before it begins: operations and memory, counted on a model without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training.fit import CHECKPOINTED, SHARE, Cost, clip_cost
from zsar_cli.training.recipe import Recipe

BACKWARD = 2  # times the operations of the forward pass
DECODING = 0.1  # s of one core for a clip of Kinetics, 340 by 256 pixels: docs/performance.md tells how to measure it
# Operations a second in training that a GPU comes to, by its compute capability: half of what its makers say or less
SPEEDS = {(9, 0): 280e12, (8, 9): 80e12, (8, 6): 50e12, (8, 0): 130e12, (7, 5): 25e12, (7, 0): 40e12}
SIZES = (80, 24)  # GB of GPUs


def describe_cost(recipe: Recipe, clips: int, device: str, workers: int) -> list[str]:
    """Describe what ``clips`` clips of training cost, line by line, and what may keep the device waiting."""
    cost = model_cost(recipe)
    if cost is None:
        return [f"cost       not counted: {recipe.model} is no architecture that open_clip names"]
    each = cost.flop * (1 + (BACKWARD if recipe.tune == "full" else 0))
    lines = [f"cost       {clips:,} clips of {each / 1e12:.3g} TFLOP: {clips * each / 1e15:,.3g} PFLOP"]
    if recipe.tune == "full":
        fits = " and ".join(
            f"{min(recipe.batch_size, max(1, int(SHARE * size * 1e9 / cost.bytes)))} on {size} GB"
            for size in SIZES
        )
        lines.append(
            f"memory     {cost.bytes / 1e9:.2g} GB a clip in fp32, a half of that in bf16, "
            f"{CHECKPOINTED:.0%} with gradient checkpointing; begins with {fits} at once"
        )
    speed = SPEEDS.get(torch.cuda.get_device_capability(device)) if device.startswith("cuda") else None
    if speed is not None and workers / DECODING < speed / each:
        lines.append(
            f"would wait {workers} decoding processes give some {workers / DECODING:.0f} clips/s, and the GPU could "
            f"take {speed / each:.0f}: more cores, smaller videos or fewer GPUs make better use of them"
        )
    return lines


def model_cost(recipe: Recipe) -> Cost | None:
    """Count what a clip costs in this recipe's model; None where its architecture is not known by name."""
    import open_clip
    from torch._subclasses.fake_tensor import FakeTensorMode

    found: dict[str, Any] | None = recipe.architecture
    if found is None:
        found = open_clip.get_model_config(recipe.model.split("/")[0])
    if found is None:
        return None
    with torch.device("meta"):
        model = RecognizerModel(Backbone.from_config(dict(found)), recipe.parts).train()
    with FakeTensorMode() as mode:
        for part in model.modules():  # Module.to refuses fake tensors
            for name, p in part._parameters.items():
                if p is not None:
                    part._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype))
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    if recipe.tune != "full":
        model.backbone.requires_grad_(False)
    return clip_cost(model, recipe.frames, mode)
