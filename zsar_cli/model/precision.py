"""The devices and the precisions that a backbone can run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from zsar_cli.distributed import own_device
from zsar_cli.errors import UsageError
from zsar_cli.resources import available_memory

if TYPE_CHECKING:
    from zsar_cli.model.backbone import Backbone

LEAST_WIDTH = 384  # of tokens: narrower towers gain nothing by bf16
# The dtype of what goes into the towers; in int8 the visual tower's layers quantize it themselves
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


def resolve_device(name: str = "auto") -> str:
    """Resolve ``auto``: CUDA, then MPS, then the CPU. UsageError for a device that is not there.

    Of several processes that torchrun started on a machine, each gets a GPU of its own for ``auto`` and ``cuda``.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    name = own_device(name)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"Unknown device {name!r}; there are auto, cpu, cuda, cuda:N and mps.") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = {"cpu": True, "mps": mps, "cuda": (device.index or 0) < count}
    if not present.get(device.type, False):
        raise UsageError(f"The device {name} is not available here; use --device auto or cpu.")
    return name


def check_precision(name: str, known: tuple[str, ...] = ("auto", *DTYPES)) -> None:
    """Raise UsageError for a precision that does not exist: said before weights are read."""
    if name not in known:
        raise UsageError(f"Unknown precision {name!r}; there are {', '.join(known)}.")


def resolve_precision(name: str, device: str, backbone: Backbone) -> str:
    """Resolve ``auto`` by the device alone, so that the same command gives the same answer on every CPU.

    That is bf16 on CUDA from Ampere on, for towers wide enough to gain, and fp32 elsewhere.

    Raises:
        UsageError: int8 was asked for on another device than a CPU.
    """
    if name == "int8" and device != "cpu":
        raise UsageError(f"int8 needs a CPU, not {device}; add --device cpu, or use --precision auto.")
    if name != "auto":
        return name
    if backbone.token_dim < LEAST_WIDTH or not device.startswith("cuda"):
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Let a GPU multiply what is left in float32 as TF32 in the block, unless the precision is fp32.

    TF32 keeps 10 bits of the mantissa, as bf16 keeps 7; fp32 means all of them, in cuDNN's convolutions too.
    """
    lower = precision != "fp32"
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = lower
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


def device_memory(device: torch.device) -> int:
    """Count a device's bytes; of the CPU and of MPS, those that this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return available_memory()


def trains_in(device: str) -> str:
    """Choose the precision that a device trains in fastest: bf16 or fp16 where it has units for it, else fp32."""
    if not device.startswith("cuda"):
        return "fp32"  # autocast takes 3 to 8 times as long on a CPU
    capability = torch.cuda.get_device_capability(device)
    return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"


def cast(clip: Any, precision: str) -> None:
    """Cast an open_clip model's weights to ``fp32``, ``bf16`` or ``fp16``; layer norms compute in fp32."""
    from open_clip.model import convert_weights_to_lp
    from open_clip.transformer import LayerNorm, LayerNormFp32

    scales = {name: p.data.float() for name, p in clip.named_parameters() if name.startswith("logit_")}
    if precision == "fp32":
        clip.float()
    elif hasattr(clip.visual, "trunk"):
        clip.to(DTYPES[precision])
    else:
        convert_weights_to_lp(clip, DTYPES[precision])
    for module in clip.modules():
        if isinstance(module, (LayerNorm, LayerNormFp32)):
            module.float()
            # open_clip picks between the two, which differ only in how forward casts, when it builds a model
            module.__class__ = LayerNorm if precision == "fp32" else LayerNormFp32
    for name, value in scales.items():
        getattr(clip, name).data = value
