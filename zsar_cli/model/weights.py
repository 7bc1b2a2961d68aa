"""Weights files to tensors, without running anything that a file may carry."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsar_cli.errors import UsageError, shown
from zsar_cli.files import require_file
from zsar_cli.model.pickle_check import check_archive, check_legacy, is_archive
from zsar_cli.resources import available_memory

LONGEST_NAME = 1000
MOST_COMMAS = 2_000_000  # in shapes and in metadata
HEADER_BYTES, ENTRIES = (
    100_000_000,
    20_000,
)  # the library's own limit; the largest CLIP has some 2,000 tensors
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
STATE_DICTS = ("state_dict", "model_state_dict", "model", "module", "state_dict_ema", "model_ema", "ema")
# Names that programs put before those of a model's own modules
WRAPPERS = re.compile(
    "module|_orig_mod|model|clip|clip_model|backbone|net|network|state_dict|ema|ema_model|model_ema|student|base_model"
)
# How the names of a CLIP begin, in open_clip's form and in those that it converts
OWN = re.compile(
    "visual|text|transformer|token_embedding|ln_final|text_projection|positional_embedding|logit_scale|logit_bias|"
    "text_decoder|image_encoder|text_encoder|vision_model|text_model"
)
# OpenAI's state dicts carry these sizes among the weights.
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")
SAMPLE = 512  # values of each tensor that the fingerprint looks at


@dataclass(frozen=True)
class Weights:
    """A model's tensors by name. ``openai``: in the form that OpenAI published, so trained with QuickGELU."""

    tensors: dict[str, Tensor]
    openai: bool = False


def read_weights(path: str | Path, published: str = "") -> Weights:
    """Read safetensors or a PyTorch checkpoint (``weights_only``), once it is known to hold no more than it is long.

    Training checkpoints are unwrapped, and the prefixes that wrappers leave (DataParallel, ``torch.compile``, a
    model that holds the CLIP) are taken off. Values lie in the file until they are used.

    Args:
        published: the ``ARCH/TAG`` that has OpenAI's weights of this architecture, to name for a TorchScript file.

    Raises:
        UsageError: no such file, a damaged or cut one, a TorchScript program, or a pickle that holds more than plain
            tensors (it is refused unread).
    """
    path = Path(path)
    found = read_safetensors(path) if is_safetensors(path) else read_pytorch(path, published)
    tensors = without_prefixes(_state_dict(found, path))
    check_kinds(tensors, path)
    sizes = [name for name in tensors if name in OPENAI_SIZES]
    return Weights(
        {name: t.detach() for name, t in tensors.items() if name not in sizes}, "input_resolution" in sizes
    )


def is_safetensors(path: Path) -> bool:
    """Tell whether a file of weights is safetensors, and not PyTorch's, by its name and how it begins.

    Raises:
        UsageError: no weights can be in it, or it only says where they are.
    """
    require_weights(path)
    with open(path, "rb") as handle:
        start = handle.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder.")
    if path.name.endswith(".index.json"):
        raise UsageError(f"{path} is the index of sharded weights; merge them into one safetensors file.")
    return path.suffix == ".safetensors" or start[8:9] == b"{"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        UsageError: it is no regular file, damaged, or lists more tensors than any model has.
    """
    from safetensors.torch import load_file

    check_header(path)
    try:
        tensors = load_file(path)
    except Exception as error:  # the library raises kinds of its own
        raise UsageError(
            f"{path} is not a complete safetensors file ({brief(error)}); download it again."
        ) from error
    check_kinds(tensors, path)
    return tensors


def require_weights(path: Path) -> None:
    """Raise UsageError where no weights can be in a file: a pipe, more than the memory, or little but holes."""
    require_file(path, "The weights")
    about = path.stat()
    if about.st_size > available_memory():
        raise UsageError(f"{path} is larger than the memory of this machine.")
    # some file systems count no blocks at all, and those that compress make little of weights
    if about.st_size > 100_000_000 and 0 < getattr(about, "st_blocks", 0) * 512 * 100 < about.st_size:
        raise UsageError(f"{path} is a sparse file with almost no content; download it again.")


def check_header(path: Path) -> None:
    """Raise UsageError where a safetensors file cannot hold weights, or lists far too many tensors."""
    require_weights(path)
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = handle.read(min(length, HEADER_BYTES))
    texts = header.count(b'"') - header.count(b'\\"')  # five of a tensor, two of each line of metadata
    if header.count(b"{") > ENTRIES or texts > 20 * ENTRIES or header.count(b",") > MOST_COMMAS:
        raise UsageError(f"{path} lists far more tensors than a model has; it was not opened.")


def read_pytorch(path: Path, published: str = "") -> Any:
    """Read what a PyTorch file holds (``weights_only``), after a look at its pickle; see :func:`read_weights`."""
    archive = is_archive(path)
    if archive:
        check_archive(path, published)
    else:
        check_legacy(path)
    try:
        with warnings.catch_warnings():  # about the pickle's protocol, which people can do nothing about
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # a damaged file can fail anywhere in torch.load
        raise UsageError(f"{path} is no weights file that PyTorch can read, or it is damaged.") from error


def _state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict inside what was read, which may lie inside others (Lightning, timm, DeepSpeed)."""
    for _ in range(4):
        inner = (found.get(key) for key in STATE_DICTS) if isinstance(found, dict) else ()
        found = next((value for value in inner if isinstance(value, dict) and value), found)
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{path} holds no model weights.")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(
                f"{path} is not the state dict of a model: its entry {shown(name)} is not a tensor."
            )
        if len(name) > LONGEST_NAME:  # prefixes are taken off one by one
            raise UsageError(
                f"{path} holds a tensor with a name of {len(name)} letters; no model's weights have it."
            )
    return found


