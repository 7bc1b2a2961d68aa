"""Where a label is seen: what each patch of a clip adds to a label's score.

The score is ``tau v·d_c`` with ``d_c = p_c - mean_j p_j`` over the other labels j: what tells c from them, as all texts
of a tower point much the same way.

A model with motion modules: integrated gradients (Sundararajan et al. 2017) of the patch tokens, on the way from the
still clip, whose tokens are their means over time, to the clip. Their sum is what motion adds to the score.

A plain CLIP: Grad-CAM (Selvaraju et al. 2017) where the patch tokens enter the tower's last block, less its mean over
the clip. Behind that block the patch tokens of most towers do not reach the embedding any more.

All are in logits, times the number of patches: as if the whole clip were like the patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from zsar_cli.model.backbone import CPU_PIXELS, FrameFeatures

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel

STACKS = ("transformer.resblocks", "trunk.blocks", "trunk.stages")  # of open_clip's towers, and of timm's
STEPS = 8  # of the integral, at Gauss and Legendre's places
TOKENS_AT_ONCE = 16384


def label_directions(positive: Tensor, columns: list[int], others: Tensor | None = None) -> Tensor:
    """``d_c`` (K, E) of some of C labels with prompts ``positive`` (C, E).

    Args:
        others: (P, E) other texts, for a label that has no other beside it.
    """
    positive = positive.float()
    chosen, count = positive[columns], len(positive)
    if count > 1:
        return chosen - (positive.sum(dim=0) - chosen) / (count - 1)
    return chosen if others is None or not len(others) else chosen - others.float().mean(dim=0)


def why_no_label_heat(model: RecognizerModel) -> str | None:
    """Why there is no heat for a label of this model; None where there is."""
    if model.msm is not None:
        return None
    family = model.backbone.family
    if family is not None and (family.across_frames or not family.embeds):
        return f"{model.name} scores a clip as a whole, and not its patches"
    if model.backbone.precision == "int8":
        return "int8 has no gradient; use --precision fp32"
    if _last_block(model.backbone.clip.visual) is None:
        return f"the blocks of {model.backbone.spec}'s visual tower are not known"
    return None


def motion_heat(model: RecognizerModel, features: FrameFeatures, directions: Tensor) -> Tensor:
    """Attribute the scores of K labels to the motion of each patch.

    Args:
        features: of one clip, with leading (T,).
        directions: (K, E), of :func:`label_directions`.

    Returns:
        (K, T, rows, columns), float32 on the CPU.
    """
    device = model.backbone.device
    with _gradients():
        tokens = features.tokens.detach().clone().float().to(device)  # (T, N, D)
        pooled = features.embedding.detach().clone().float().to(device)
        wanted = directions.clone().to(device)
        still = tokens.mean(dim=0, keepdim=True)
        places, weights = np.polynomial.legendre.leggauss(STEPS)
        at_once = max(1, TOKENS_AT_ONCE // (tokens.shape[0] * tokens.shape[1]))
        total = torch.zeros(len(wanted), *tokens.shape, device=device)
        for part in np.array_split(np.arange(STEPS), -(-STEPS // at_once)):
            way = torch.tensor((places[part] + 1) / 2, dtype=torch.float32, device=device)
            share = torch.tensor(weights[part] / 2, dtype=torch.float32, device=device)
            between = (still + (tokens - still) * way[:, None, None, None]).requires_grad_()
            clip = FrameFeatures(pooled.expand(len(part), *pooled.shape), between)
            scores = _scores(model, model.encode_video(clip).embedding, wanted)
            for number, score in enumerate(scores.T):
                (slope,) = torch.autograd.grad((score * share).sum(), between, retain_graph=True)
                total[number] += slope.sum(dim=0)
        heat = (total * (tokens - still)).sum(dim=-1) * (tokens.shape[0] * tokens.shape[1])
    of_patches: Tensor = heat.unflatten(-1, model.backbone.patch_grid)
    return of_patches.cpu()


def appearance_heat(
    model: RecognizerModel, frames: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Attribute the scores of K labels to the appearance of each patch, in a model without motion modules.

    Args:
        frames: a clip (T, h, w, 3) uint8.
        directions: (K, E), of :func:`label_directions`.

    Returns:
        (K, T, rows, columns), float32 on the CPU, and the last patch tokens (T, N, D); None where
        :func:`why_no_label_heat` says why.
    """
    block = _last_block(model.backbone.clip.visual)
    if block is None or why_no_label_heat(model) is not None:
        return None
    entered: list[Tensor] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered.append(inputs[0].detach().requires_grad_())
        torch.set_grad_enabled(True)  # from here on: the blocks before keep nothing
        return (entered[-1], *inputs[1:])

    hook = block.register_forward_pre_hook(enter)
    try:
        with _gradients():
            features = _encode(model, frames.clone())
            wanted = directions.clone().to(model.backbone.device)
            (scores,) = _scores(model, model.video_vectors(model.encode_video(features).embedding), wanted)
            slopes = [torch.autograd.grad(score, entered, retain_graph=True) for score in scores]
    finally:
        hook.remove()
    grid = model.backbone.patch_grid
    tokens = _patches([x.detach() for x in entered], grid)
    slope = torch.stack([_patches(list(of_label), grid).sum(dim=(0, 1)) for of_label in slopes])
    heat = (tokens - tokens.mean(dim=(0, 1))) @ slope.T  # (T, N, K)
    heat = heat.movedim(-1, 0).unflatten(-1, _grid_of(entered[0], grid))
    return heat.cpu(), features.tokens[0].detach()


@contextmanager
def _gradients() -> Iterator[None]:
    """Gradients, also inside of ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _scores(model: RecognizerModel, video: Tensor, directions: Tensor) -> Tensor:
    return model.log_scale.detach().exp() * (video @ directions.T)


def _last_block(visual: nn.Module) -> nn.Module | None:
    """Find the last block of a visual tower; None in a tower whose blocks are not known."""
    for name in STACKS:
        stack: Any = visual
        for part in name.split("."):
            stack = getattr(stack, part, None)
        if isinstance(stack, (nn.ModuleList, nn.Sequential)) and len(stack):
            return stack[-1]
    layer = getattr(visual, "layer4", None)  # CLIP's ResNets
    return layer if isinstance(layer, nn.Module) else None


def _encode(model: RecognizerModel, frames: Tensor) -> FrameFeatures:
    """Compute the features (1, T, ...) of one clip, some frames at a time as in ``Backbone.encode_frames``."""
    backbone = model.backbone
    pixels = backbone.normalise(frames.to(backbone.device))
    parts = []
    for part in pixels.split(max(1, CPU_PIXELS // (pixels.shape[-2] * pixels.shape[-1]))):
        with torch.no_grad():
            parts.append(backbone._encode_frames(part))
    return FrameFeatures(
        torch.cat([part.embedding for part in parts])[None], torch.cat([part.tokens for part in parts])[None]
    )


def _patches(parts: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """Take a block's input as (T, N, D), without class and other extra tokens; maps (T, D, rows, columns) too."""
    x = torch.cat(parts).float()
    if x.ndim == 4:
        return x.flatten(2).transpose(1, 2)
    return x[:, -grid[0] * grid[1] :]


def _grid_of(x: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    return (x.shape[2], x.shape[3]) if x.ndim == 4 else grid
