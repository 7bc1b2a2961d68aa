"""What is known of each family besides its arithmetic: licence, address, and how its authors test it."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

import yaml
from pydantic import Field

from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS, read_text
from zsar_cli.schemas import Checked, Name, Number, Whole, check
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess

DATASETS = ("ucf101", "hmdb51", "kinetics600")


class PublishedFile(Checked):
    """One of a family's files. ``values``: top-1 in percent on :data:`DATASETS`."""

    name: Name
    backbone: Name
    size: Name | None = None
    values: Annotated[list[Number], Field(min_length=3, max_length=3)] | None = None
    url: Name | None = None
    hub: Name | None = None  # a repository of Hugging Face's with model.safetensors


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
    average: Literal["logits", "probabilities"] = "logits"
    sampling: Literal["segments", "ticks", "spans", "steps"] = "segments"
    resize: Literal["shortest", "larger", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear", "linear"] = "bicubic"
    pixels: Literal["clip", "imagenet"] = "clip"
    class_names: Literal["words", "as written"] = "words"
    mix: dict[Whole, Number] = Field(default_factory=dict)
    needs: Name | None = None
    note: Annotated[str, Field(max_length=200)] | None = None

    def preprocess(self, side: int) -> Preprocess:
        """Say how its frames are prepared, ``side`` pixels high and wide."""
        mean, std = (CLIP_MEAN, CLIP_STD) if self.pixels == "clip" else (IMAGENET_MEAN, IMAGENET_STD)
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
def families() -> dict[str, FamilyRecord]:
    """Load all families, by the names that ``--model`` takes."""
    path = ASSETS / "families.yaml"
    content = yaml.safe_load(read_text(path))
    return {name: check(FamilyRecord, entry, f"{path}: {name}") for name, entry in content.items()}


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
    return UsageError(
        f"There is no file {which[:200]!r}. The weights of {record.title} ({record.licence}) lie at {record.where}: "
        f"fetch them, and name the file as --model {family}:PATH.{by_name}"
    )
