"""From a configuration to an open_clip model, and from a checkpoint's tensors into it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zsar_cli.errors import UsageError, shown
from zsar_cli.model.hub import WeightsSource
from zsar_cli.model.weights import brief, check_finite
from zsar_cli.resources import available_memory
from zsar_cli.video.transforms import Preprocess

# Functions that draw random weights, and those that allocate
DRAWING = frozenset(("normal_", "uniform_", "trunc_normal_", "erfinv_"))
FACTORIES = frozenset(
    ("empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm", "arange", "linspace", "eye")
)
TOO_LARGE = "The model {} would need more memory than there is."
EACH = 10_000  # values that a tensor counts for besides its own: a million tiny ones take long too


def build(model_cfg: dict[str, Any], spec: str) -> Any:
    """Build the open_clip model that a configuration describes, with random weights; nothing is fetched from a hub."""
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    cfg = deepcopy(model_cfg)
    try:
        custom_text = cfg.pop("custom_text", False) or "hf_model_name" in cfg["text_cfg"]
        kind = CoCa if "multimodal_cfg" in cfg else CustomTextCLIP if custom_text else CLIP
        if "timm_model_name" in cfg["vision_cfg"]:
            cfg["vision_cfg"]["timm_model_pretrained"] = False  # all weights come with the checkpoint
        if "hf_model_name" in cfg["text_cfg"]:
            cfg["text_cfg"]["hf_model_pretrained"] = False
        int(cfg["embed_dim"])
        return kind(**cfg)
    except (MemoryError, UsageError):
        raise
    except Exception as error:  # whatever a wrong size or name sets off inside open_clip or timm
        if "t allocate memory" in str(error):
            raise UsageError(TOO_LARGE.format(spec)) from error
        raise UsageError(f"open_clip cannot build the architecture of {spec}: {brief(error)}") from error


class _BoundedMemory(TorchFunctionMode):
    """Limits how many values new tensors may have. ``drawn``: they are initialised, else left as allocated."""

    def __init__(self, most: float, refusal: str, *, drawn: bool) -> None:
        super().__init__()
        self.left, self.refusal, self.drawn = most, refusal, drawn

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in DRAWING and not self.drawn:
            return args[0] if args else kwargs["tensor"]
        if name in FACTORIES and "out" not in kwargs:
            self.left -= func(*args, **kwargs | {"device": "meta"}).numel() + EACH
            if self.left < 0:
                raise UsageError(self.refusal)
        return func(*args, **kwargs)


def for_weights(tensors: Mapping[str, Tensor], where: str | Path) -> AbstractContextManager[Any]:
    """Build a model that these tensors are about to be loaded into.

    Weights are left as allocated, since drawing them takes seconds (PE-Core-B-16: 15), and a configuration that
    asks for a far larger model than its weights are is a UsageError before that is allocated.
    """
    most = 4 * sum(t.numel() + EACH for t in tensors.values()) + 1_000_000
    refusal = f"The weights in {where} are far too few for the model that its configuration describes."
    return _BoundedMemory(most, refusal, drawn=False)


def within_memory(spec: str) -> AbstractContextManager[Any]:
    """Build a model to train from scratch, or its modules; a UsageError where it needs more memory than there is."""
    return _BoundedMemory(available_memory() / 4, TOO_LARGE.format(spec), drawn=True)


def without_initialisation() -> AbstractContextManager[Any]:
    """Build a model of any size with its weights left as allocated, for who draws them itself."""
    return _BoundedMemory(math.inf, "", drawn=False)


def load_weights(clip: Any, source: WeightsSource) -> None:
    """Put a checkpoint's tensors into the model; every weight must be there, in its shape, and none besides.

    Raises:
        UsageError: that says what the weights are instead, where that can be told, or the first that is wrong.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed

    tensors, where = dict(source.weights.tensors), source.path
    try:
        tensors = convert_state_dict(clip, tensors)
        if "positional_embedding" in tensors and not hasattr(clip, "positional_embedding"):
            tensors = convert_to_custom_text_state_dict(tensors)
        resize_pos_embed(tensors, clip)
    except Exception as error:  # weights of something else altogether
        raise UsageError(f"The weights in {where} are not those of {source.arch}.") from error
    expected = clip.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in tensors and name in expected and tensors[name].numel() == 1:
            tensors[name] = tensors[name].reshape(expected[name].shape)
    if "logit_bias" in expected:
        tensors.setdefault("logit_bias", torch.zeros_like(expected["logit_bias"]))
    for name in [
        n for n in tensors if n not in expected and n.endswith(("attn_mask", "position_ids", "n_averaged"))
    ]:
        del tensors[name]  # constants that some versions stored, and a count of averaged models

    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    wrong = f"The weights in {where} are not those of {source.arch}"
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{shown(unknown[0])} has no place in it"
        count = len(missing) + len(unknown)
        others = f" (and {count - 1} more)" if count > 1 else ""
        raise UsageError(f"{wrong}: {_other_layout(tensors) or what + others}.")
    for name, tensor in expected.items():
        given = tensors[name]
        if given.shape != tensor.shape:
            raise UsageError(f"{wrong}: {name} is {_shape(given)} and not {_shape(tensor)}.")
        if tensor.is_floating_point() and not given.is_floating_point():
            raise UsageError(
                f"{wrong}: {name} is {str(given.dtype).removeprefix('torch.')} and not in floats."
            )
    clip.load_state_dict(tensors)
    check_finite(clip.state_dict(), where)


