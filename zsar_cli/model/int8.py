"""Int8 inference of a vision transformer: on x86 with VNNI at four times the rate of fp32.

Weights are quantized per output channel, symmetrically. Activations are quantized per frame, dynamically, between
their minimum and maximum. Where this step is too coarse, the quantization residual is quantized too and multiplied
in a second product, which makes 16-bit activations. Accumulation is exact, and no frame depends on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zsar_cli.resources import available_cores

SPAN = 253  # quantization steps between minimum and maximum: two fewer than int8 has, so that rounding stays inside
# Largest quantization error, relative to the norm of the activations, without the second product. A normal
# distribution has 0.01; the outlier channels of large models have more.
TOLERANCE = 0.02
LEAST_WIDTH = 384  # of tokens: for narrower ones quantization takes the time that int8 saves


class Int8Linear(nn.Module):
    """``y = x W^T + b`` with W (M, K) in int8; ``fine`` always adds the product of the quantization residual."""

    def __init__(self, weight: Tensor, bias: Tensor | None, fine: bool) -> None:
        super().__init__()
        self.scale = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(weight.dtype).tiny)
        rounded = (weight / self.scale[:, None]).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = None if bias is None else bias.detach().clone()
        self.fine = fine

    def forward(self, x: Tensor) -> Tensor:
        """Map the tokens of one frame (1, N, K) to (1, N, M), float32."""
        if len(x) != 1:
            raise ValueError("int8 takes a frame at a time; use Backbone.encode_frames")
        x = x[0]
        least, greatest = min(float(x.amin()), 0.0), max(float(x.amax()), 0.0)
        if not math.isfinite(greatest - least):  # as in fp32; the scores are then reported as not finite
            return torch.full((1, len(x), len(self.scale)), math.nan)
        step = max(greatest - least, 1e-30) / SPAN
        zero = round(-least / step) - 127  # the zero point, in -128 to 127
        steps = torch.add(torch.tensor(float(zero)), x, alpha=1 / step)
        high = steps.round()
        y = self._product(high, step, zero, self.bias)
        if self.fine or is_coarse(x, step):
            y += self._product(steps.sub_(high).mul_(254).round_(), step / 254, 0, None)
        return y[None]

    def _product(self, x: Tensor, step: float, zero: int, bias: Tensor | None) -> Tensor:
        """Compute ``step (x - zero) W^T + bias`` of quantized x (N, K), whole numbers from -128 to 127."""
        # x + 128 by XOR takes a third of the time of a cast to uint8
        unsigned = x.to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned, step, zero + 128, self.weight, self.scale, self.zeros, bias,
            1.0, 0, torch.float32, "none", [], "",  # the output as it is
        )  # fmt: skip
        return product


def is_coarse(x: Tensor, step: float) -> bool:
    """Tell whether the quantization error, ``step^2 / 12`` in the mean square, exceeds the tolerance."""
    return step**2 / 12 > TOLERANCE**2 * float(x.flatten().dot(x.flatten())) / x.numel()


class Int8Attention(nn.Module):
    """Self-attention with int8 projections, in the place of an ``nn.MultiheadAttention`` without a mask."""

    def __init__(self, attention: nn.MultiheadAttention, fine: bool) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.qkv = Int8Linear(attention.in_proj_weight, attention.in_proj_bias, fine)
        self.out = Int8Linear(attention.out_proj.weight, attention.out_proj.bias, fine)

    def forward(self, x: Tensor, *_same: Tensor, **_unused: Any) -> tuple[Tensor, None]:
        """Map the tokens of one frame (1, N, D) to (1, N, D), and no attention weights."""
        q, k, v = self.qkv(x)[0].unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)  # (H, N, D / H)
        # For one frame faster than scaled_dot_product_attention
        weights = torch.baddbmm(q.new_empty(1), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(0, 1).flatten(1)[None]), None


# --- towers


@torch.no_grad()
def to_int8(visual: nn.Module, fine: bool) -> None:
    """Make a visual tower with :func:`int8_blocks` compute in int8: on the CPU, without gradients, a frame at a time.

    Args:
        visual: the tower, which is changed.
        fine: 16-bit activations everywhere, for a model that reads patch tokens: the quantization error averages
            out of the pooled embedding, but not of the tokens' differences in time.
    """
    for block in int8_blocks(visual):
        for module in list(block.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    setattr(module, name, Int8Linear(child.weight, child.bias, fine))
                elif isinstance(child, nn.MultiheadAttention):
                    setattr(module, name, Int8Attention(child, fine))


def int8_blocks(visual: Any) -> list[nn.Module]:
    """List the blocks of a tower that :func:`to_int8` knows: open_clip's own, timm's ViT and PE. Others give none."""
    if hasattr(visual, "trunk"):
        from timm.models.eva import EvaBlock
        from timm.models.vision_transformer import Block

        blocks = list(getattr(visual.trunk, "blocks", []))
        known = all(
            type(block) in (Block, EvaBlock)
            and getattr(block.attn, "q_bias", None) is None  # EVA's own attention reads its layers' weights
            for block in blocks
        )
    else:
        from open_clip.transformer import ResidualAttentionBlock

        blocks = list(getattr(getattr(visual, "transformer", None), "resblocks", []))
        known = all(type(block) is ResidualAttentionBlock and block.attn.batch_first for block in blocks)
    return blocks if known else []


# --- the processor


@cache
def cpu_has_int8() -> bool:
    """Tell whether int8 products are faster than fp32 on this processor, and right in this version of torch."""
    return has_vnni() and _sums_are_right()


def has_vnni() -> bool:
    """Tell whether the processor has VNNI, as far as Linux tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _sums_are_right() -> bool:
    """Try the operator, which is internal to torch: a version may lack it, or let sums overflow."""
    x = torch.cat([torch.linspace(-1, 1, 128), torch.ones(128)]).view(1, 8, 32)
    try:
        found = Int8Linear(torch.ones(32, 32), torch.zeros(32), fine=True)(x)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(found, x.sum(dim=-1, keepdim=True), atol=1e-2)


def each_on_a_core(encode: Callable[[Tensor], Any], frames: Sequence[Tensor]) -> list[Any]:
    """Run ``encode`` on each frame (1, 3, H, W), one a core, without gradients.

    One frame a core keeps the cores busier than one frame shared among all of them.
    """
    cores = torch.get_num_threads()

    def use_one_core() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # else this thread's first operator asks again how many it has

    def alone(frame: Tensor) -> Any:
        with torch.no_grad():
            return encode(frame)

    try:
        with ThreadPoolExecutor(min(cores, available_cores()), initializer=use_one_core) as pool:
            return list(pool.map(alone, frames))
    finally:
        torch.set_num_threads(cores)  # what threads to come start with
