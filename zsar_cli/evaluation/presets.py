"""The protocol by which the authors of a published model tested it, and the number that they published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.evaluation.choice import DEFAULT_MODEL
from zsar_cli.model.published.records import LABELS, families, named_family, open_clips
from zsar_cli.text.words import as_words, unsplit

if TYPE_CHECKING:
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.evaluation.results import PromptSettings
    from zsar_cli.model.published.records import FamilyRecord, PublishedFile
    from zsar_cli.model.zsar import RecognizerModel

PRESETS = ("published",)


def as_published(model: str | None, options: Options, templates: str | None) -> tuple[str, Options]:
    """Give the name of the model and the options that make an evaluation its authors'.

    A family's model itself brings its frames, sampling, resizing and templates; :func:`follow_published` does the rest.

    Raises:
        UsageError: it is of no family whose protocol is known, or an option says otherwise.
    """
    name = model or DEFAULT_MODEL
    named = named_family(name)
    record = open_clips(name) if named is None else families()[named[0]]
    if record is None:
        raise UsageError(
            "--protocol-preset published is for the families of published checkpoints, as in --model mote:L-14, and "
            "for PE-Core; `zsar predict --list-models` lists them."
        )
    said = {
        "--frames": options.frames is not None,
        "--views": options.views != 1,
        "--crops": options.crops != 1,
    }
    said["--templates"] = templates is not None
    if wrong := [option for option, given in said.items() if given]:
        raise UsageError(f"--protocol-preset published sets {wrong[0]}; remove {wrong[0]}.")
    if named is not None:
        mixed = record.mix and "@" not in named[1]
        return f"{named[0]}:{named[1]}@published" if mixed else f"{named[0]}:{named[1]}", replace(
            options, views=record.views, crops=record.crops
        )
    return name, replace(options, frames=record.frames, views=record.views, crops=record.crops)


def published_as(model: RecognizerModel) -> tuple[FamilyRecord, PublishedFile | None] | None:
    """Find what is known of a published model, and its file; None of another, and of one that was trained further."""
    if model.published is not None:
        return families()[model.published.name], model.published.file
    record = open_clips(model.backbone.spec) if model.trained_on is None else None
    if record is None:
        return None
    return record, record.of_sizes(model.backbone.spec.partition("/")[0])


def follow_published(model: RecognizerModel, data: str) -> Callable[[str], str]:
    """Have a model see the frames, and by default the templates, that its authors test it with on a data set.

    Returns:
        how a class name is written in a prompt.
    """
    known = published_as(model)
    if known is None:
        return as_words
    record, _ = known
    model.way = record.sampling
    model.record.templates = record.templates_of.get(data, record.templates)
    if record.class_names == "words":
        return as_words
    return unsplit if data == "ucf101" else str  # whose list has "ApplyEyeMakeup", and zsar's own the words


def published_settings(
    model: RecognizerModel, options: Options, prompts: PromptSettings, data: str
) -> dict[str, Any]:
    """Say what of a published model's protocol an evaluation has, for ``results.json``; {} for any other model."""
    known = published_as(model)
    if known is None:
        return {}
    (record, file), family = known, model.published
    mix, mixed = 0.0, 0.0
    if family is not None:
        mix, mixed = record.mix.get(model.backbone.clip.visual.patch_size[0], 0.0), family.mix
    sampling = model.choose(options.frames, options.views)
    same = {
        "frames": sampling.frames == ((family and family.frames) or record.frames),
        "sampling": sampling.way == record.sampling,
        "views": (options.views, options.crops) == (record.views, record.crops),
        "templates": prompts.templates["name"] == record.templates_of.get(data, record.templates),
        "mixing": mixed == mix,
    }
    described = family is not None and prompts.phrases_each == family.descriptors
    other = [name for name, equal in same.items() if not equal]
    return {
        "published": {
            "family": record.title if family is None else family.name,
            "method": record.method,
            "backbone": None if file is None else file.backbone,
            "top1": {} if file is None else file.top1,
            "sampling": sampling.way,
            "class_names": record.class_names,
            "views_averaged": record.average,
            "mix": mixed,
            "protocol": f"other {', '.join(other)} than published" if other else as_far_as(record, described),
            "repeatable": not record.random_views,
            "note": record.note,
        }
    }


def as_far_as(record: FamilyRecord, described: bool = False) -> str:
    """Say of an evaluation that differs in nothing that can be set what it lacks nevertheless.

    ``described``: all labels have the descriptors that the family's scores need.
    """
    if described:
        return "as published, with the descriptors that were given"
    return "as published" if record.lacks is None else f"as published, without {record.lacks}"


def published_line(results: dict[str, Any]) -> str | None:
    """Put the published number of the evaluated model beside the measured one; None where there is none to compare."""
    said = results.get("published")
    if said is None or not results["protocol"].startswith("zero-shot"):
        return None
    evaluated = {(entry["data"], entry["labels"]) for entry in results["lists"]}
    number = next((n for data, n in said["top1"].items() if evaluated == {(data, LABELS[data])}), None)
    measured = results["summary"].get("mean")
    if number is None or measured is None:
        return None
    chance = (
        ""
        if said["repeatable"]
        else " Its authors sample frames at random, so it cannot be reproduced exactly."
    )
    note = f" Note: {said['note']}." if said["note"] else ""
    return (
        f"{said['method']} {said['backbone']}: published {number:.1f}, measured here {100 * measured:.1f} "
        f"({100 * measured - number:+.1f}), {said['protocol']}.{chance}{note}"
    )
