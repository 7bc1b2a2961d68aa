"""A training recipe: every setting that decides what a run ends in, read from YAML, checked by name, kind and value."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from zsar_cli import yaml_nodes
from zsar_cli.errors import UsageError
from zsar_cli.model.parts import Parts

BUNDLED = Path(__file__).parent / "recipes"


def _about(default: Any, text: str) -> Any:
    """A field of the recipe with what ``--help`` says of it."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, besides the data and the backbone's weights."""

    model: str = _about(
        "ViT-B-16/openai", "Backbone to start from: ARCH/TAG, ARCH/path/to/weights or a folder."
    )
    data: str = _about(
        "kinetics400",
        "Data set: kinetics400, ucf101, motion-shapes, ..., a YAML definition, a list of videos, or a folder.",
    )
    labels: str | None = _about(
        None, "Class names, where the data set's list numbers them: a file or built-in list."
    )
    label_column: str | None = _about(
        None, "Column of the list that holds the label, where it has several: its header or number (from 1)."
    )
    templates: str = _about("video", "Prompt templates: a name or a YAML file.")
    tune: str = _about("full", "full: everything is trained; modules: the backbone stays as it is.")
    frames: int = _about(8, "Frames a clip.")
    steps: int | None = _about(None, "Optimiser steps, instead of epochs.")
    epochs: int = _about(10, "Passes over the data.")
    batch_size: int = _about(64, "Clips a batch, shared out among the processes of torchrun.")
    accumulate: int = _about(1, "Batches a step.")
    lr: float = _about(8e-6, "Peak learning rate of the backbone.")
    module_lr: float = _about(1e-4, "Peak learning rate of everything else.")
    negative_lr: float | None = _about(
        None, "Peak learning rate of the negatives' adapter, scale and offset; module_lr if not given."
    )
    weight_decay: float = _about(1e-3, "AdamW's weight decay; gains, biases and scalars have none.")
    warmup: float = _about(0.1, "Part of the run over which the rate rises; half a cosine follows.")
    final_lr: float = _about(0.01, "Where the cosine ends, as part of the peak.")
    clip_norm: float = _about(1.0, "Largest norm of the gradient.")
    smoothing: float = _about(0.0, "Label smoothing.")
    w_neg: float = _about(0.5, "Weight of L_neg, which says yes and no to each label.")
    w_dis: float = _about(0.1, "Weight of L_dis, which keeps motion and static context apart.")
    w_opp: float = _about(0.05, "Weight of L_opp, which keeps a label and its negative apart.")
    w_keep: float = _about(0.0, "Weight of L_keep, which stays near the pretrained CLIP (video and text).")
    beta: float = _about(0.0, "Share of the yes in the final model's logits.")
    pretrained_weight: float = _about(0.0, "Part of the pretrained backbone in the final weights, 0 to 1.")
    swa: int = _about(
        0, "Final backbone: mean of the start and of this many moments of the run; 0: the last."
    )
    shots: int | None = _about(None, "Clips a class, drawn at random; all if not given.")
    holdout: float = _about(0.02, "Share of the training clips held out to choose the best checkpoint by.")
    validate_every: int = _about(500, "Steps between validations on the held-out clips.")
    flip: bool = _about(True, "Mirror half of the clips; never where labels tell left from right.")
    augment: bool = _about(
        True, "Draw frames, crops, flips and colours anew; without, as with a cache, a clip never changes."
    )
    crop_scale: float = _about(0.5, "Smallest area of a random crop, 1 for none.")
    colour_jitter: float = _about(0.4, "Reach of the change in brightness, contrast and saturation.")
    grey: float = _about(0.0, "Share of the clips that lose their colour.")
    precision: str = _about(
        "auto", "auto: autocast in bf16 on CUDA since Ampere, fp32 elsewhere. Or fp32, or bf16."
    )
    gradient_checkpointing: bool = _about(False, "Less memory for more time, inside the towers.")
    half: bool = _about(False, "Write the final weights in fp16.")
    seed: int = _about(0, "Decides everything random.")
    architecture: dict[str, Any] | None = _about(  # noqa: RUF009 - an immutable default, whatever its annotation
        None, "JSON or YAML file with open_clip's model_cfg: trains that from scratch."
    )
    parts: Parts = field(default_factory=Parts)

    def __post_init__(self) -> None:
        for name, rule, holds in RULES:
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise UsageError(f"The recipe is wrong: {name} must be {rule}, not {value!r}.")
        if self.parts.negatives not in ("learned", "fixed", "none"):
            raise UsageError(
                f"The recipe is wrong: parts.negatives must be learned, fixed or none, not {self.parts.negatives!r}."
            )
        if min(self.parts.width, self.parts.queries, self.parts.layers, self.parts.heads) < 1:
            raise UsageError(
                "The recipe is wrong: parts.width, queries, layers and heads must be at least 1."
            )
        if self.parts.width % self.parts.heads:
            raise UsageError(
                f"The recipe is wrong: parts.width ({self.parts.width}) must be a multiple of parts.heads "
                f"({self.parts.heads})."
            )
        if self.architecture is not None:
            for name in ("w_keep", "pretrained_weight", "swa"):
                if getattr(self, name):
                    raise UsageError(
                        f"The recipe is wrong: {name} needs pretrained weights, and an architecture is trained "
                        "from scratch; leave out one of them."
                    )
            if self.tune != "full":
                raise UsageError("The recipe is wrong: training from scratch needs tune: full.")
        if self.tune != "full" and (self.swa or self.pretrained_weight):
            raise UsageError(
                "The recipe is wrong: swa and pretrained_weight change the backbone, and with tune: modules it "
                "stays as it is."
            )


