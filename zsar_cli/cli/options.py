"""Options that several commands share: help, ranges, environment variables and shell completion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from zsar_cli import checks
from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream

if TYPE_CHECKING:
    from zsar_cli.text.labels import Labels


def _starting(incomplete: str, values: list[str]) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]


def complete_labels(incomplete: str) -> list[str]:
    """Complete the name of a built-in list of labels."""
    from zsar_cli.text.class_lists import list_names

    return _starting(incomplete, list(list_names()))


def complete_templates(incomplete: str) -> list[str]:
    """Complete the name of a bundled template set."""
    from zsar_cli.text.templates import builtin_templates

    return _starting(incomplete, builtin_templates())


def complete_model(incomplete: str) -> list[str]:
    """Complete the name of a suggested model; any other model of open_clip is accepted too."""
    from zsar_cli.cli.listing import suggested_models

    return _starting(incomplete, [model.name for model in suggested_models()])


def complete_data(incomplete: str) -> list[str]:
    """Complete the name of a built-in data set."""
    from zsar_cli.data.definition import dataset_names

    return _starting(incomplete, dataset_names())


def complete_config(incomplete: str) -> list[str]:
    """Complete the name of a bundled recipe."""
    from zsar_cli.training.recipe import bundled_recipes

    return _starting(incomplete, bundled_recipes())


def complete_device(incomplete: str) -> list[str]:
    """Complete the kind of a device."""
    return _starting(incomplete, ["auto", "cpu", "cuda", "mps"])


def _list_models(wanted: bool) -> None:
    if wanted:
        from zsar_cli.cli import console, listing

        console.out("\n".join([*listing.model_lines(), "", *listing.published_lines()]))
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
        "--list-models", callback=_list_models, is_eager=True, help="List suggested models and exit."
    ),
]
ListLabelsOption = Annotated[
    bool,
    typer.Option(
        "--list-labels",
        callback=_list_labels,
        is_eager=True,
        help="List the built-in lists of labels and exit.",
    ),
]
LabelsOption = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
    typer.Option(
        "--labels",
        "-l",
        help="Labels: a file (.txt with one per line, .csv, .yaml or .json) or a built-in list: camera, "
        "kinetics400, kinetics600, ucf101, hmdb51, ssv2.",
        envvar="ZSAR_LABELS",
        autocompletion=complete_labels,
        metavar="FILE|LIST",
    ),
]
LabelOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--label", help="A label; repeatable, and adds to --labels.", metavar="TEXT"),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="motion-tiny (bundled), an open_clip ARCH/TAG, ARCH/path/to/weights, or a folder written by zsar "
        "train.",
        envvar="ZSAR_MODEL",
        autocompletion=complete_model,
        metavar="MODEL",
    ),
]
BackboneOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--backbone",
        help="New path of the backbone weights that a --tune modules run was trained on, if they have moved.",
        metavar="PATH",
    ),
]
TemplatesOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--templates",
        "-t",
        help="Prompt templates: plain, video, kinetics, ssv2, clip28, another bundled set, or a YAML file. Default: "
        "the model's training templates, else video.",
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
        help="auto: bf16 on CUDA GPUs from Ampere on, else fp32. int8 is for CPUs.",
        envvar="ZSAR_PRECISION",
    ),
]
FramesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=checks.FRAMES[0],
        max=checks.FRAMES[1],
        help="Frames per view. Default: as many as the model was trained with, else 8.",
    ),
]
ViewsOption = Annotated[
    int,
    typer.Option(
        min=checks.VIEWS[0], max=checks.VIEWS[1], help="Temporal views; their embeddings are averaged."
    ),
]
CropsOption = Annotated[int, typer.Option(help="Spatial crops per view: 1 (centre) or 3.", metavar="1|3")]
BatchSizeOption = Annotated[
    int,
    typer.Option(
        min=checks.BATCH_SIZE[0],
        max=checks.BATCH_SIZE[1],
        help="Maximum number of videos per forward pass.",
        envvar="ZSAR_BATCH_SIZE",
    ),
]
WorkersOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        min=checks.WORKERS[0],
        max=checks.WORKERS[1],
        help="Decoding processes. 0 decodes in the main process, without crash protection. Default: half the "
        "cores, from 2 to 8; all but one or two if the model is on a GPU.",
        envvar="ZSAR_WORKERS",
    ),
]
FpsOption = Annotated[
    float,
    typer.Option(
        min=checks.FPS[0],
        max=checks.FPS[1],
        help="Frame rate of folders of images, which store none; sets their durations and times.",
    ),
]
DecoderOption = Annotated[
    Literal["auto", "decord", "pyav"],
    typer.Option(
        help="Decoder. decord is used only for files it reads correctly, PyAV for the others.",
        envvar="ZSAR_DECODER",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        min=checks.TIMEOUT[0],
        max=checks.TIMEOUT[1],
        help="Seconds allowed for decoding one video.",
        envvar="ZSAR_TIMEOUT",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace existing outputs. Without it, they are left unchanged."),
]
CacheOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--cache",
        help="Folder for cached visual features: later runs on the same videos skip decoding and the visual "
        "tower. At ViT-B/16 and 8 frames: 10 kB per video, 2.4 MB with motion modules.",
        envvar="ZSAR_FEATURES",
        metavar="DIR",
    ),
]
MaxBytesOption = Annotated[
    str,
    typer.Option(
        "--max-bytes",
        help="Largest object that is fetched from a storage or the web: bytes, or a number with K, M, G or T.",
        envvar="ZSAR_MAX_BYTES",
        metavar="SIZE",
    ),
]
StorageOptionsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--storage-options",
        help='JSON file with options for the drivers of fsspec, by scheme: {"s3": {"endpoint_url": "..."}}. Without '
        "it, credentials are what each driver reads from the environment.",
        envvar="ZSAR_STORAGE_OPTIONS",
        metavar="FILE",
    ),
]


def set_up_storage(max_bytes: str, storage_options: Path | None) -> None:
    """Take the options of fetching for this process. UsageError for those that there cannot be."""
    from zsar_cli.video.fetch import LIMITS

    LIMITS.max_bytes = checks.byte_count("--max-bytes", max_bytes)
    if storage_options is not None:
        from zsar_cli.video.storage import use_options

        use_options(storage_options)


RayOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--ray",
        help="Run on a Ray cluster (pip install 'zsar-cli[ray]'): auto (default) for the one that this machine is in, "
        "HOST:PORT for another, local to start one here. The models are on its GPUs, or else on its cores.",
        metavar="[ADDRESS]",
    ),
]


def labels_or_classes(labels: str | None, label: list[str] | None, model: str) -> Labels:
    """Return the given labels; without any, the classes that the run was trained on, with a note on stderr."""
    from zsar_cli.cli import console
    from zsar_cli.text.labels import class_labels, load_labels
    from zsar_cli.text.words import as_words, words_line

    own = None if labels is not None or label else class_labels(model)
    if own is None:
        given = load_labels(labels, label or [])
        bare = [n for n, phrases in zip(given.names, given.phrases, strict=True) if phrases == (as_words(n),)]
        if line := words_line(bare):
            console.note(line)
        return given
    shown = ", ".join(own.names[:5]) + (", ..." if len(own) > 5 else "")
    console.note(
        f"Labels: the {len(own)} classes that {model} was trained on ({shown}); use --label for others."
    )
    return own


def refuse_directory(output: Path | None) -> None:
    """Raise UsageError if an output file is a folder, or if its folder is missing or not writable."""
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"{output} is a directory; name an output file.")
    if is_stream(output):
        return
    if not output.parent.is_dir():
        raise UsageError(f"{output} cannot be written: the directory {output.parent} does not exist.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise UsageError(f"{output} cannot be written: permission denied. Choose another path.")
