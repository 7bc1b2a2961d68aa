"""A model directory's ``config.yaml``, read and checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from zsar_cli import yaml_files
from zsar_cli.checks import FRAMES, WINDOW
from zsar_cli.errors import UsageError, shown
from zsar_cli.files import ASSETS, existing, require_file
from zsar_cli.model.architecture import Side, Size, check_architecture
from zsar_cli.model.parts import UNRECORDED, Parts
from zsar_cli.schemas import (
    MOST_CLASSES,
    Checked,
    FileName,
    Name,
    Number,
    TemplateTexts,
    Whole,
    check,
    one_line,
)
from zsar_cli.video.transforms import Preprocess

REMEMBERED = {
    "templates",
    "template_texts",
    "frames",
    "clip_seconds",
    "data",
    "data_root",
    "classes",
    "phrases",
    "metrics",
    "recipe",
}
BUNDLED = ("motion-tiny",)
Label = Annotated[str, Field(max_length=1000), AfterValidator(one_line)]
Positive = Annotated[Number, Field(gt=0)]


class _PreprocessSchema(Checked):
    size: tuple[Side, Side]
    mean: tuple[Number, Number, Number]
    std: tuple[Positive, Positive, Positive]
    interpolation: Literal["bicubic", "bilinear", "linear"]
    resize_mode: Literal["shortest", "squash", "longest", "larger"]
    fill_color: Annotated[Whole, Field(ge=0, le=255)] = 0


class _PartsSchema(Checked):
    separation: bool
    aggregation: bool
    gated: bool
    negatives: Literal["learned", "fixed", "none"]
    width: Size
    queries: Size
    layers: Annotated[Whole, Field(ge=1, le=1000)]
    heads: Size
    residual: bool = UNRECORDED["residual"]
    damped: bool = UNRECORDED["damped"]

    @model_validator(mode="after")
    def _whole_heads(self) -> _PartsSchema:
        if self.width % self.heads:
            raise ValueError("must have a width that is a multiple of heads")
        return self


class _Config(Checked, extra="ignore"):
    """``config.yaml``; of keys that this version does not know, nothing is used."""

    backbone: FileName
    architecture: dict[str, Any] | None = None
    preprocess: _PreprocessSchema | None = None
    parts: _PartsSchema
    beta: Annotated[Number, Field(ge=-1000, le=1000)]
    family: Literal["openvclip", "froster"] | None = None  # whose tower looks across frames
    weights_crc32: Annotated[str, Field(max_length=8)] | None = None
    backbone_fingerprint: Annotated[str, Field(max_length=64), AfterValidator(one_line)] | None = None
    # What a model remembers of its training
    templates: FileName | None = None
    template_texts: TemplateTexts | None = None
    frames: Annotated[Whole, Field(ge=FRAMES[0], le=FRAMES[1])] = 8
    clip_seconds: Annotated[Number, Field(ge=WINDOW[0], le=WINDOW[1])] | None = None
    data: FileName | None = None
    data_root: FileName | None = None
    classes: Annotated[list[Label], Field(max_length=MOST_CLASSES, default_factory=list)]
    phrases: Annotated[list[Label], Field(max_length=MOST_CLASSES, default_factory=list)]
    metrics: Annotated[dict[Name, Number | None], Field(max_length=1000, default_factory=dict)]
    recipe: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _phrase_a_class(self) -> _Config:
        if self.phrases and len(self.phrases) != len(self.classes):
            raise ValueError("must have as many phrases as classes")
        return self


@dataclass(frozen=True)
class Description:
    """What ``config.yaml`` says; ``architecture`` and ``preprocess`` where the backbone's weights are there too."""

    backbone: str
    architecture: dict[str, Any] | None
    preprocess: Preprocess | None
    parts: Parts
    beta: float
    remembered: dict[str, Any]
    family: str | None
    checksum: str | None  # of model.safetensors; old directories have none
    fingerprint: str | None  # of the backbone's weights where they lie elsewhere; old directories have none


def model_directory(spec: str) -> Path:
    """Locate a model of zsar's own, bundled or trained; without a ``config.yaml`` there, it is none."""
    return ASSETS / spec if spec in BUNDLED else existing(spec) or Path(spec)


def classes_of(spec: str) -> dict[str, str]:
    """Read the classes of a folder of ``zsar train``, and what prompts called each; none for any other model."""
    path = model_directory(spec) / "config.yaml"
    if spec in BUNDLED or not path.is_file():
        return {}
    known = read_description(path).remembered
    return prompted(known.get("classes", ()), known.get("phrases", ()))


def clip_seconds_of(spec: str) -> float | None:
    """Read how many seconds the clips had that a model of zsar's own was trained on; None where that was any."""
    path = model_directory(spec) / "config.yaml"
    return read_description(path).remembered.get("clip_seconds") if path.is_file() else None


def prompted(classes: Sequence[str], phrases: Sequence[str]) -> dict[str, str]:
    """Say what prompts called each class of a training; version 0.1.0 put the names in as they are, and kept none."""
    return dict(zip(classes, phrases or classes, strict=True))


def read_description(path: Path) -> Description:
    """Read ``config.yaml``.

    Raises:
        UsageError: it is missing, no YAML, or a value is missing, of another kind, out of range or too long, with
            its line; or it names a pipe or a device to read from.
    """
    require_file(path, "The model description")
    root = yaml_files.read(path)
    # Texts as they are written, so that a class "no" stays one; what open_clip is built from with its types
    content = yaml_files.content(root, path, ("architecture", "recipe"))
    config = check(_Config, content, str(path), yaml_files.line_in(root))
    if config.architecture is not None:
        check_architecture(config.architecture, f"{path}: architecture")
        if config.preprocess is None:
            raise UsageError(f"{path}: preprocess is missing.")
    for key, name in (("templates", config.templates), ("backbone", config.backbone)):
        found = existing(name) if name else None
        if found is not None and not found.is_file() and not found.is_dir():
            raise UsageError(f"{path}: {key} must be a name or a file, not the device or pipe {shown(name)}.")
    return Description(
        config.backbone,
        config.architecture,
        None if config.preprocess is None else Preprocess(**config.preprocess.model_dump()),
        Parts(**config.parts.model_dump()),
        config.beta,
        config.model_dump(mode="json", include=config.model_fields_set & REMEMBERED),
        config.family,
        config.weights_crc32,
        config.backbone_fingerprint,
    )
