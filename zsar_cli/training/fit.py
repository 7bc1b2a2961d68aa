"""How many clips go through the model at once in training, so that it fits the device; it decides nothing else.

Where the guess is too high, memory runs out, and :class:`zsar_cli.training.step.StepGradient` goes on with half.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zsar_cli.model.precision import device_memory
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training.recipe import Recipe

logger = logging.getLogger(__name__)
# Of a GPU's memory for activations in fp32: 32 clips of 8 frames of ViT-B/16 on 80 GB
SHARE = 0.41
STATE = 16  # bytes a trained parameter: itself, its gradient and AdamW's two moments
CHECKPOINTED = 0.25  # of the activations that are kept with gradient checkpointing
FEW = 4  # clips at once; where there is no room for so many, activations are computed again
# On a CPU more at once is no faster: the frames of two clips of ViT-B/16, or what modules need of sixteen
CPU_PIXELS = 16 * 224 * 224
CPU_PIXELS_OF_MODULES = 8 * CPU_PIXELS
WITHOUT_COUNT = 32  # where the activations of a tower cannot be counted


@dataclass(frozen=True)
class Cost:
    """What a clip costs in training, counted without computing it."""

    bytes: int  # kept for the backward pass, in fp32 and without gradient checkpointing
    flop: int  # of the forward pass


def clip_cost(model: RecognizerModel, frames: int, mode: Any = None) -> Cost:
    """Count what a clip of so many frames costs, on fake tensors: nothing is computed, however large the model.

    Args:
        mode: the FakeTensorMode that the model was built in, if it was.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    mode = mode or FakeTensorMode(allow_non_fake_inputs=True)

    def count(clips: int) -> tuple[int, int]:
        kept: dict[int, Tensor] = {}  # by storage: some are kept more than once

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with mode, FlopCounterMode(display=False) as counter:
            pixels = torch.empty(clips, frames, 3, *model.preprocess.size, device=model.backbone.device)
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                encoding = model(pixels)
            size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
            del encoding
        return size, counter.get_total_flops()

    (one, flop), (two, _) = count(1), count(2)
    return Cost(two - one, flop)  # the difference is without what all clips share, such as weights


def micro_batch(model: RecognizerModel, recipe: Recipe, share: int) -> tuple[int, bool]:
    """Choose how many of a process's ``share`` of clips to begin with at once, and whether to checkpoint.

    Returns:
        the clips, and whether activations inside the towers are computed again in the backward pass.
    """
    wanted = recipe.gradient_checkpointing
    if model.backbone.device.type == "cpu":
        height, width = model.preprocess.size
        pixels = CPU_PIXELS if recipe.tune == "full" else CPU_PIXELS_OF_MODULES
        return _even(share, pixels // (recipe.frames * height * width)), bool(wanted)
    room = most_clips(model, recipe)
    checkpoint = room < min(FEW, share) if wanted is None else wanted
    return _even(share, int(room / (CHECKPOINTED if checkpoint else 1.0))), checkpoint


def _even(share: int, most: int) -> int:
    """Divide clips evenly into as few portions as there can be of at most so many."""
    portions = -(-share // max(1, most))
    return -(-share // max(1, portions))


def most_clips(model: RecognizerModel, recipe: Recipe) -> float:
    """Estimate how many clips' activations the device has room for, without gradient checkpointing."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    try:
        cost = clip_cost(model, recipe.frames)
    except Exception as error:  # fake tensors do not know every operator
        logger.info("the activations of a clip cannot be counted (%s)", type(error).__name__)
        return WITHOUT_COUNT
    room = SHARE * device_memory(model.backbone.device) - STATE * trained
    return max(0.0, room / max(1, cost.bytes))
