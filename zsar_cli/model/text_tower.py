"""The text tower of an open_clip model, without the padding of short texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


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


def warn_truncated(
    spec: str, texts: Sequence[str], context_length: int, tokenizer: Callable[[], Any]
) -> None:
    """Log a warning that names the texts longer than the context; ``tokenizer`` is asked for only if one might be."""
    longer = [text for text in texts if not _surely_fits(text, context_length)]
    cut = [text for text in longer if _token_count(text, tokenizer()) > context_length]
    if cut:
        quoted = ", ".join(repr(text if len(text) <= 80 else f"{text[:77]}...") for text in cut[:5])
        more = f" and {len(cut) - 5} more" if len(cut) > 5 else ""
        logger.warning("%s encodes %d tokens of a text; truncated: %s%s.", spec, context_length, quoted, more)


def _surely_fits(text: str, context_length: int) -> bool:
    """Tell by its length that a text fits: a token is a character of ASCII or more.

    Besides there are the marks of start and end, and some tokenizers put a space in front.
    """
    return len(text) + 4 <= context_length and text.isascii()


def _token_count(text: str, tokenizer: Any) -> int:
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:  # Hugging Face's: it adds its own marks
        return len(inner(tokenizer.clean_fn(text)).input_ids)
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) + 2  # start and end
    return 0


class _TextTower(nn.Module):
    """A model whose forward is ``encode_text``, as ``functional_call`` wants it."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip

    def forward(self, tokens: Tensor) -> Tensor:
        embedding: Tensor = self.clip.encode_text(tokens)
        return embedding
