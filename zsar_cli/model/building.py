"""From a configuration to an open_clip model, and from a checkpoint's tensors into it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from zsar_cli.errors import UsageError
from zsar_cli.model.sources import Source
from zsar_cli.video.transforms import Preprocess


def build(model_cfg: dict[str, Any], spec: str) -> Any:
    """The open_clip model that a configuration describes."""
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
    except MemoryError:
        raise
    except Exception as error:  # whatever a wrong size or name sets off inside open_clip or timm
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"open_clip cannot build the architecture of {spec}: {reason}") from error


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Leave weights as allocated: all are about to be loaded, and drawing them takes seconds (PE-Core-B-16: 15)."""
    from torch.overrides import TorchFunctionMode

    class Skip(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_", "erfinv_"):
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with Skip():
        yield


def load_weights(clip: Any, source: Source) -> None:
    """Put a checkpoint's tensors into the model; every weight must be there, in its shape, and none besides."""
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
    for name in [n for n in tensors if n not in expected and n.endswith(("attn_mask", "position_ids"))]:
        del tensors[name]  # constants that some versions stored

    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} has no place in it"
        count = len(missing) + len(unknown)
        others = f" (and {count - 1} more)" if count > 1 else ""
        raise UsageError(f"The weights in {where} are not those of {source.arch}: {what}{others}.")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise UsageError(
                f"The weights in {where} are not those of {source.arch}: {name} is "
                f"{_shape(tensors[name])} and not {_shape(tensor)}."
            )
    clip.load_state_dict(tensors)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def preprocess_of(settings: dict[str, Any], clip: Any) -> Preprocess:
    """open_clip's preprocessing settings as ours, at the size the visual tower was built for.

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
    """D, the width of the last patch tokens."""
    if hasattr(visual, "trunk"):
        return int(visual.trunk.feature_info[-1]["num_chs"])
    if hasattr(visual, "attnpool"):  # CLIP's ResNets
        return int(visual.attnpool.k_proj.in_features)
    return int(visual.positional_embedding.shape[-1])


def token_count(visual: Any, size: tuple[int, int]) -> int:
    """N, the patch tokens of a frame of ``size`` (height, width)."""
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
