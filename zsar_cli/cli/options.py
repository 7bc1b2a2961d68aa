"""Options that several commands share: their help, ranges, environment variables and completions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from zsar_cli import checks, distributed
from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream

if TYPE_CHECKING:
    from zsar_cli.text.labels import Labels


def _starting(incomplete: str, values: list[str]) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]


def complete_labels(incomplete: str) -> list[str]:
    """List built-in lists, for the shell."""
    from zsar_cli.text.class_lists import list_names

    return _starting(incomplete, list(list_names()))


def complete_templates(incomplete: str) -> list[str]:
    """List shipped templates, for the shell."""
    from zsar_cli.text.templates import builtin_templates

    return _starting(incomplete, builtin_templates())


def complete_model(incomplete: str) -> list[str]:
    """List models that people start with, for the shell; every other of open_clip's works too."""
    from zsar_cli.cli.listing import suggested_models

    return _starting(incomplete, [model.name for model in suggested_models()])


def complete_data(incomplete: str) -> list[str]:
    """List data sets that zsar knows, for the shell."""
    from zsar_cli.data.definition import dataset_names

    return _starting(incomplete, dataset_names())


def complete_config(incomplete: str) -> list[str]:
    """List bundled recipes, for the shell."""
    from zsar_cli.training.recipe import bundled_recipes

    return _starting(incomplete, bundled_recipes())


def complete_device(incomplete: str) -> list[str]:
    """List kinds of devices, for the shell."""
    return _starting(incomplete, ["auto", "cpu", "cuda", "mps"])


def _list_models(wanted: bool) -> None:
    if wanted:
        from zsar_cli.cli import console, listing

        console.out("\n".join(listing.model_lines()))
        console.note(listing.OTHERS)
        raise typer.Exit


def _list_labels(wanted: bool) -> None:
    if wanted:
        from zsar_cli.cli import console, listing

        console.out("\n".join(listing.label_lines()))
        raise typer.Exit


ListModelsOption = Annotated[
    bool,
    typer.Option(
        "--list-models", callback=_list_models, is_eager=True, help="List models to start with, and end."
    ),
]
ListLabelsOption = Annotated[
    bool,
    typer.Option(
        "--list-labels",
        callback=_list_labels,
        is_eager=True,
        help="List the built-in lists of labels, and end.",
    ),
]
LabelsOption = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
    typer.Option(
        "--labels",
        "-l",
        help="Labels: a file (.txt with one a line, .csv, .yaml or .json), or a built-in list: kinetics400, "
        "kinetics600, ucf101, hmdb51, ssv2.",
        envvar="ZSAR_LABELS",
        autocompletion=complete_labels,
        metavar="FILE|LIST",
    ),
]
LabelOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--label", help="One label; may be given many times, and added to --labels.", metavar="TEXT"
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="motion-tiny (bundled), ARCH/TAG of open_clip, ARCH/path/to/weights, or a folder that zsar train "
        "wrote.",
        envvar="ZSAR_MODEL",
        autocompletion=complete_model,
        metavar="MODEL",
    ),
]
BackboneOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--backbone",
        help="Where the weights are now that a run with --tune modules was trained on, if they have moved.",
        metavar="PATH",
    ),
]
TemplatesOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--templates",
        "-t",
        help="Prompt templates: plain, video, kinetics, ssv2, clip28, others that ship, or a YAML file. Default: those "
        "the model was trained with, else video.",
        envvar="ZSAR_TEMPLATES",
        autocompletion=complete_templates,
        metavar="NAME|FILE",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:N or mps.",
        envvar="ZSAR_DEVICE",
        autocompletion=complete_device,
        metavar="DEVICE",
    ),
]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="auto: bf16 on CUDA from Ampere on, else fp32. int8 is for CPUs with VNNI.",
        envvar="ZSAR_PRECISION",
    ),
]
FramesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=checks.FRAMES[0],
        max=checks.FRAMES[1],
        help="Frames of a view. Default: as many as the model was trained with, else 8.",
    ),
]
ViewsOption = Annotated[
    int,
    typer.Option(
        min=checks.VIEWS[0], max=checks.VIEWS[1], help="Views over time; their embeddings are averaged."
    ),
]
CropsOption = Annotated[int, typer.Option(help="Crops of a view: 1 (centre) or 3.", metavar="1|3")]
BatchSizeOption = Annotated[
    int,
    typer.Option(
        min=checks.BATCH_SIZE[0],
        max=checks.BATCH_SIZE[1],
        help="Videos scored together at most.",
        envvar="ZSAR_BATCH_SIZE",
    ),
]
WorkersOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=checks.WORKERS[0],
        max=checks.WORKERS[1],
        help="Decoding processes. 0 decodes in this one, unprotected. Default: half the cores, 2 to 8; 1 on one.",
        envvar="ZSAR_WORKERS",
    ),
]
FpsOption = Annotated[
    float,
    typer.Option(
        min=checks.FPS[0],
        max=checks.FPS[1],
        help="Frames a second of folders of images, which do not tell: durations and times rest on it.",
    ),
]
DecoderOption = Annotated[
    Literal["auto", "decord", "pyav"],
    typer.Option(
        help="How to decode. decord reads plain files only, PyAV the others.", envvar="ZSAR_DECODER"
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        min=checks.TIMEOUT[0],
        max=checks.TIMEOUT[1],
        help="Seconds that decoding one video may take.",
        envvar="ZSAR_TIMEOUT",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is in the way of the output; else it is left alone."),
]
CacheOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--cache",
        help="Folder that keeps the visual features of each video: asking again decodes nothing and runs no "
        "tower. At ViT-B/16 and 8 frames 10 kB a video, and 2.4 MB where the model looks at motion.",
        envvar="ZSAR_FEATURES",
        metavar="DIR",
    ),
]


def labels_or_classes(labels: str | None, label: list[str] | None, model: str) -> Labels:
    """Take the labels given; without any, the classes that a run of ``zsar train`` has learned, which is said."""
    from zsar_cli.cli import console
    from zsar_cli.text.labels import class_labels, load_labels
    from zsar_cli.text.words import as_words, words_line

    own = None if labels is not None or label else class_labels(model)
    if own is None:
        given = load_labels(labels, label or [])
        bare = [n for n, phrases in zip(given.names, given.phrases, strict=True) if phrases == (as_words(n),)]
        if (line := words_line(bare)) and distributed.rank() == 0:
            console.note(line)
        return given
    shown = ", ".join(own.names[:5]) + (", ..." if len(own) > 5 else "")
    console.note(
        f"Labels: the {len(own)} classes that {model} was trained on ({shown}); --label gives others."
    )
    return own


def refuse_directory(output: Path | None) -> None:
    """Raise UsageError where a file to write is a folder, or its folder is missing or locked."""
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"{output} is a directory; name a file to write.")
    if is_stream(output):
        return
    if not output.parent.is_dir():
        raise UsageError(f"{output} cannot be written: there is no directory {output.parent}.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise UsageError(f"{output} cannot be written: access is denied. Choose another place.")
