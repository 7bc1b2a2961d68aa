"""The optimisation of a run: its steps, its learning rates, AdamW, and the precision of a step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from zsar_cli.model.precision import DTYPES
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training.recipe import Recipe

PROBE_RATE = 5e-3  # ahead of what it reads, whose rates are lower


def total_steps(count: int, recipe: Recipe) -> int:
    """Count the optimiser steps of a run over ``count`` clips."""
    if recipe.steps is not None:
        return recipe.steps
    return max(recipe.least_steps, math.ceil(count * recipe.epochs / (recipe.drawn * recipe.accumulate)))


def validation_interval(steps: int, recipe: Recipe) -> int:
    """Choose how many steps lie between two validations."""
    return recipe.validate_every or max(1, steps // 12)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Compute the rate at a step as part of its peak: a linear warm-up, then half a cosine down to ``final_lr``."""
    warmup = max(1, round(steps * recipe.warmup))
    if step < warmup:
        return (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * along))


def make_optimizer(model: RecognizerModel, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW with separate rates for backbone, modules and negatives; no decay on gains, biases and scalars."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    blocks = tower_blocks(name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable(name, recipe))
        if parameter.requires_grad:
            rate = peak_rate(name, recipe) * recipe.layer_decay ** layers_above(name, blocks)
            decay = recipe.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), p in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=model.backbone.device.type in ("cpu", "cuda"),  # one pass over the weights instead of ten
    )


# As ViTs name them, timm's stages, and "layer1" of a ResNet
BLOCK = re.compile(r"^(backbone\..*?)\.(?:resblocks\.|blocks\.|layers\.|stages\.|layer\.?)(\d+)\.")
# What comes before the first block of a tower
STEM = re.compile(
    r"^backbone\.(?!.*attn_?pool).*(?:embed|conv\d|bn\d|stem|ln_pre|norm_pre|cls_token|reg_token)"
)


def tower_blocks(names: Iterable[str]) -> dict[str, set[int]]:
    """Find the numbers of the blocks of each tower, by the beginning of their parameters' names."""
    blocks: dict[str, set[int]] = {}
    for found in filter(None, map(BLOCK.match, names)):
        blocks.setdefault(found[1], set()).add(int(found[2]))
    return blocks


def layers_above(name: str, blocks: dict[str, set[int]]) -> int:
    """Count the blocks of its tower that come after a parameter; 0 for what is outside of the towers."""
    block = BLOCK.match(name)
    if block is not None:
        return sum(number > int(block[2]) for number in blocks[block[1]])
    if STEM.match(name) is None:
        return 0
    towers = {tower.removesuffix("transformer").removesuffix("trunk"): tower for tower in blocks}
    own = [start for start in towers if name.startswith(start)]
    return len(blocks[towers[max(own, key=len)]]) if own else 0


def peak_rate(name: str, recipe: Recipe) -> float:
    """Choose the highest learning rate of a parameter of the model."""
    if name.startswith("backbone."):
        return recipe.lr
    if name.startswith("probes."):
        return PROBE_RATE
    if recipe.negative_lr is not None and name.split(".")[0] in ("adapter", "log_negative_scale", "offset"):
        return recipe.negative_lr
    return recipe.module_lr


def trainable(name: str, recipe: Recipe) -> bool:
    """Tell whether a parameter of the model is trained: the backbone only with ``tune: full``.

    The backbone's own logit scale never is: the model has its own copy. Without MAB, nothing reads static tokens.
    """
    if name == "backbone.clip.logit_scale" or name == "backbone.clip.logit_bias":
        return False
    if not recipe.parts.aggregation and name.startswith(("msm.norm_static.", "msm.to_static.")):
        return False
    return recipe.tune == "full" or not name.startswith("backbone.")


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Compute the block in bf16 or fp16 where the recipe's precision is that; ``device`` is ``cpu`` or ``cuda``."""
    return torch.autocast(device, DTYPES[precision]) if precision in ("bf16", "fp16") else nullcontext()
