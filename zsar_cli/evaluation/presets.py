"""The protocol by which the authors of a published model tested it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.model.published.records import families, named_family

if TYPE_CHECKING:
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.model.zsar import RecognizerModel

PRESETS = ("published",)


def as_published(model: str | None, options: Options, templates: str | None) -> tuple[str, Options]:
    """Give the name of the model and the options that make an evaluation its authors'.

    The model itself brings its frames, sampling, resizing and templates.

    Raises:
        UsageError: it is of no family whose protocol is known, or an option says otherwise.
    """
    named = named_family(model or "")
    if named is None:
        raise UsageError(
            "--protocol-preset published is for the families of published checkpoints, as in --model mote:L-14; "
            "`zsar predict --list-models` lists them."
        )
    said = {
        "--frames": options.frames is not None,
        "--views": options.views != 1,
        "--crops": options.crops != 1,
    }
    said["--templates"] = templates is not None
    if wrong := [name for name, given in said.items() if given]:
        raise UsageError(f"--protocol-preset published sets {wrong[0]}; leave it out.")
    record = families()[named[0]]
    mixed = record.mix and "@" not in named[1]
    name = f"{named[0]}:{named[1]}@published" if mixed else f"{named[0]}:{named[1]}"
    return name, replace(options, views=record.views, crops=record.crops)


def published_settings(model: RecognizerModel, options: Options, templates: str) -> dict[str, Any]:
    """Say what of a published model's protocol an evaluation has, for ``results.json``; {} for any other model."""
    family = model.published
    if family is None:
        return {}
    record, file = families()[family.name], family.file
    mix = record.mix.get(model.backbone.clip.visual.patch_size[0], 0.0)
    same = {
        "frames": (options.frames or model.frames) == (family.frames or record.frames),
        "views": (options.views, options.crops) == (record.views, record.crops),
        "templates": templates == record.templates,
        "mixing": family.mix == mix,
    }
    other = [name for name, equal in same.items() if not equal]
    return {
        "published": {
            "family": family.name,
            "method": record.method,
            "backbone": None if file is None else file.backbone,
            "values": None if file is None else file.values,
            "sampling": record.sampling,
            "views_averaged": record.average,
            "mix": family.mix,
            "protocol": "as published" if not other else f"other {', '.join(other)} than published",
            "note": record.note,
        }
    }
