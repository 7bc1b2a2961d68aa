"""TC-CLIP (Kim et al., ECCV 2024): frames share a few context tokens, and a label's prompt looks at them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.published.family import (
    Family,
    block,
    enter,
    join_heads,
    leave,
    patches,
    project,
    unit,
)

CONTEXT = 96  # tokens that all frames share
SEEDS = 0.3  # of a frame's patches, from which they are made
AT_ONCE = 100  # tokens that one round of merging takes away
PROMPT_HEADS = 8


class TCCLIP(Family):
    """Kept of a video: its embedding and the context for texts, (B, E + 96·E).

    Kept of a text: what the text tower's last block but one gives, and where the text ends, (C, L·W + 1).
    """

    across_frames = True
    own_text = True
    one_row = True
    unit_text = False
    embeds = False
    one_text = True

    def __init__(self, own: Mapping[str, Tensor], layers: int, heads: int) -> None:
        super().__init__()
        count, width = own["ctx"].shape
        self.ctx = nn.Parameter(torch.empty(count, width))
        self.tables = nn.ParameterList(torch.empty(heads, 1, 2) for _ in range(layers - 1))
        self.prompt = block(width, PROMPT_HEADS)
        self.prompt.ln_1_kv = nn.LayerNorm(width)

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W) as the rows that are kept."""
        visual, shape = clip.visual, pixels.shape[:2]
        x = enter(visual, patches(visual, pixels.flatten(0, 1)))
        context, table = None, None
        for number, layer in enumerate(visual.transformer.resblocks):
            if context is not None:
                table = self.tables[number - 1]
            attended, looked = attend_with_context(layer, x, context, table, shape[1])
            x = x + attended
            context = summarise(x, looked, shape)
            x, context = (part + layer.mlp(layer.ln_2(part)) for part in (x, context))
        assert context is not None
        video = leave(visual, x[:, 0]).unflatten(0, shape).mean(dim=1)
        kept = torch.cat([video, leave(visual, context).flatten(1)], dim=-1)
        return FrameFeatures(kept[:, None], kept.new_zeros(len(kept), 1, 0, 0))

    def kept(self, clip: Any, frames: int) -> int:
        """Give E + 96·E; with few frames the context has fewer tokens."""
        seeds = int(SEEDS * (len(clip.visual.positional_embedding) - 1))
        return super().kept(clip, frames) * (1 + min(CONTEXT, seeds * frames))

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """Keep what was encoded."""
        return features.embedding[:, 0].float()

    def encode_text(self, clip: Any, tokens: Tensor) -> Tensor:
        """Run all text blocks but the last, with the learned prompt in the place of "a photo of a"."""
        count = len(self.ctx)
        words = clip.token_embedding(tokens)
        x = torch.cat([words[:, :1], self.ctx.expand(len(words), -1, -1), words[:, 1 + count :]], dim=1)
        x = x + clip.positional_embedding[: x.shape[1]]
        mask = clip.attn_mask[: x.shape[1], : x.shape[1]]
        for layer in clip.transformer.resblocks[:-1]:
            x = layer(x, attn_mask=mask)
        return torch.cat([x.flatten(1), tokens.argmax(dim=-1, keepdim=True).to(x)], dim=-1).float()

    def text_embedding(self, clip: Any, text: Tensor) -> Tensor:
        """Read the texts without a video."""
        x, end = self._unpacked(text)
        return unit(self._finish(clip, x, end))

    def cosines(self, clip: Any, video: Tensor, text: Tensor, labels: int) -> Tensor:
        """Compare each video with the labels as they read for it; the last text block runs for each video."""
        x, end = self._unpacked(text)
        embed = clip.visual.proj.shape[1]
        rows = []
        for one in video:
            read = self._finish(clip, self._prompted(x, one[embed:].unflatten(0, (-1, embed))), end)
            rows.append(unit(read) @ unit(one[:embed]))
        return torch.stack(rows)

    def _unpacked(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Text states (C, L, W), and the place of each one's last token (C,)."""
        end = text[:, -1].long()
        x = text[:, :-1].unflatten(-1, (-1, self.ctx.shape[1]))
        return x[:, : int(end.max()) + 1], end  # nothing looks at what follows

    def _prompted(self, x: Tensor, context: Tensor) -> Tensor:
        """Text states (C, L, W) whose prompt has looked at one video's context (K, W)."""
        count, layer = len(self.ctx), self.prompt
        prompt, seen = x[:, 1 : 1 + count], layer.ln_1_kv(context).expand(len(x), -1, -1)
        prompt = prompt + layer.attention(layer.ln_1(prompt), seen, seen)
        prompt = prompt + layer.mlp(layer.ln_2(prompt))
        return torch.cat([x[:, :1], prompt, x[:, 1 + count :]], dim=1)

    def _finish(self, clip: Any, x: Tensor, end: Tensor) -> Tensor:
        """Run the last text block and project the last token: (C, E)."""
        length = x.shape[1]
        x = clip.transformer.resblocks[-1](x, attn_mask=clip.attn_mask[:length, :length])
        read: Tensor = clip.ln_final(x)[torch.arange(len(x)), end] @ clip.text_projection
        return read


def attend_with_context(
    layer: Any, x: Tensor, context: Tensor | None, table: Tensor | None, frames: int
) -> tuple[Tensor, Tensor]:
    """Attend from each frame's tokens x (B·T, 1 + P, D) to themselves and to their clip's context (B, K, D).

    ``table`` (heads, 1, 2) holds what is added to the logits of own tokens and of context tokens.

    Returns:
        What attention adds to x, and how much the class token looked at each patch (B·T, P), mean over heads.
    """
    q, k, v = project(layer.attn, layer.ln_1(x))
    own, bias = int(k.shape[2]), None
    if context is not None and table is not None:
        shared = project(layer.attn, layer.ln_1(context))[1:]
        k, v = (
            torch.cat([part, more.repeat_interleave(frames, dim=0)], dim=2)
            for part, more in zip((k, v), shared, strict=True)
        )
        lengths = torch.tensor([own, int(k.shape[2]) - own], device=x.device)
        bias = table[:, 0].repeat_interleave(lengths, dim=1)[:, None].to(q.dtype)
    attended = layer.attn.out_proj(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))
    logits = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    looked = (logits if bias is None else logits + bias).float().softmax(dim=-1).mean(dim=1)[:, 0, 1:own]
    return attended, looked


