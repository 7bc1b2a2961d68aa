"""A training recipe: every setting that decides what a run ends in, read from YAML, checked by name, kind and value."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from zsar_cli import yaml_files
from zsar_cli.checks import FRAMES
from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS
from zsar_cli.model.parts import Parts

BUNDLED = ASSETS / "recipes"


def _about(default: Any, text: str) -> Any:
    """Make a field of the recipe, with its line of ``--help``."""
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
    least_steps: int = _about(1, "Fewest steps, where the epochs of few clips have fewer.")
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
    w_neg: float = _about(0.5, "Weight of L_neg, binary cross-entropy of each label (yes or no).")
    w_dis: float = _about(0.1, "Weight of L_dis, squared cosine of motion and static tokens.")
    w_opp: float = _about(0.05, "Weight of L_opp, distance of a label and its negative.")
    w_keep: float = _about(0.0, "Weight of L_keep, 1 - cosine with the pretrained CLIP (video and text).")
    beta: float = _about(0.0, "Weight of log yes in the final model's logits.")
    pretrained_weight: float = _about(
        0.0, "WiSE-FT: part of the pretrained backbone in the final weights, 0 to 1."
    )
    swa: int = _about(
        0, "SWA: average the backbone at the start and at this many steps of the run; 0: the last step's."
    )
    shots: int | None = _about(None, "Clips a class, drawn at random; all if not given.")
    holdout: float = _about(0.02, "Share of the training clips held out to choose the best checkpoint by.")
    validate_every: int | None = _about(
        500, "Steps between validations on the held-out clips; null in a recipe: a twelfth of the run."
    )
    patience: int | None = _about(
        None,
        "Validations without a better one that end the run, which then keeps its best model; all steps if not given.",
    )
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
        where = "The recipe is wrong"
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
                        f"{where}: {name} needs pretrained weights, and an architecture is trained "
                        "from scratch; leave out one of them."
                    )
            if self.tune != "full":
                raise UsageError(f"{where}: training from scratch needs tune: full.")
        if self.tune != "full" and (self.swa or self.pretrained_weight):
            raise UsageError(
                f"{where}: swa and pretrained_weight change the backbone, and with tune: modules it stays as it is."
            )


# The least and the most that a field may be, or the values that there are; all others are texts, true or false.
COUNT, MANY = {"ge": 1, "le": 100_000}, {"ge": 1, "le": 1_000_000_000}
AMOUNT, SHARE, PART = {"ge": 0, "le": 1e30}, {"ge": 0, "le": 1}, {"ge": 0, "lt": 1}
WIDTH, FEW = {"ge": 1, "le": 65536}, {"ge": 1, "le": 1000}
LIMITS: dict[str, Any] = {
    "frames": {"ge": FRAMES[0], "le": FRAMES[1]},
    **dict.fromkeys(("epochs", "batch_size", "accumulate", "shots", "patience"), COUNT),
    **dict.fromkeys(("steps", "least_steps", "validate_every"), MANY),
    **dict.fromkeys(("lr", "module_lr", "negative_lr", "weight_decay", "final_lr"), AMOUNT),
    **dict.fromkeys(("w_neg", "w_dis", "w_opp", "w_keep", "beta"), AMOUNT),
    **dict.fromkeys(("pretrained_weight", "warmup", "colour_jitter", "grey"), SHARE),
    **dict.fromkeys(("smoothing", "holdout"), PART),
    "crop_scale": {"gt": 0, "le": 1},
    "clip_norm": {"gt": 0, "le": 1_000_000_000},  # so much is none
    "swa": {"ge": 0, "le": 10_000},
    "seed": {"ge": 0, "le": 2**63 - 1},
    **dict.fromkeys(("width", "heads"), WIDTH),
    **dict.fromkeys(("queries", "layers"), FEW),
}
CHOICES = {
    "tune": ("full", "modules"),
    "precision": ("auto", "fp32", "bf16"),
    "negatives": ("learned", "fixed", "none"),
}


@cache
def _schema(record: type) -> Any:
    """Make a pydantic model with the fields of a dataclass, each with its kind and its limits."""
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
        UsageError: no such recipe, an unknown field, or a value of the wrong kind.
    """
    known = bundled_recipes()
    path = BUNDLED / f"{name_or_path}.yaml" if name_or_path in known else Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"There is no recipe {name_or_path!r}; give a YAML file, or one of: {', '.join(known)}."
        )
    root = yaml_files.read(path)
    content = yaml_files.content(root, path, ("architecture",))
    recipe = _made(_checked(content, str(path), yaml_files.line_in(root)))
    return override(recipe, **overrides)


def override(recipe: Recipe, **overrides: Any) -> Recipe:
    """Replace fields of the recipe by the values that are not None; ``parts`` takes a map of its fields."""
    given = {key: value for key, value in overrides.items() if value is not None}
    parts = {key: value for key, value in (given.pop("parts", None) or {}).items() if value is not None}
    if "epochs" in given:
        given.setdefault("steps", None)  # the last word on how long counts
    if "model" in given:
        given.setdefault(
            "architecture", None
        )  # and on what is trained: nothing that is named begins from scratch
    values = _checked(given | ({"parts": parts} if parts else {}), "the command line")
    return replace(recipe, **values | {"parts": replace(recipe.parts, **values.get("parts", {}))})


def make_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Make a recipe from a plain map, every field checked by name, kind and range; others have their defaults."""
    return _made(_checked(content, source))


def _made(values: dict[str, Any]) -> Recipe:
    return Recipe(**values | {"parts": Parts(**values.get("parts", {}))})


def _checked(
    values: dict[str, Any], source: str, line_of: Callable[[Any], int] | None = None
) -> dict[str, Any]:
    """Check the values that are there and convert them to their kinds; a number may be a text, as 1e-4 is in YAML."""
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
    """List the fields of a dataclass: the kind of value each takes, and whether None is one."""
    hints = typing.get_type_hints(record)
    kinds = {}
    for f in fields(record):
        hint, optional = hints[f.name], False
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            optional = True
            (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        kinds[f.name] = (typing.get_origin(hint) or hint, optional)
    return kinds
