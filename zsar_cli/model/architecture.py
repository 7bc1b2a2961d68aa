"""What a configuration may ask open_clip to build: sizes in range, and towers and tokenizers that open_clip knows."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from zsar_cli.schemas import Checked, Name, Number, Whole, check

Size = Annotated[Whole, Field(ge=1, le=65536)]
Layers = Annotated[Whole, Field(ge=1, le=1000)]
Side = Annotated[Whole, Field(ge=1, le=4096)]
Pair = Annotated[list[Side], Field(min_length=2, max_length=2)]
Scalar = (
    None | bool | Annotated[int, Field(ge=-(10**6), le=10**6)] | float | Annotated[str, Field(max_length=200)]
)
Options = Annotated[dict[Name, Scalar], Field(max_length=20)]


@cache
def _known(tower: str, key: str) -> frozenset[str]:
    """Collect the values that the configurations of open_clip have for a key."""
    import open_clip

    configurations = map(open_clip.get_model_config, open_clip.list_models())
    return frozenset(found for cfg in configurations if (found := cfg[tower].get(key)))


def _timm_tower(name: str) -> str:
    import timm

    if name.partition(".")[0] not in _timm_names(timm.__version__):
        raise ValueError("must be the name of a tower in timm (timm.list_models()), without a hub")
    return name


@cache
def _timm_names(version: str) -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


def _text_tower(name: str) -> str:
    if name not in _known("text_cfg", "hf_model_name"):
        raise ValueError("must be a text tower of one of open_clip's own configurations")
    return name


def _tokenizer(name: str) -> str:
    known = _known("text_cfg", "hf_tokenizer_name") | _known("text_cfg", "hf_model_name")
    if name not in known:
        raise ValueError("must be a tokenizer of one of open_clip's own configurations")
    return name


class TokenizerOptions(Checked):
    """How a tokenizer cleans a text. Everything else that one takes is a file, an address, code or chance."""

    clean: Literal["canonicalize", "lower", "whitespace"] | None = None
    strip_sep_token: bool | None = None


class NormOptions(Checked):
    """Arguments of a layer norm."""

    eps: Annotated[Number, Field(gt=0, le=1)] | None = None


class ActivationOptions(Checked):
    """Arguments of a GELU."""

    approximate: Literal["none", "tanh"] | None = None


class _Tower(Checked, extra="allow"):
    __pydantic_extra__: dict[str, Scalar | Options | Annotated[list[Scalar], Field(max_length=16)]]

    layers: Layers | Annotated[list[Layers], Field(max_length=8)] = 12
    width: Size = 512
    mlp_ratio: Annotated[Number, Field(gt=0, le=64)] = 4.0
    norm_kwargs: NormOptions | None = None
    act_kwargs: ActivationOptions | None = None


class VisionConfig(_Tower):
    """``vision_cfg``."""

    image_size: Side | Pair = 224
    patch_size: Side | Pair | None = 16
    head_width: Size = 64
    attn_pooler_queries: Size = 256
    attn_pooler_heads: Size = 8
    pool_type: Literal["tok", "avg"] = "tok"  # "none" gives no embedding
    timm_model_name: Annotated[Name, AfterValidator(_timm_tower)] | None = None


class TextConfig(_Tower):
    """``text_cfg``."""

    context_length: Annotated[Whole, Field(ge=1, le=8192)] = 77
    vocab_size: Annotated[Whole, Field(ge=1, le=2_000_000)] = 49408
    heads: Size = 8
    pool_type: Literal["argmax", "eos", "first", "last"] = "argmax"
    hf_model_name: Annotated[Name, AfterValidator(_text_tower)] | None = None
    hf_tokenizer_name: Annotated[Name, AfterValidator(_tokenizer)] | None = None
    tokenizer_kwargs: TokenizerOptions | None = None
    tokenizer_mode: Literal["clips"] | None = None


class Architecture(Checked):
    """open_clip's ``model_cfg``."""

    embed_dim: Size
    vision_cfg: VisionConfig
    text_cfg: TextConfig
    multimodal_cfg: _Tower | None = None
    custom_text: bool | None = None
    quick_gelu: bool | None = None
    init_logit_scale: Annotated[Number, Field(ge=-100, le=100)] | None = None
    init_logit_bias: Annotated[Number, Field(ge=-1000, le=1000)] | None = None
    nonscalar_logit_scale: bool | None = None
    cast_dtype: None = None
    output_dict: bool | None = None


Three = Annotated[list[Number], Field(min_length=3, max_length=3)]


class PreprocessSettings(Checked, extra="ignore"):
    """``preprocess_cfg``."""

    mean: Three | None = None
    std: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "squash", "longest"] | None = None
    fill_color: Annotated[Whole, Field(ge=0, le=255)] | None = None


def check_architecture(model_cfg: Any, where: str) -> None:
    """Check that open_clip can build every value of a configuration.

    Raises:
        UsageError: a value of another kind or out of range, or a tower or tokenizer from elsewhere.
    """
    check(Architecture, model_cfg, where, strict=True)
