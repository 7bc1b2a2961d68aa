"""The text tower of an open_clip model, without the padding of short texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def trim(clip: Any, text_cfg: dict[str, Any], tokens: Tensor) -> Tensor:
    """Cut the padding at the end of token ids (P, L) where that changes nothing; on the CPU, as it reads them.

    A causal tower pooled at the end-of-text token never looks at what follows it, and labels fill a
    fraction of the context: at a quarter of the length a text costs about a quarter.
    """
    if not _trimmable(clip, text_cfg):
        return tokens
    return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]  # the end-of-text token has the highest id


def _trimmable(clip: Any, text_cfg: dict[str, Any]) -> bool:
    return (
        len(dict(_context_tensors(clip))) == 2
        and not any(text_cfg.get(key) for key in ("no_causal_mask", "embed_cls", "hf_model_name"))
        and text_cfg.get("pool_type", "argmax") == "argmax"
    )


def encode_tokens(clip: Any, text_cfg: dict[str, Any], tokens: Tensor) -> Tensor:
    """Embed token ids (P, L) as :func:`trim` left them."""
    if not _trimmable(clip, text_cfg):
        whole: Tensor = clip.encode_text(tokens)
        return whole
    names, length = dict(_context_tensors(clip)), tokens.shape[1]
    cut = {
        name: tensor[:length, :length] if "mask" in name else tensor[:length]
        for name, tensor in names.items()
    }
    trimmed: Tensor = torch.func.functional_call(_TextTower(clip), cut, (tokens,))
    return trimmed


def _context_tensors(clip: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the text tower's tensors that are as long as its context, by their names in :class:`_TextTower`."""
    prefix = "clip.text." if hasattr(clip, "text") else "clip."
    tower = getattr(clip, "text", clip)
    for name in ("positional_embedding", "attn_mask"):
        tensor = getattr(tower, name, None)
        if isinstance(tensor, Tensor):
            yield prefix + name, tensor


class _TextTower(nn.Module):
    """A model whose forward is ``encode_text``, as ``functional_call`` wants it."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip

    def forward(self, tokens: Tensor) -> Tensor:
        embedding: Tensor = self.clip.encode_text(tokens)
        return embedding
