"""What is known of each family besides its arithmetic: licence, address, and how its authors test it."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS, read_text
from zsar_cli.schemas import Checked, Name, Number, Whole, check
from zsar_cli.video.sampling import Sampling, Way
from zsar_cli.video.transforms import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from zsar_cli.yaml_files import parse

DATASETS = ("ucf101", "hmdb51", "kinetics600")
LABELS = {
    "ucf101": 101,
    "hmdb51": 51,
    "kinetics600": 160,
    "kinetics400": 400,
}  # that a published number is among
PIXELS = {  # mean and std; half: from -1 to 1, unit: from 0 to 1
    "clip": (CLIP_MEAN, CLIP_STD),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class PublishedFile(Checked):
    """One of a family's files. ``values``: top-1 in percent on :data:`DATASETS`; ``others``: on other data sets."""

    name: Name
    backbone: Name
    size: Name | None = None
    values: Annotated[list[Number], Field(min_length=3, max_length=3)] | None = None
    others: dict[Name, Number] = Field(default_factory=dict)
    url: Name | None = None
    hub: Name | None = None  # a repository of Hugging Face's with model.safetensors

    @property
    def top1(self) -> dict[str, float]:
        """Give the published top-1 in percent, by data set."""
        return dict(zip(DATASETS, self.values or (), strict=False)) | self.others


class FamilyRecord(Checked):
    """A family, as ``assets/families.yaml`` has it."""

    title: Name
    licence: Name
    where: Name
    method: Name  # its name among the published numbers
    templates: Name
    files: list[PublishedFile]
    frames: Whole = 8
    views: Whole = 1
    crops: Whole = 1
    average: Literal["logits", "probabilities", "embeddings"] = "logits"
    sampling: Way = "segments"
    resize: Literal["shortest", "larger", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear", "linear"] = "bicubic"
    pixels: Literal["clip", "imagenet", "half", "unit"] = "clip"
    class_names: Literal["words", "as written"] = "words"
    templates_of: dict[Name, Name] = Field(default_factory=dict)  # by data set, in place of ``templates``
    random_views: bool = (
        False  # the authors draw frames by chance, so their number is not repeated to the last digit
    )
    lacks: Name | None = None  # what the published number rests on besides, and zsar does not do
    transformers: Name | None = None  # its class there; a folder of save_pretrained, and not one file
    model_type: Name | None = None  # what the configuration of such a folder calls it
    open_clip: Name | None = None  # no files of a family's own: a CLIP whose name in open_clip begins so
    mix: dict[Whole, Number] = Field(default_factory=dict)
    needs: Name | None = None
    note: Annotated[str, Field(max_length=200)] | None = None

    def preprocess(self, side: int) -> Preprocess:
        """Say how its frames are prepared, ``side`` pixels high and wide."""
        mean, std = PIXELS[self.pixels]
        return Preprocess(
            size=(side, side), mean=mean, std=std, interpolation=self.interpolation, resize_mode=self.resize
        )

    def choose(self, frames: int, views: int) -> Sampling:
        """Choose the frames of a video that it sees."""
        return Sampling(frames, views, self.sampling)

    def of_sizes(self, backbone: str) -> PublishedFile | None:
        """Find the file with such a tower."""
        return next((file for file in self.files if file.backbone == backbone), None)

    def file(self, name: str) -> PublishedFile | None:
        """Find the file of that name, whatever the case of its letters."""
        return next((file for file in self.files if file.name.casefold() == name.casefold()), None)


@cache
def published_models() -> dict[str, FamilyRecord]:
    """Load all that is known of published models, the families' and those that open_clip has."""
    path = ASSETS / "families.yaml"
    content = parse(read_text(path))
    return {name: check(FamilyRecord, entry, f"{path}: {name}") for name, entry in content.items()}


@cache
def families() -> dict[str, FamilyRecord]:
    """Load all families, by the names that ``--model`` takes."""
    return {name: record for name, record in published_models().items() if record.open_clip is None}


def open_clips(spec: str) -> FamilyRecord | None:
    """Find the published model that a name of open_clip's means, such as ``PE-Core-B-16/meta``."""
    records = (record for record in published_models().values() if record.open_clip is not None)
    return next((record for record in records if spec.startswith(str(record.open_clip))), None)


def named_family(spec: str) -> tuple[str, str] | None:
    """Split ``FAMILY:WHICH`` in two; None for a name of another kind."""
    family, colon, which = spec.partition(":")
    known = family.casefold().replace("-", "")
    return (known, which) if colon and known in families() else None


def where_to_find(family: str, which: str) -> UsageError:
    """Say where the authors put a file that is not there."""
    record = families()[family]
    names = ", ".join(f"{family}:{file.name}" for file in record.files if file.url or file.hub)
    by_name = f" By name there {'are' if ',' in names else 'is'} {names}." if names else ""
    kind = "file" if record.transformers is None else "folder"
    return UsageError(
        f"There is no {kind} {which[:200]!r}. The weights of {record.title} ({record.licence}) lie at {record.where}: "
        f"fetch them, and name the file as --model {family}:PATH.{by_name}"
    )