# How the names of weights in other forms begin, or what is in them, and what they are then.
LAYOUTS = (
    (
        r"(vision_model|text_model)\.",
        "they are in the layout of transformers (vision_model.encoder.layers), which open_clip does not read; "
        "name open_clip's own copy, as in ViT-B-16/openai",
    ),
    (
        r".*\.(lora_|adapter_)|base_layer\.",
        "they are an adapter (LoRA) or have one; merge it into the model first",
    ),
    (
        r"(prompt_learner|image_encoder|text_encoder)\.",
        "they are in the layout of ViFi-CLIP (image_encoder, prompt_learner); name them vifi:PATH, or by another "
        "family of `zsar predict --list-models`. Prompts that CoOp learned are not read",
    ),
    (r"(msm|mab|adapter|project)\.", "they are a model that zsar trained; name its folder instead"),
    (
        r"(patch_embed|blocks|cls_token|pos_embed|conv1|layer1|stem|stages)\b",
        "they are an image tower alone, and a CLIP has one for text too",
    ),
)


def _other_layout(tensors: Mapping[str, Tensor]) -> str | None:
    """Guess what weights of other names are, in words; None where that cannot be told."""
    for pattern, words in LAYOUTS:
        if any(re.match(pattern, name) for name in tensors):
            return words
    if all(name.startswith("visual.") for name in tensors):
        return "they are its image tower alone, and the one for text is missing"
    if not any(name.startswith("visual.") for name in tensors) and "token_embedding.weight" in tensors:
        return "they are its text tower alone, and the one for images is missing"
    return None


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def preprocess_of(settings: dict[str, Any], clip: Any) -> Preprocess:
    """Convert open_clip's preprocessing settings to ours, at the size the visual tower was built for.

    Raises:
        UsageError: a setting is missing or of the wrong kind.
    """
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    size = getattr(clip.visual, "image_size", 224)
    merged = merge_preprocess_dict(PreprocessCfg(), settings)
    merged["size"] = (size, size) if isinstance(size, int) else tuple(size)
    set_model_preprocess_cfg(clip, merged)  # so that open_clip's own transforms agree with ours
    try:
        mean, std = (tuple(float(value) for value in merged[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and std need three values each, and std none of zero")
        return Preprocess(
            size=merged["size"],
            mean=mean,
            std=std,
            interpolation=merged["interpolation"],
            resize_mode=merged["resize_mode"],
            fill_color=merged["fill_color"],
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"The model's preprocessing settings are not right: {str(error)[:200]}.") from error


def token_width(visual: Any) -> int:
    """Return D, the width of the last patch tokens."""
    if hasattr(visual, "trunk"):
        return int(visual.trunk.feature_info[-1]["num_chs"])
    if hasattr(visual, "attnpool"):  # CLIP's ResNets
        return int(visual.attnpool.k_proj.in_features)
    return int(visual.positional_embedding.shape[-1])


def token_count(visual: Any, size: tuple[int, int]) -> int:
    """Return N, the patch tokens of a frame of ``size`` (height, width)."""
    if hasattr(visual, "trunk"):
        reduction = int(visual.trunk.feature_info[-1]["reduction"])
        patches = getattr(visual.trunk, "patch_embed", None)
        if getattr(patches, "patch_size", None) == (
            reduction,
            reduction,
        ):  # what is left at the edge is dropped
            return math.prod(side // reduction for side in size)
        return math.prod(-(-side // reduction) for side in size)
    if hasattr(visual, "attnpool"):  # CLIP's ResNets; one more is their mean
        return len(visual.attnpool.positional_embedding) - 1
    return math.prod(visual.grid_size)