def summarise(x: Tensor, looked: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Merge the patches of a clip that the class tokens look at most into its context tokens (B, K, D)."""
    best = looked.topk(int(SEEDS * looked.shape[1]), dim=-1).indices
    seeds = x[:, 1:].gather(1, best[..., None].expand(-1, -1, x.shape[-1]))
    seeds = seeds.unflatten(0, shape).flatten(1, 2)
    size = torch.ones_like(seeds[..., :1])
    rounds, rest = divmod(max(0, int(seeds.shape[1]) - CONTEXT), AT_ONCE)
    for count in [AT_ONCE] * rounds + [rest]:
        while count > 0:  # a round cannot take away more than half
            merged = min(count, int(seeds.shape[1]) // 2)
            seeds, size = merge(seeds, size, merged)
            count -= merged
    return seeds


def merge(x: Tensor, size: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge ``count`` tokens into others by bipartite soft matching (Bolya et al., ICLR 2023).

    Of the tokens with even numbers, those with the nearest partner among the odd ones are merged into it; ``size``
    (B, N, 1) counts what each token already stands for.
    """
    even, odd = unit(x)[:, ::2], unit(x)[:, 1::2]
    closeness, partner = (even @ odd.transpose(1, 2)).max(dim=-1)
    order = closeness.argsort(dim=-1, descending=True)
    gone, stay = order[:, :count, None], order[:, count:, None]
    target = partner[..., None].gather(1, gone)

    def joined(values: Tensor) -> Tensor:
        wide = (-1, -1, values.shape[-1])
        from_even = values[:, ::2]
        into = values[:, 1::2].scatter_add(1, target.expand(wide), from_even.gather(1, gone.expand(wide)))
        return torch.cat([from_even.gather(1, stay.expand(wide)), into], dim=1)

    total = joined(size)
    return joined(x * size) / total, total


SEPARATE = re.compile(r"(visual\.transformer\.resblocks\.\d+\.attn\.)([qkv])_proj\.(weight|bias)")
TABLE = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.attn\.local_global_bias_table")
PROMPT = "prompt_generation_layer.0."


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split names, already without ``image_encoder`` and ``text_encoder``, into CLIP's and the family's own."""
    clip, own, parts = {}, {}, dict[tuple[str, str], dict[str, Tensor]]()
    for name, tensor in tensors.items():
        if separate := SEPARATE.fullmatch(name):
            parts.setdefault((separate[1], separate[3]), {})[separate[2]] = tensor
        elif table := TABLE.fullmatch(name):
            own[f"tables.{int(table[1]) - 1}"] = tensor
        elif name == "prompt_learner.ctx":
            own["ctx"] = tensor
        elif name.startswith(PROMPT):
            own[f"prompt.{name.removeprefix(PROMPT)}"] = tensor
        else:
            clip[name] = tensor
    for (place, kind), three in parts.items():
        if len(three) == 3:  # what is missing is told when the tensors are loaded
            clip[f"{place}in_proj_{kind}"] = torch.cat([three[letter] for letter in "qkv"])
    return clip, own
