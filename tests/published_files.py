"""Files in the formats of published checkpoints, tiny, with weights made by a rule, and logits known for them.

The rule and the logits (of the authors' own code, first clip) are facts; the formats are those of the authors' files.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsar_cli.model.published.load import load_published
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.text.embeddings import embed_labels
from zsar_cli.text.templates import Templates

BARE, PHOTO = Templates("bare", ("{}",), ()), Templates("photo", ("a photo of a {}.",), ())
LABELS = ["archery", "brush hair", "arm wrestling", "sword exercise", "apply eye makeup"]
EXPECTED = {  # of MoTE and BIKE the cosines
    "openvclip": [-0.334964, -0.2279941, 0.0366868, -0.4039157, -0.5228466],
    "froster": [-0.334964, -0.2279941, 0.0366868, -0.4039157, -0.5228466],
    "mote": [-0.0236848, -0.0205991, 0.0009113, -0.0311061, -0.0411758],
    "text4vis": [-1.8000013, -0.9495857, -0.7481064, -0.863308, -0.3169222],
    "bike": [-0.1260001, -0.066471, -0.0523674, -0.0604315, -0.0221846],
    "vifi": [-0.187843, -0.1185215, 0.15701, -0.3094822, -0.3671042],
    "xclip": [-1.905594, -1.7148483, -0.2378815, -1.6033355, -3.0303249],
    "tcclip": [0.6243633, 0.5586962, 0.7337407, 0.709038, 0.2918898],
    "viclip": [-2.2783527, -1.8975754, 0.0785444, -2.9022822, -3.4844122],
    "ezclip": [1.1568012, -2.6137996, -1.9987593, 1.2977667, -5.5307245],
}


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of a name: normal, from a seed that is the name's CRC-32, scaled by its kind."""
    if shape == ():
        return torch.tensor(2.65926)
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        values = 0.2 * values + (1.0 if name.endswith(".weight") else 0.0)
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A tensor for each name."""
    return {name: draw(name, shape) for name, shape in shapes.items()}


def pixels(shape: tuple[int, ...] = (2, 8, 3, 64, 64)) -> Tensor:
    """Clips as the models see them."""
    return torch.from_numpy(
        np.random.RandomState(zlib.crc32(b"pixels")).standard_normal(shape).astype(np.float32)
    )


def block(prefix: str, width: int, experts: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a pre-norm block; with ``experts``, of MoTE's."""
    linear = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width)}
    if experts == 0:
        linear |= {"mlp.c_fc.": (4 * width, width), "mlp.c_proj.": (width, 4 * width)}
    for i in range(experts):
        linear |= {f"mlp.fc_up.{i}.": (4 * width, width), f"mlp.fc_dn.{i}.": (width, 4 * width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in linear.items():
        shapes |= {f"{prefix}{name}weight": shape, f"{prefix}{name}bias": shape[:1]}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
    return shapes | ({f"{prefix}mlp.mote_fusion_weight": (experts,)} if experts else {})


@cache
def clip(
    image: int = 64, patch: int = 16, width: int = 128, text: int = 128, embed: int = 64, context: int = 77
) -> dict[str, Tensor]:
    """A CLIP of three blocks a tower, by OpenAI's names."""
    shapes = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((image // patch) ** 2 + 1, width),
        "visual.proj": (width, embed),
        "visual.conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (context, text),
        "text_projection": (text, embed),
        "logit_scale": (),
        "token_embedding.weight": (49408, text),
    }
    for name, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text)):
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for i in range(3):
        shapes |= block(f"visual.transformer.resblocks.{i}.", width) | block(
            f"transformer.resblocks.{i}.", text
        )
    return drawn(shapes)


def visual(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if name.startswith("visual.") or name == "logit_scale"}


def head(layers: int, experts: int = 0, embed: int = 64) -> dict[str, Tensor]:
    """The temporal head of MoTE, Text4Vis and BIKE."""
    shapes: dict[str, tuple[int, ...]] = {"frame_position_embeddings.weight": (77, embed)}
    for i in range(layers):
        shapes |= block(f"transformer.resblocks.{i}.", embed, experts)
    return drawn(shapes)


def in_encoders(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of ViFi-CLIP and its descendants."""
    names = {}
    for name, tensor in tensors.items():
        if name.startswith("visual."):
            name = name.replace("visual.", "image_encoder.", 1)
        elif name != "logit_scale":
            name = f"text_encoder.{name}"
        names[name] = tensor
    return names


def wrapped(tensors: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def with_settings(state: dict[str, Any]) -> dict[str, Any]:
    """As ViFi-CLIP, X-CLIP and TC-CLIP save: the training's settings are an object of a class of their own."""
    return {
        "model": state,
        "max_accuracy": 71.2,
        "epoch": 9,
        "config": settings(),
        "optimizer": {"state": {}},
    }


def settings() -> Any:
    """A dictionary of a class that a throw-away module has, as yacs' CfgNode is."""
    module = ModuleType("throw_away_settings")
    module.Settings = type("Settings", (dict,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    made = module.Settings(LR=0.1, MODEL=module.Settings(NAME="ViT-B/16"))
    made.__dict__["frozen"] = True
    return made


def xclip_own(frames: int = 8, width: int = 128, embed: int = 64) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "prompts_visual_proj": (width, embed),
        "prompts_visual_ln.weight": (width,),
        "prompts_visual_ln.bias": (width,),
        "prompts_generator.alpha": (embed,),
        "prompts_generator.norm.weight": (embed,),
        "prompts_generator.norm.bias": (embed,),
        "mit.positional_embedding": (1, frames, embed),
        **block("mit.resblocks.0.", embed),
    }
    for i in range(2):
        p = f"prompts_generator.decoder.{i}."
        shapes |= {f"{p}cross_attn.{n}_proj.weight": (embed, embed) for n in "qkv"}
        shapes |= {f"{p}cross_attn.proj.weight": (embed, embed), f"{p}cross_attn.proj.bias": (embed,)}
        shapes |= {
            f"{p}{norm}.{kind}": (embed,) for norm in ("norm1", "norm3") for kind in ("weight", "bias")
        }
        shapes |= {f"{p}mlp.0.weight": (4 * embed, embed), f"{p}mlp.0.bias": (4 * embed,)}
        shapes |= {f"{p}mlp.3.weight": (embed, 4 * embed), f"{p}mlp.3.bias": (embed,)}
    for i in range(3):
        p = f"visual.transformer.resblocks.{i}.message_"
        shapes |= {f"{p}fc.weight": (width, width), f"{p}fc.bias": (width,)}
        shapes |= {f"{p}ln.weight": (width,), f"{p}ln.bias": (width,)}
        shapes |= {f"{p}attn.in_proj_weight": (3 * width, width), f"{p}attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{p}attn.out_proj.weight": (width, width), f"{p}attn.out_proj.bias": (width,)}
    return drawn(shapes)


def tcclip_state() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The base CLIP, and TC-CLIP's state dict: q, k and v apart, no token embedding."""
    base = clip(image=224, width=768, text=512, embed=512)
    state: dict[str, Tensor] = {}
    for name, tensor in in_encoders(base).items():
        if name.startswith("image_encoder.") and ".attn.in_proj_" in name:
            place, kind = name.split("in_proj_")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{place}{letter}_proj.{kind}"] = part.clone()
        elif name != "text_encoder.token_embedding.weight":
            state[name] = tensor
    layer = "text_encoder.prompt_generation_layer.0."
    own: dict[str, tuple[int, ...]] = block(layer, 512) | {"prompt_learner.ctx": (4, 512)}
    own |= {f"{layer}ln_1_kv.weight": (512,), f"{layer}ln_1_kv.bias": (512,)}
    own |= {
        f"image_encoder.transformer.resblocks.{i}.attn.local_global_bias_table": (12, 1, 2) for i in (1, 2)
    }
    return base, state | drawn(own) | {"prompt_learner.token_prefix": torch.zeros(5, 1, 512)}


def viclip_state() -> dict[str, Tensor]:
    """ViCLIP's state dict."""
    state = {}
    for name, tensor in clip(context=32).items():
        if name == "visual.conv1.weight":
            tensor = tensor[:, :, None]
        name = (
            name.replace("visual.", "vision_encoder.", 1)
            if name.startswith("visual.")
            else f"text_encoder.{name}"
        )
        state[name] = tensor
    state["temp"] = state.pop("text_encoder.logit_scale")
    state["vision_encoder.temporal_positional_embedding"] = draw(
        "visual.temporal_positional_embedding", (1, 8, 128)
    )
    return state


def ezclip_state() -> dict[str, Tensor]:
    """EZ-CLIP's state dict."""
    own: dict[str, tuple[int, ...]] = {
        "visual.temporal_embedding": (1, 8, 128),
        "visual.transformer.T_prompt_embeddings": (3, 8, 128),
    }
    for tower in ("visual.transformer", "transformer"):
        for i in range(3):
            p = f"{tower}.resblocks.{i}.Adapter."
            own |= {f"{p}D_fc1.weight": (32, 128), f"{p}D_fc1.bias": (32,)}
            own |= {f"{p}D_fc2.weight": (128, 32), f"{p}D_fc2.bias": (128,)}
    return clip() | drawn(own)


def learned_classes(label_vectors: Tensor) -> Tensor:
    """What MoTE stores of the 400 classes of its training: near the labels here, so that the gate opens."""
    rows = label_vectors.repeat(80, 1) + 0.5 * draw("spe_cls_feature", (400, label_vectors.shape[1]))
    return torch.nn.functional.normalize(rows, dim=-1)


def content(family: str, label_vectors: Tensor | None = None) -> dict[str, Any]:
    """What a file of a family holds, in its authors' format; MoTE's holds vectors like those of the labels."""
    base = clip() if family in ("openvclip", "froster", "vifi", "maxi", "ost", "xclip") else {}
    if family in ("openvclip", "froster"):
        more = (
            drawn({"projector_v.0.weight": (64, 64), "projector_t.2.bias": (64,)})
            if family == "froster"
            else {}
        )
        return {"epoch": 21, "model_state": wrapped(base | more, "model.")}
    if family in ("vifi", "maxi", "ost"):
        state = in_encoders(base) | {"prompt_learner.complete_text_embeddings": torch.zeros(4, 77, 128)}
        if family != "ost":
            del state["text_encoder.token_embedding.weight"]
        return with_settings(wrapped(state))
    if family == "xclip":
        return with_settings(base | xclip_own())
    if family == "tcclip":
        return with_settings(wrapped(tcclip_state()[1]))
    if family == "viclip":
        return {"model": viclip_state()}
    if family == "ezclip":
        return {"epoch": 1, "model_state_dict": ezclip_state()}
    tower = visual(clip())
    if family == "mote":
        assert label_vectors is not None
        own = head(2, 4) | {"spe_cls_feature": learned_classes(label_vectors)}
    else:
        own = head(6)
    inside = wrapped(own, "fusion_model.") if family == "text4vis" else {}
    return {
        "epoch": 5,
        "model_state_dict": wrapped(tower | inside),
        "fusion_model_state_dict": wrapped(own),
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }


def write(folder: Path, family: str, state: dict[str, Any], *, legacy: bool = False) -> Path:
    """Write a file as its authors' code does; the class of its settings is gone afterwards."""
    path = folder / f"{family}.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    sys.modules.pop("throw_away_settings", None)
    return path


def loader(folder: Path) -> Callable[[str], RecognizerModel]:
    """Load a family's model, from a file in ``folder`` as its authors write it; each is loaded once."""
    torch.save(clip(), folder / "base.pt")

    @cache
    def loaded(family: str) -> RecognizerModel:
        vectors = texts(loaded("openvclip")) if family == "mote" else None
        base = folder / "base.pt"
        if family == "tcclip":
            base = folder / "tcclip_base.pt"
            torch.save(tcclip_state()[0], base)
        path = write(folder, family, content(family, vectors))
        return RecognizerModel(load_published(family, path, base=str(base)), as_published=True)

    return loaded


def texts(model: RecognizerModel) -> Tensor:
    """Embed the labels."""
    templates = BARE if model.backbone.family.name == "xclip" else PHOTO
    return embed_labels(model, LABELS, templates, bank=False).positive
