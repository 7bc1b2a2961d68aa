"""Options of ``zsar eval`` only, and the record of a parsed command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from zsar_cli.cli.options import complete_data, complete_model
from zsar_cli.evaluation.choice import DEFAULT_MODEL

Protocol = Literal["zero-shot", "base-to-novel", "generalised", "few-shot", "open-set"]
DataOption = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
    typer.Option(
        help="Data set: kinetics400, kinetics600, ucf101, hmdb51, ssv2, motion-shapes, a YAML file, "
        "a list, or a folder with one subfolder per class. Default: the training data of --model.",
        envvar="ZSAR_DATA",
        autocompletion=complete_data,
        metavar="NAME|FILE|DIR",
    ),
]
DataRootOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Folder with the data set's videos and lists, or with one subfolder per data set.",
        envvar="ZSAR_DATA_ROOT",
        metavar="DIR",
    ),
]
ListFileOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--list", help="Annotation file to use instead of the data set's own.", metavar="FILE"),
]
ModelOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--model",
        "-m",
        help="motion-tiny (bundled), an open_clip ARCH/TAG, ARCH/path/to/weights, or a folder written by zsar "
        f"train. Default: motion-tiny on motion-shapes, else {DEFAULT_MODEL}.",
        envvar="ZSAR_MODEL",
        autocompletion=complete_model,
        metavar="MODEL",
    ),
]
ProtocolOption = Annotated[
    Optional[Protocol],  # noqa: UP045
    typer.Option(help="Evaluation protocol; see docs/evaluation.md."),
]
ProtocolPresetOption = Annotated[
    Optional[Literal["published"]],  # noqa: UP045
    typer.Option(
        "--protocol-preset",
        help="published: frames, views, templates, class names and mixing as the authors of a published model, or of "
        "PE-Core, tested it.",
    ),
]
SplitOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Classes or list to test on: seen, unseen, all, or a named split (base, split1, temporal, test2, "
        "...).",
        metavar="NAME",
    ),
]
UnknownOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="open-set: data set with the unknown classes. Default for ucf101: hmdb51.", metavar="NAME|DIR"
    ),
]
UnknownRootOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="open-set: folder with the unknown videos. Default: --data-root.", metavar="DIR"),
]
ShotsOption = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option(
        min=1,
        help="Videos per class in the training lists that few-shot and base-to-novel write to --output; "
        "repeatable. Default for few-shot: 2, 4, 8 and 16.",
    ),
]
CalibrateOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Calibrate instead of evaluating: find thresholds for predict on a list of a few dozen of your videos "
        "(path,label, with label none if no label fits). They are saved for this --model and --labels.",
        metavar="FILE",
    ),
]
LabelsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Class names for a list with numeric labels, or the labels to --calibrate: a file or built-in list.",
        metavar="FILE|LIST",
    ),
]
LabelColumnOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Label column of a list with several candidates: its header, or its number from 1.",
        metavar="NAME|N",
    ),
]
DescriptionsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="YAML or JSON map from class names to the phrases that replace them in prompts.",
        metavar="FILE",
    ),
]
SamplingOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Shorthand for --frames, --crops and --views: FRAMESxVIEWS or FRAMESxCROPSxVIEWS, e.g. 8x1, 16x3x4.",
        metavar="TEXT",
    ),
]
ProbeOption = Annotated[
    Optional[Literal["motion"]],  # noqa: UP045
    typer.Option(help="motion: evaluate again with frames shuffled, reversed, and one frame repeated."),
]
OutputOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--output",
        "-o",
        help="Folder for results.json, predictions.jsonl and tables. An interrupted evaluation is continued.",
        metavar="DIR",
    ),
]
ReportOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Write report.html into this folder: metrics, confusions, curves, and the most confident mistakes "
        "as images. Also serves as --output unless that is given.",
        metavar="DIR",
    ),
]
FormatOption = Annotated[
    Literal["table", "json"], typer.Option(help="Format of the results on standard output.")
]
CompareOption = Annotated[bool, typer.Option("--compare", help="Show published results beside these.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would run, without reading a video.")
]
MaxMissingOption = Annotated[
    float,
    typer.Option(min=0, max=1, help="Fraction of listed videos that may be missing or unreadable."),
]
SeedOption = Annotated[int, typer.Option(help="Seed for frame shuffling, bootstrap and few-shot sampling.")]


@dataclass(frozen=True)
class AskedEvaluation:
    """The parsed command line of ``zsar eval``, one field per option."""

    data: str | None
    data_root: Path | None
    list_file: Path | None
    model: str | None
    backbone: str | None
    protocol: Protocol | None
    protocol_preset: Literal["published"] | None
    split: str | None
    unknown: str | None
    unknown_root: Path | None
    shots: list[int] | None
    calibrate: Path | None
    labels: str | None
    label_column: str | None
    descriptions: Path | None
    templates: str | None
    frames: int | None
    views: int
    crops: int
    sampling: str | None
    probe: Literal["motion"] | None
    output: Path | None
    report: Path | None
    format: Literal["table", "json"]
    compare: bool
    dry_run: bool
    max_missing: float
    batch_size: int
    workers: int | None
    decoder: Literal["auto", "decord", "pyav"]
    timeout: float
    device: str
    precision: str
    seed: int
    cache: Path | None
    max_bytes: str
    storage_options: Path | None
    overwrite: bool
    ray: str | None