def _positive(value: float) -> bool:
    return value >= 1


def _not_negative(value: float) -> bool:
    return value >= 0


def _share(value: float) -> bool:
    return 0 <= value <= 1


# Field, what it must be in words, and the test of it.
RULES: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("tune", "full or modules", lambda value: value in ("full", "modules")),
    ("precision", "auto, fp32 or bf16", lambda value: value in ("auto", "fp32", "bf16")),
    *((name, "at least 1", _positive) for name in ("frames", "steps", "epochs", "batch_size", "accumulate")),
    *((name, "at least 1", _positive) for name in ("shots", "validate_every")),
    *((name, "at least 0", _not_negative) for name in ("lr", "module_lr", "negative_lr")),
    *((name, "at least 0", _not_negative) for name in ("weight_decay", "final_lr", "swa")),
    *((name, "at least 0", _not_negative) for name in ("w_neg", "w_dis", "w_opp", "w_keep", "beta", "seed")),
    *((name, "from 0 to 1", _share) for name in ("pretrained_weight", "warmup", "colour_jitter", "grey")),
    ("smoothing", "at least 0 and less than 1", lambda value: 0 <= value < 1),
    ("holdout", "at least 0 and less than 1", lambda value: 0 <= value < 1),
    ("crop_scale", "more than 0 and at most 1", lambda value: 0 < value <= 1),
    ("clip_norm", "more than 0", lambda value: value > 0),
]


def bundled_recipes() -> list[str]:
    """The names of the recipes that ship with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def load_recipe(name_or_path: str, **overrides: Any) -> Recipe:
    """A bundled recipe by name, or a YAML file; ``overrides`` that are not None replace its fields.

    Raises:
        UsageError: no such recipe, an unknown field, or a value of the wrong kind.
    """
    known = bundled_recipes()
    path = BUNDLED / f"{name_or_path}.yaml" if name_or_path in known else Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"There is no recipe {name_or_path!r}; give a YAML file, or one of: {', '.join(known)}."
        )
    content = yaml_nodes.load(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UsageError(f"{path} must be a map of field to value.")
    return override(make_recipe(content, str(path)), **overrides)


def override(recipe: Recipe, **overrides: Any) -> Recipe:
    """The recipe with other values for the fields that are not None; ``parts`` takes a map of its fields."""
    given = {key: value for key, value in overrides.items() if value is not None}
    parts = {key: value for key, value in (given.pop("parts", None) or {}).items() if value is not None}
    if "epochs" in given:
        given.setdefault("steps", None)  # the last word on how long counts
    if "model" in given:
        given.setdefault(
            "architecture", None
        )  # and on what is trained: nothing that is named begins from scratch
    values = _checked(given, Recipe, "the command line")
    return replace(
        recipe, **values, parts=replace(recipe.parts, **_checked(parts, Parts, "the command line"))
    )


def make_recipe(content: dict[str, Any], source: str) -> Recipe:
    """A recipe from a plain map, every field checked by name and kind; what it leaves out has its default."""
    content = dict(content)
    parts = content.pop("parts", None) or {}
    if not isinstance(parts, dict):
        raise UsageError(f"{source}: parts must be a map of field to value.")
    values = _checked(content, Recipe, source)
    return Recipe(**values, parts=Parts(**_checked(parts, Parts, source)))


def recipe_content(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the plain map that :func:`make_recipe` takes."""
    return json.loads(json.dumps(asdict(recipe)))


def field_kinds(record: type) -> dict[str, tuple[type, bool]]:
    """The fields of a dataclass: the kind of value each takes, and whether None is one."""
    hints = typing.get_type_hints(record)
    kinds = {}
    for f in fields(record):
        hint, optional = hints[f.name], False
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            optional = True
            (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        kinds[f.name] = (typing.get_origin(hint) or hint, optional)
    return kinds


def _checked(values: dict[Any, Any], record: type, source: str) -> dict[str, Any]:
    kinds = field_kinds(record)
    checked = {}
    for key, value in values.items():
        if key not in kinds:
            raise UsageError(f"{source}: unknown field {key!r}; the fields are {', '.join(kinds)}.")
        kind, optional = kinds[key]
        try:
            checked[key] = None if value is None and optional else _as(kind, value)
        except (TypeError, ValueError, OverflowError):
            names = {
                int: "a whole number",
                float: "a number",
                bool: "true or false",
                str: "a text",
                dict: "a map",
            }
            raise UsageError(f"{source}: {key} must be {names[kind]}, not {value!r}.") from None
    return checked


def _as(kind: type, value: Any) -> Any:
    """The value as that kind. A number may be a text: YAML reads 1e-4, without a point, as one."""
    if kind in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number) or (kind is int and number != int(number)):
            raise ValueError
        return int(value) if kind is int and isinstance(value, int) else kind(number)
    if not isinstance(value, kind):
        raise TypeError
    return value
