"""Which family a published file is of, and how its names are those of a CLIP and of the family's own tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from zsar_cli.model.published import ezclip, tcclip, viclip, xclip
from zsar_cli.model.published.ezclip import EZCLIP
from zsar_cli.model.published.family import Family
from zsar_cli.model.published.openvclip import OpenVCLIP
from zsar_cli.model.published.ost import OST
from zsar_cli.model.published.records import families
from zsar_cli.model.published.tcclip import TCCLIP
from zsar_cli.model.published.temporal_head import ActionCLIP, TemporalHead, merge_experts
from zsar_cli.model.published.viclip import ViCLIP
from zsar_cli.model.published.xclip import XCLIP

Tensors: TypeAlias = "dict[str, Tensor]"

TITLES = {name: record.title for name, record in families().items()}
# Files of these cannot be told apart by their names: what the user says counts.
ALIKE = (
    frozenset(("vifi", "ost", "maxi")),
    frozenset(("openvclip", "froster")),
    frozenset(("text4vis", "bike", "actionclip")),
)
HEADS = ("mote", "text4vis", "bike", "actionclip")
# What a name in the file contains, or begins with (^), and the family that alone has it
SIGNS = (
    ("message_fc", "xclip"),
    ("local_global_bias_table", "tcclip"),
    ("mote_fusion_weight", "mote"),
    ("T_prompt_embeddings", "ezclip"),
    ("^vision_encoder.temporal_positional_embedding", "viclip"),
    ("^projector_v.", "froster"),
)
UNUSED = re.compile(  # constants, and what serves the training alone
    r"(.*\.)?(attn_mask|position_ids|num_batches_tracked)|input_resolution|context_length|vocab_size|projector_[vt]\..*"
    r"|prompt_learner\.(token_prefix|token_suffix|complete_text_embeddings|token_embedding\.weight)"
)


@dataclass(frozen=True)
class Geometry:
    """The sizes of a CLIP, read from the shapes of its tensors."""

    width: int
    patch: int
    image: int
    layers: int
    embed: int

    @property
    def backbone(self) -> str:
        """How papers call the tower, such as ViT-B/16."""
        letter = {512: "S", 768: "B", 1024: "L", 1280: "H"}.get(self.width, "?")
        return f"ViT-{letter}/{self.patch}"

    @property
    def base(self) -> str | None:
        """The name of OpenAI's CLIP of these sizes, by which open_clip knows it."""
        known = {
            (768, 32, 224): "ViT-B-32-quickgelu/openai",
            (768, 16, 224): "ViT-B-16-quickgelu/openai",
            (1024, 14, 224): "ViT-L-14-quickgelu/openai",
            (1024, 14, 336): "ViT-L-14-336-quickgelu/openai",
        }
        return known.get((self.width, self.patch, self.image))


def detect(names: Collection[str], wrapper: str = "") -> str | None:
    """Tell the family from a file's names, or None. ``wrapper``: the key that the state dict lay under."""
    for sign, family in SIGNS:
        if any(name.startswith(sign[1:]) if sign[0] == "^" else sign in name for name in names):
            return family
    if any(name.endswith("frame_position_embeddings.weight") for name in names):
        whole = any(name == "token_embedding.weight" for name in names)
        return "text4vis" if wrapper == "fusion inside" else "actionclip" if whole else "bike"
    if any(name.startswith("image_encoder.") for name in names):
        return "ost" if "text_encoder.token_embedding.weight" in names else "vifi"
    return "openvclip" if wrapper == "model_state" and "visual.conv1.weight" in names else None


def split(family: str, tensors: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
    """Split a file's tensors into those of a CLIP and the family's own, by the names that both have here."""
    used = {name: tensor for name, tensor in tensors.items() if not UNUSED.fullmatch(name)}
    if family in HEADS:
        own = {n.removeprefix("fusion_model."): t for n, t in used.items() if n.startswith("fusion_model.")}
        return {name: t for name, t in used.items() if not name.startswith("fusion_model.")}, merge_experts(
            own
        )
    if family in ("vifi", "ost", "maxi", "tcclip"):
        used = {
            name.replace("image_encoder.", "visual.", 1).removeprefix("text_encoder."): tensor
            for name, tensor in used.items()
        }
    ways: dict[str, Callable[[Mapping[str, Tensor]], tuple[Tensors, Tensors]]] = {
        "xclip": xclip.split,
        "tcclip": tcclip.split,
        "viclip": viclip.split,
        "ezclip": ezclip.split,
    }
    return ways[family](used) if family in ways else (used, {})


def make(family: str, own: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> Family:
    """Make a family's modules, not yet filled, at the sizes that its tensors and those of the whole CLIP have.

    Raises:
        KeyError, ValueError: tensors are missing, or of shapes that no such file has.
    """
    if family in HEADS:
        scale = 100.0 if family in ("mote", "bike") else None
        head = ActionCLIP if family == "actionclip" else TemporalHead
        return head(own, int(clip["ln_final.weight"].shape[0]), scale)
    if family == "tcclip":
        size = geometry(clip)
        return TCCLIP(own, size.layers, size.width // 64)
    if family in ("openvclip", "froster"):
        return OpenVCLIP()
    if family == "ost":
        return OST()
    with_own: dict[str, Callable[[Mapping[str, Tensor]], Family]] = {
        "xclip": XCLIP,
        "viclip": ViCLIP,
        "ezclip": EZCLIP,
    }
    return with_own[family](own) if family in with_own else Family()


def geometry(clip: Mapping[str, Tensor]) -> Geometry:
    """Read the sizes of the visual tower from its tensors. KeyError or ValueError where they are not there."""
    width, _, _, patch = clip["visual.conv1.weight"].shape
    side = round((len(clip["visual.positional_embedding"]) - 1) ** 0.5)
    embed = clip["visual.proj"].shape[1]
    return Geometry(width, patch, patch * side, count_layers(clip, "visual.transformer"), embed)


def count_layers(clip: Mapping[str, Tensor], tower: str) -> int:
    """Count the blocks of a tower."""
    pattern = re.compile(rf"{re.escape(tower)}\.resblocks\.(\d+)\.")
    return len({found[1] for name in clip if (found := pattern.match(name))})


def configuration(clip: Mapping[str, Tensor]) -> dict[str, object]:
    """Describe a whole CLIP as open_clip's ``model_cfg``. KeyError or ValueError where its tensors do not say it."""
    size = geometry(clip)
    length, text_width = clip["positional_embedding"].shape
    return {
        "embed_dim": size.embed,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": size.image,
            "patch_size": size.patch,
            "width": size.width,
            "layers": size.layers,
            "head_width": 64,
        },
        "text_cfg": {
            "context_length": length,
            "vocab_size": len(clip["token_embedding.weight"]),
            "width": text_width,
            "heads": text_width // 64,
            "layers": count_layers(clip, "transformer"),
        },
    }
