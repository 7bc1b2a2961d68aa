"""Training recipes: the settings that determine the outcome of a run, read from YAML and validated."""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from zsar_cli import yaml_files
from zsar_cli.checks import FRAMES, WINDOW, brief
from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS
from zsar_cli.model.parts import Parts, about

BUNDLED = ASSETS / "recipes"


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the outcome of a training run, besides the data and the backbone's weights."""

    model: str = about(
        "ViT-B-16/openai", "Backbone to start from: ARCH/TAG, ARCH/path/to/weights or a folder."
    )
    data: str = about(
        "kinetics400",
        "Data set: kinetics400, ucf101, motion-shapes, ..., a YAML definition, a list of videos, or a folder.",
    )
    labels: str | None = about(None, "Class names for a list with numeric labels: a file or built-in list.")
    label_column: str | None = about(
        None, "Label column of a list with several candidates: its header, or its number from 1."
    )
    templates: str = about("video", "Prompt templates: a name or a YAML file.")
    tune: str = about("full", "full: train everything; modules: keep the backbone frozen.")
    frames: int = about(8, "Frames per clip.")
    clip_seconds: float | None = about(
        None,
        "Seconds of video in a clip: a random window of a longer video. Default: the whole video.",
    )
    steps: int | None = about(None, "Number of optimizer steps, instead of --epochs.")
    epochs: int = about(10, "Passes over the data.")
    least_steps: int = about(1, "Minimum number of steps, for data sets whose epochs have fewer.")
    batch_size: int = about(64, "Clips per batch, over all processes of torchrun together.")
    accumulate: int = about(1, "Batches per optimizer step (gradient accumulation).")
    lr: float = about(8e-6, "Peak learning rate of the backbone.")
    module_lr: float = about(1e-4, "Peak learning rate of everything else.")
    negative_lr: float | None = about(
        None, "Peak learning rate of the negative-prompt adapter, scale and offset. Default: module_lr."
    )
    layer_decay: float = about(
        1.0, "Learning rate of each layer of the towers, as a fraction of the next one's (layer-wise decay)."
    )
    weight_decay: float = about(1e-3, "AdamW weight decay; not applied to gains, biases and scalars.")
    warmup: float = about(0.1, "Fraction of the run with linear warmup; cosine decay follows.")
    final_lr: float = about(0.01, "Final learning rate, as a fraction of the peak.")
    clip_norm: float = about(1.0, "Maximum gradient norm.")
    smoothing: float = about(0.0, "Label smoothing.")
    w_neg: float = about(0.5, "Weight of L_neg: binary cross-entropy of yes against no for each label.")
    w_dis: float = about(0.3, "Weight of L_dis: keeps appearance out of the motion embeddings.")
    w_opp: float = about(0.05, "Weight of L_opp: separates a label from its negative.")
    w_keep: float = about(0.0, "Weight of L_keep: distils the pretrained CLIP (video and text).")
    foreign: int = about(
        0, "Labels of other activities, never true, that each step compares its clips with. Needs tune: full."
    )
    twins: bool = about(
        False,
        "Half of each batch are the other half's scenes, mirrored, backwards or filmed by another camera, under "
        "the labels that they then have. For data that is rendered.",
    )
    beta: float = about(0.0, "Weight of log yes in the logits of the final model.")
    pretrained_weight: float = about(
        0.0, "Weight of the pretrained backbone in the final weights (WiSE-FT), 0 to 1."
    )
    swa: int = about(
        0,
        "SWA: average the initial backbone with this many snapshots of the run; 0 keeps the last weights.",
    )
    shots: int | None = about(None, "Clips per class, sampled at random. Default: all.")
    holdout: float = about(
        0.02, "Fraction of the training clips that is held out to choose the best checkpoint."
    )
    validate_every: int | None = about(
        500, "Steps between validations on the held-out clips. null in a recipe: a twelfth of the run."
    )
    patience: int | None = about(
        None, "Early stopping: validations without improvement before the run ends. Default: never."
    )
    flip: bool = about(True, "Flip half of the clips, except if labels distinguish left from right.")
    augment: bool = about(
        True, "Sample frames, crops, flips and colours at random; off with cached features."
    )
    crop: str = about(
        "area",
        "Random crops: area (see --crop-scale), or multiscale (TSN's MultiScaleCrop, as ViFi-CLIP has it).",
    )
    crop_scale: float = about(0.5, "Minimum area of a random crop; 1 turns cropping off.")
    colour_jitter: float = about(0.4, "Strength of brightness, contrast and saturation jitter.")
    grey: float = about(0.0, "Fraction of clips converted to greyscale.")
    mixup: float = about(0.0, "Mixup of the clips of a batch: alpha of its Beta distribution; 0 is none.")
    cutmix: float = about(0.0, "CutMix of the clips of a batch: alpha of its Beta distribution; 0 is none.")
    precision: str = about(
        "auto",
        "fp32, bf16 or fp16 (autocast), or auto: bf16 on CUDA GPUs from Ampere on, fp16 on Volta and Turing, "
        "fp32 elsewhere.",
    )
    gradient_checkpointing: bool | None = about(
        None, "Save memory in the towers at the cost of time. Default: if few clips fit otherwise."
    )
    half: bool = about(False, "Save the final weights in fp16.")
    seed: int = about(0, "Random seed.")
    architecture: dict[str, Any] | None = about(  # noqa: RUF009 - an immutable default, whatever its annotation
        None, "JSON or YAML file with an open_clip model_cfg to train from scratch."
    )
    parts: Parts = field(default_factory=Parts)

    def __post_init__(self) -> None:
        where = "Invalid recipe"
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        _checked(values | {"parts": asdict(self.parts)}, where)
        if self.parts.width % self.parts.heads:
            raise UsageError(
                f"{where}: parts.width ({self.parts.width}) must be a multiple of parts.heads ({self.parts.heads})."
            )
        if self.architecture is not None:
            for name in ("w_keep", "pretrained_weight", "swa"):
                if getattr(self, name):
                    raise UsageError(
                        f"{where}: {name} needs pretrained weights, but an architecture is trained "
                        "from scratch; leave out one of them."
                    )
            if self.tune != "full":
                raise UsageError(f"{where}: training from scratch needs tune: full.")
        if (self.mixup or self.cutmix) and not self.augment:
            raise UsageError(f"{where}: mixup and cutmix change the clips; they need augment: true.")
        if self.twins and (not self.augment or self.batch_size % 2):
            raise UsageError(f"{where}: twins need augment: true and an even batch_size.")
        if self.foreign and self.tune != "full":
            raise UsageError(f"{where}: foreign needs tune: full; a frozen text tower learns no labels.")
        if self.tune != "full" and (self.swa or self.pretrained_weight):
            raise UsageError(
                f"{where}: swa and pretrained_weight change the backbone, which tune: modules keeps frozen."
            )

    @property
    def drawn(self) -> int:
        """Clips of the data set in a batch: twins are made of the others."""
        return self.batch_size // 2 if self.twins else self.batch_size


