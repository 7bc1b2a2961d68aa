"""X-CLIP (Ni et al., ECCV 2022): frames exchange messages, and a label's text looks at the video."""

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
    split_heads,
    unit,
)


class XCLIP(Family):
    """Kept of a video: its embedding v and the context that texts look at, (B, E + P·E); of a text: its embedding."""

    across_frames = True
    own_text = True
    one_row = True
    unit_text = False
    embeds = False

    def __init__(self, own: Mapping[str, Tensor]) -> None:
        super().__init__()
        width, embed = own["prompts_visual_proj"].shape
        self.frames = own["mit.positional_embedding"].shape[1]
        self.messages = nn.ModuleList(_Message(width) for _ in range(_count(own, r"messages\.(\d+)\.")))
        self.mit = nn.Module()
        self.mit.positional_embedding = nn.Parameter(torch.empty(1, self.frames, embed))
        self.mit.resblocks = nn.ModuleList(
            block(embed, embed // 64) for _ in range(_count(own, r"mit\.resblocks\.(\d+)\."))
        )
        self.prompts_visual_ln = nn.LayerNorm(width)
        self.prompts_visual_proj = nn.Parameter(torch.empty(width, embed))
        self.prompts_generator = _Prompts(embed, _count(own, r"prompts_generator\.decoder\.(\d+)\."))

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W) as the rows that are kept."""
        shape = pixels.shape[:2]
        x = enter(clip.visual, patches(clip.visual, pixels.flatten(0, 1)))
        for layer, message in zip(clip.visual.transformer.resblocks, self.messages, strict=True):
            said = message(x[:, 0].unflatten(0, shape)).flatten(0, 1)
            x = torch.cat([x, said[:, None]], dim=1)
            x = (x + layer.attention(layer.ln_1(x)))[:, :-1]
            x = x + layer.mlp(layer.ln_2(x))
        frames = leave(clip.visual, x[:, 0]).unflatten(0, shape)
        over_time = frames + self.mit.positional_embedding
        for layer in self.mit.resblocks:  # type: ignore[union-attr]
            over_time = layer(over_time)
        video = (frames + over_time).mean(dim=1)
        context = (
            (self.prompts_visual_ln(x[:, 1:]) @ self.prompts_visual_proj).unflatten(0, shape).mean(dim=1)
        )
        kept = torch.cat([video, context.flatten(1)], dim=-1)
        return FrameFeatures(kept[:, None], kept.new_zeros(len(kept), 1, 0, 0))

    def kept(self, clip: Any, frames: int) -> int:
        """Give E + P·E."""
        return super().kept(clip, frames) * len(clip.visual.positional_embedding)

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """Keep what was encoded."""
        return features.embedding[:, 0].float()

    def encode_text(self, clip: Any, tokens: Tensor) -> Tensor:
        """Keep text embeddings (C, E) as the tower has them: their length counts beside the prompts'."""
        text: Tensor = clip.encode_text(tokens).float()
        return text

    def cosines(self, clip: Any, video: Tensor, text: Tensor, labels: int) -> Tensor:
        """Compare each video with the labels as they read for it."""
        embed = text.shape[-1]
        context = video[:, embed:].unflatten(-1, (-1, embed))
        prompted = self.prompts_generator(text.expand(len(video), -1, -1), context)
        similarity: Tensor = (unit(prompted) @ unit(video[:, :embed])[..., None]).squeeze(-1)
        return similarity


class _Message(nn.Module):
    """What the frames of a clip tell each other before a block, from their class tokens (B, T, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc, self.ln = nn.Linear(width, width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)

    def forward(self, start: Tensor) -> Tensor:
        said: Tensor = self.fc(start)
        heard = self.ln(said)
        answer: Tensor = self.attn(heard, heard, heard, need_weights=False)[0]
        return said + answer


class _Prompts(nn.Module):
    """Text embeddings (B, C, E) with what they find in a video's context (B, P, E) added."""

    def __init__(self, embed: int, layers: int) -> None:
        super().__init__()
        self.norm, self.alpha = nn.LayerNorm(embed), nn.Parameter(torch.empty(embed))
        self.decoder = nn.ModuleList(_Decoder(embed) for _ in range(layers))

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        context, found = self.norm(context), text
        for layer in self.decoder:
            found = layer(found, context)
        return text + self.alpha * found


class _Decoder(nn.Module):
    def __init__(self, embed: int) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.cross_attn = _CrossAttention(embed)
        self.mlp = nn.ModuleDict({"0": nn.Linear(embed, 4 * embed), "3": nn.Linear(4 * embed, embed)})

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        text = text + self.cross_attn(self.norm1(text), context)
        inner = self.mlp["0"](self.norm3(text))
        found: Tensor = text + self.mlp["3"](inner * torch.sigmoid(1.702 * inner))
        return found


class _CrossAttention(nn.Module):
    def __init__(self, embed: int) -> None:
        super().__init__()
        self.heads = embed // 64
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(embed, embed, bias=False) for _ in range(3))
        self.proj = nn.Linear(embed, embed)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.q_proj(text), self.k_proj(context), self.v_proj(context)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        attended: Tensor = self.proj(join_heads(F.scaled_dot_product_attention(q, k, v)))
        return attended


def _count(own: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in own if (found := re.match(pattern, name))})


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the authors' names into those of the CLIP and of the family's own modules."""
    clip, own = {}, {}
    for name, tensor in tensors.items():
        message = re.fullmatch(r"visual\.transformer\.resblocks\.(\d+)\.message_(.+)", name)
        if message:
            own[f"messages.{message[1]}.{message[2]}"] = tensor
        elif name.startswith(("mit.", "prompts_")):
            own[name] = tensor
        else:
            clip[name] = tensor
    return clip, own


# Names of transformers, part by part, and the authors' names for them
RENAMED = (
    (r"text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.", "ln_final."),
    (r"text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layernorm\.", "visual.ln_pre."),
    (r"vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"mit\.position_embedding", "mit.positional_embedding"),
    (r"mit\.encoder\.layers\.", "mit.resblocks."),
    (r"prompts_visual_layernorm\.", "prompts_visual_ln."),
    (r"prompts_visual_projection", "prompts_visual_proj"),
    (r"prompts_generator\.layernorm\.", "prompts_generator.norm."),
    (r"visual_projection\.weight", "visual.proj"),
    (r"text_projection\.weight", "text_projection"),
)
IN_BLOCKS = (
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)
JOINED = re.compile(r"(.*(?:\.attn|\.message_attn)\.)([qkv])_proj\.(weight|bias)")


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Hugging Face's ``XCLIPModel`` as the authors have them; q, k and v are joined."""
    renamed, parts = {}, dict[tuple[str, str], dict[str, Tensor]]()
    for name, tensor in tensors.items():
        if name.endswith(".position_ids"):
            continue
        new = name
        for old, ours in RENAMED:
            new, found = re.subn(f"^{old}", ours, new)
            if found:
                break
        for old, ours in IN_BLOCKS:
            new = re.sub(old, ours, new)
        if joined := JOINED.fullmatch(new):
            parts.setdefault((joined[1], joined[3]), {})[joined[2]] = tensor
        else:
            renamed[new] = (
                tensor.T if name in ("visual_projection.weight", "text_projection.weight") else tensor
            )
    for (place, kind), three in parts.items():
        if len(three) == 3:  # what is missing is told when the tensors are loaded
            renamed[f"{place}in_proj_{kind}"] = torch.cat([three[letter] for letter in "qkv"])
    return renamed