def without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors to the names they have in the model, whatever wrapped it.

    What all names begin with is no part of them, nor what most do that a CLIP's own names follow; of what only some
    begin with, the names of common wrappers are taken off. A tensor of the shorter name that is there already stays.
    """
    while len(tensors) > 1 and (head := _common_head(tensors)) is not None:
        short = {name: name.removeprefix(f"{head}.") for name in tensors}
        if any(new != name and new in tensors for name, new in short.items()):
            break
        tensors = {short[name]: tensor for name, tensor in tensors.items()}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = name.replace("._orig_mod.", ".")
        while WRAPPERS.fullmatch((parts := own.partition("."))[0]) and parts[2]:
            own = parts[2]
        renamed[name if own in tensors or own in renamed else own] = tensor
    return renamed


def _common_head(names: Mapping[str, Tensor]) -> str | None:
    """Find what all names begin with, or most of them and a CLIP's own names behind it; None for a CLIP's own names."""
    heads = Counter(name.partition(".")[0] for name in names if "." in name)
    head, count = heads.most_common(1)[0] if heads else ("", 0)
    if OWN.fullmatch(head) or 2 * count <= len(names):
        return None
    inner = {part for name in names if name.startswith(f"{head}.") for part in name.split(".", 5)[1:5]}
    return head if count == len(names) or any(map(OWN.fullmatch, inner)) else None


def check_kinds(tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse all but plain tensors, together no larger than the file: an expanded one repeats a single value."""
    asked = 0
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.is_nested or tensor.dtype not in DTYPES:
            kind = str(tensor.dtype if plain else tensor.layout).removeprefix("torch.")
            raise UsageError(
                f"{path} holds {shown(name)} as {kind}; save the weights as plain tensors, in fp32 or fp16."
            )
        asked += tensor.numel() * tensor.element_size()
    if asked > 4 * path.stat().st_size + 1_000_000:
        raise UsageError(f"{path} describes far more values than it holds; download it again.")


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UsageError that names the tensor where one holds a NaN or an infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            # a NaN or an infinity always shows in the extremes, and nothing of the tensor's size is allocated
            low, high = torch.aminmax(tensor)
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise UsageError(
                    f"The weights in {path} are damaged: {name} holds values that are not finite."
                )


def hash_tensors(model_cfg: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash a configuration and a sample of each tensor's values, 16 hex digits."""
    digest = hashlib.sha256(json.dumps(model_cfg, sort_keys=True, default=list).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().flatten()
        if len(flat) > SAMPLE:
            flat = flat[torch.linspace(0, len(flat) - 1, SAMPLE, dtype=torch.float64).long().to(flat.device)]
        digest.update(flat.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def brief(error: Exception) -> str:
    """Cut an error to its first line, short enough to read."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