# The range of each number and the values of each choice; all other fields are strings or booleans.
COUNT, MANY = {"ge": 1, "le": 100_000}, {"ge": 1, "le": 1_000_000_000}
AMOUNT, SHARE, PART = {"ge": 0, "le": 1e30}, {"ge": 0, "le": 1}, {"ge": 0, "lt": 1}
POSITIVE, ALPHA = {"gt": 0, "le": 1}, {"ge": 0, "le": 100}
WIDTH, FEW = {"ge": 1, "le": 65536}, {"ge": 1, "le": 1000}
LIMITS: dict[str, Any] = {
    "frames": {"ge": FRAMES[0], "le": FRAMES[1]},
    "clip_seconds": {"ge": WINDOW[0], "le": WINDOW[1]},
    **dict.fromkeys(("epochs", "batch_size", "accumulate", "shots", "patience"), COUNT),
    **dict.fromkeys(("steps", "least_steps", "validate_every"), MANY),
    **dict.fromkeys(("lr", "module_lr", "negative_lr", "weight_decay", "final_lr"), AMOUNT),
    **dict.fromkeys(("w_neg", "w_dis", "w_opp", "w_keep", "beta"), AMOUNT),
    **dict.fromkeys(("pretrained_weight", "warmup", "colour_jitter", "grey"), SHARE),
    **dict.fromkeys(("smoothing", "holdout"), PART),
    **dict.fromkeys(("crop_scale", "layer_decay"), POSITIVE),
    **dict.fromkeys(("mixup", "cutmix"), ALPHA),
    "clip_norm": {"gt": 0, "le": 1_000_000_000},  # so much is none
    "swa": {"ge": 0, "le": 10_000},
    "foreign": {"ge": 0, "le": 500},
    "seed": {"ge": 0, "le": 2**63 - 1},
    **dict.fromkeys(("width", "heads"), WIDTH),
    **dict.fromkeys(("queries", "layers"), FEW),
}
CHOICES = {
    "tune": ("full", "modules"),
    "crop": ("area", "multiscale"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "negatives": ("learned", "fixed", "none"),
}


@cache
def _schema(record: type) -> Any:
    """Make a pydantic model with the fields of a dataclass, each with its type and range."""
    from pydantic import Field, create_model

    from zsar_cli.schemas import Checked, FileName, Number, Whole

    kinds: dict[type, Any] = {int: Whole, float: Number, str: FileName, bool: bool, dict: dict[str, Any]}
    found: dict[str, Any] = {}
    for name, (kind, optional) in field_kinds(record).items():
        annotation = _schema(Parts) if kind is Parts else kinds[kind]
        if name in CHOICES:
            annotation = Literal[CHOICES[name]]
        if name in LIMITS:
            annotation = Annotated[annotation, Field(**LIMITS[name])]
        found[name] = (annotation | None if optional else annotation, None)
    return create_model(record.__name__, __base__=Checked, **found)


def bundled_recipes() -> list[str]:
    """List the names of the recipes that ship with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def load_recipe(name_or_path: str, **overrides: Any) -> Recipe:
    """Load a bundled recipe by name, or a YAML file; ``overrides`` that are not None replace its fields.

    Raises:
        UsageError: no such recipe, an unknown field, or a value of the wrong type or range.
    """
    known = bundled_recipes()
    path = BUNDLED / f"{name_or_path}.yaml" if name_or_path in known else Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"There is no recipe {name_or_path!r}; give a YAML file or one of: {', '.join(known)}."
        )
    root = yaml_files.read(path)
    content = yaml_files.content(root, path, ("architecture",))
    recipe = _made(_checked(content, str(path), yaml_files.line_in(root)))
    return override(recipe, **overrides)


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check fields of a recipe as they were asked for; paths become texts. UsageError."""
    plain = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in fields.items()}
    if not isinstance(plain.get("parts") or {}, Mapping):
        raise UsageError(f"parts must be a map of its fields, not {brief(plain['parts'])}.")
    _given(plain)  # alone: together with a recipe's other fields they are checked by :func:`override`
    return plain


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields that are not None, each by itself."""
    given = {key: value for key, value in fields.items() if value is not None}
    parts = {key: value for key, value in (given.pop("parts", None) or {}).items() if value is not None}
    return _checked(given | ({"parts": parts} if parts else {}), "recipe")


def override(recipe: Recipe, **overrides: Any) -> Recipe:
    """Replace fields of the recipe by the values that are not None; ``parts`` takes a map of its fields."""
    values = _given(overrides)
    if "epochs" in values:
        values.setdefault("steps", None)  # --epochs overrides the recipe's steps
    if "model" in values:
        values.setdefault("architecture", None)  # --model overrides the recipe's architecture
    return replace(recipe, **values | {"parts": replace(recipe.parts, **values.get("parts", {}))})


def make_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Make a recipe from a plain map; its fields are validated, and missing ones have their defaults."""
    return _made(_checked(content, source))


def _made(values: dict[str, Any]) -> Recipe:
    return Recipe(**values | {"parts": Parts(**values.get("parts", {}))})


def _checked(
    values: dict[str, Any], source: str, line_of: Callable[[Any], int] | None = None
) -> dict[str, Any]:
    """Validate the given values and convert them to their types; numbers may be strings, as 1e-4 is in YAML."""
    from zsar_cli.schemas import check

    if values.get("architecture") is not None:
        from zsar_cli.model.architecture import check_architecture

        check_architecture(values["architecture"], f"{source}: architecture")
    checked: dict[str, Any] = check(_schema(Recipe), values, source, line_of).model_dump(exclude_unset=True)
    return checked


def recipe_content(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe as the plain map that :func:`make_recipe` takes."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return content


def field_kinds(record: type) -> dict[str, tuple[type, bool]]:
    """Map the fields of a dataclass to their types and whether they may be None."""
    hints = typing.get_type_hints(record)
    kinds = {}
    for f in fields(record):
        hint, optional = hints[f.name], False
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            optional = True
            (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        kinds[f.name] = (typing.get_origin(hint) or hint, optional)
    return kinds
