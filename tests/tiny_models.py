"""Tiny random image-text models in the form of open_clip's directories, so that tests take the real loading path."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.material import random_clip as large_clip  # noqa: F401 - for tests

# CLIP's own layout: class token, causal text tower, CLIP's tokenizer.
VIT: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
# SigLIP's layout: timm tower without class token, attention pooling, text tower without causal mask, logit bias.
SIGLIP: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
# PE-Core's layout: timm tower, causal text tower of a short context.
PE: dict[str, Any] = {
    "embed_dim": 64,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": None},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
# MobileCLIP's layout: a convolutional tower, whose features are maps.
CONVOLUTIONAL: dict[str, Any] = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "test_convnext",
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
RESNET: dict[str, Any] = {**VIT, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
COCA: dict[str, Any] = {
    **VIT,
    "multimodal_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "custom_text": True,
    "vision_cfg": {
        **VIT["vision_cfg"],
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {**VIT["text_cfg"], "context_length": 8, "embed_cls": True, "output_tokens": True},
}
TIMM: dict[str, Any] = {**SIGLIP, "vision_cfg": {**SIGLIP["vision_cfg"], "image_size": 160}}  # as test_vit is
# Every kind of visual tower that predict runs
TOWERS = {
    "vit": VIT, "siglip": TIMM, "pe": TIMM, "convolutional": CONVOLUTIONAL, "resnet": RESNET, "coca": COCA,
}  # fmt: skip
LAYOUTS = {"vit": VIT, "siglip": SIGLIP, "pe": PE, "convolutional": CONVOLUTIONAL}


def make_tiny_clip(
    directory: Path, layout: str = "vit", *, seed: int = 0, preprocess_cfg: dict[str, Any] | None = None
) -> Path:
    """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``; the same seed gives the same weights.

    The directory is then a model by itself: ``zsar predict --model DIRECTORY``.
    """
    from zsar_cli.model.backbone import Backbone

    directory.mkdir(parents=True, exist_ok=True)
    config = deepcopy(LAYOUTS[layout])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = Backbone.from_config(config).clip
    description = {"model_cfg": config, "preprocess_cfg": preprocess_cfg or {}}
    (directory / "open_clip_config.json").write_text(json.dumps(description), encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
    save_file(tensors, directory / "open_clip_model.safetensors")
    return directory


def tiny_backbone(tower: str) -> Any:
    """Build a model with a visual tower of this kind."""
    from zsar_cli.model.backbone import Backbone

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone.from_config(TOWERS[tower], spec=tower)
        if tower == "pe":
            backbone.clip.visual.trunk = pe_trunk()
    return backbone


def pe_trunk() -> torch.nn.Module:
    """Make a trunk of PE's kind, of which timm has no tiny one by name."""
    from timm.models.eva import Eva

    trunk = Eva(
        img_size=160, patch_size=16, embed_dim=64, depth=2, num_heads=2, num_classes=0, global_pool="map",
        attn_type="rope", use_rot_pos_emb=True, ref_feat_shape=(10, 10), rope_grid_offset=1.0,
    )  # fmt: skip
    return trunk.eval()


class LettersTokenizer:
    """Stands in for the SigLIP tokenizer, which comes from a hub: any ids will do for random weights."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[ord(letter) % 1000 for letter in text[: self.length]] for text in texts]
        return torch.tensor([row + [1] * (self.length - len(row)) for row in rows])
