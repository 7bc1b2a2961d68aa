"""Options that ``zsar eval`` alone has, and all that it was asked for."""

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
        "a list, or a folder with one folder a class. Default: what --model was trained on.",
        envvar="ZSAR_DATA",
        autocompletion=complete_data,
        metavar="NAME|FILE|DIR",
    ),
]
DataRootOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Folder of the data set's videos and lists, or of several data sets in a folder each.",
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
        help="motion-tiny (bundled), ARCH/TAG of open_clip, ARCH/path/to/weights, or a folder that zsar train "
        f"wrote. Default: motion-tiny on motion-shapes, else {DEFAULT_MODEL}.",
        envvar="ZSAR_MODEL",
        autocompletion=complete_model,
        metavar="MODEL",
    ),
]
ProtocolOption = Annotated[
    Optional[Protocol],  # noqa: UP045
    typer.Option(help="What is asked of the model; see docs/evaluation.md."),
]
SplitOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="seen, unseen, all, or a named split (base, split1, temporal, test2, ...).", metavar="NAME"
    ),
]
UnknownOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="open-set: data set of the unknown classes. Default for ucf101: hmdb51.", metavar="NAME|DIR"
    ),
]
UnknownRootOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="open-set: folder of the unknown videos. Default: --data-root.", metavar="DIR"),
]
ShotsOption = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option(
        min=1,
        help="Videos a class in the training lists that few-shot (2, 4, 8, 16 unless told) and "
        "base-to-novel write to --output; repeats.",
    ),
]
CalibrateOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Instead: a list (path,label; none where no label fits) of a few dozen of your videos, to find the "
        "--min-confidence of predict on. Kept with --model, for --labels; predict uses it.",
        metavar="FILE",
    ),
]
LabelsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Class names, where the data set's list numbers them, or that --calibrate is about: a file or "
        "built-in list.",
        metavar="FILE|LIST",
    ),
]
LabelColumnOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Column of the list that holds the label, where it has several: its header or number (from 1).",
        metavar="NAME|N",
    ),
]
DescriptionsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="YAML or JSON map of class names to phrases that stand for them in the prompts.",
        metavar="FILE",
    ),
]
SamplingOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Short for the three: FRAMESxVIEWS or FRAMESxCROPSxVIEWS, as 8x1, 32x1, 16x3x4.",
        metavar="TEXT",
    ),
]
ProbeOption = Annotated[
    Optional[Literal["motion"]],  # noqa: UP045
    typer.Option(help="motion: again with frames shuffled, reversed, and one frame repeated."),
]
OutputOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--output",
        "-o",
        help="Folder for results.json, predictions.jsonl and tables; goes on from what it finds there.",
        metavar="DIR",
    ),
]
ReportOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Write report.html into this folder, to be looked at in a browser: numbers, confusions, curves, "
        "the worst mistakes as pictures. It is --output, too, unless that is given.",
        metavar="DIR",
    ),
]
FormatOption = Annotated[Literal["table", "json"], typer.Option(help="How results are shown.")]
CompareOption = Annotated[bool, typer.Option("--compare", help="Show published numbers beside these.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would run; read no video.")]
MaxMissingOption = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of listed videos that may be missing or unreadable."),
]
SeedOption = Annotated[int, typer.Option(help="Of shuffled frames, bootstrap and few-shot draws.")]


@dataclass(frozen=True)
class AskedEvaluation:
    """What a command line asks of ``zsar eval``; a field for each of its options."""

    data: str | None
    data_root: Path | None
    list_file: Path | None
    model: str | None
    backbone: str | None
    protocol: Protocol | None
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
    overwrite: bool
