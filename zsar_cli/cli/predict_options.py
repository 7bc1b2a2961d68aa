"""Options of ``zsar predict`` only, and the record of a parsed command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, cast, get_args

import typer

from zsar_cli import checks
from zsar_cli.cli.output.formats import Format
from zsar_cli.cli.output.sink import format_of
from zsar_cli.prediction.shards import Shard, parse_shard
from zsar_cli.video.address import is_remote, public
from zsar_cli.video.find import local_path
from zsar_cli.video.live_source import CONTAINERS

# Typer takes no list of a Literal
FormatName = Enum("FormatName", {name: name for name in (*get_args(Format), *CONTAINERS)}, type=str)  # type: ignore[misc]

VideosArgument = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders (searched for videos), patterns, lists (.txt, .csv, .jsonl, .parquet), or - for a list on "
        "standard input; also in a storage (s3://bucket/clips/, gs://, hf://, https://). Or one live source: "
        "rtsp://, rtmp://, udp://, a camera (0), or - with --format mpegts. An existing answers.jsonl is converted to "
        "another --format or a --report, without a model.",
        metavar="VIDEO",
    ),
]
PromptsOption = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
    typer.Option(
        help="Prompt embeddings from zsar embed-prompts, instead of labels and templates.", metavar="FILE"
    ),
]
TopKOption = Annotated[
    int,
    typer.Option("--top-k", "-k", min=checks.TOP_K[0], max=checks.TOP_K[1], help="Labels to show per video."),
]
MinConfidenceOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--min-confidence",
        min=checks.SHARE[0],
        max=checks.SHARE[1],
        help='Add an "answer" to each record: the best label if 1 - unknown is at least P, else "none of '
        'these". Higher is stricter. Default: no answer; 0.5 with --window or --multi.',
        metavar="P",
    ),
]
ThresholdOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=checks.SHARE[0], max=checks.SHARE[1], hidden=True),
]
MultiOption = Annotated[
    bool,
    typer.Option(
        "--multi",
        help='Multi-label: "answers" lists every label whose yes is at least --min-confidence.',
    ),
]
CalibrationOption = Annotated[
    Literal["95", "90", "80", "alarms", "off"],
    typer.Option(
        help="Which threshold of zsar eval --calibrate to use, if --min-confidence is not given: the one for 95, "
        "90 or 80% correct answers, the one for 5% false alarms (alarms), or none (off).",
    ),
]
WideOption = Annotated[
    bool,
    typer.Option("--wide", help="CSV with one row per video (or segment) and one column per label: its yes."),
]
FormatOption = Annotated[
    Optional[list[FormatName]],  # noqa: UP045
    typer.Option(
        "--format",
        "-f",
        help="Output format. Default: table on a terminal, else jsonl. srt and vtt (subtitles) need --window. With - "
        f"also the container of a video on standard input: {', '.join(CONTAINERS)}.",
        metavar="FORMAT",
    ),
]
OutputOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--output",
        "-o",
        help="Write the records to this file instead of standard output; also in a storage (s3://bucket/a.parquet). "
        "With --shard, and with srt or vtt and several videos: a folder.",
        metavar="FILE",
    ),
]
EmbeddingsOption = Annotated[
    bool,
    typer.Option(
        "--embeddings",
        help="Add the embedding of each video to its record (jsonl, parquet), so that zsar predict answers.parquet "
        "--labels OTHER answers again without the videos. Needs whole videos: windows do not slide unasked.",
    ),
]
WindowOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        min=0,
        max=checks.WINDOW[1],
        help="Localise actions in time: slide a window of this length over each video and return segments. Default, "
        "with a model trained on clips of one length and a longer video: that length. 0: never.",
        metavar="SECONDS",
    ),
]
ShotsOption = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--shots/--no-shots",
        help="Windows lie inside shots: a hard cut ends a segment. Default: with a model trained on clips of one "
        "length.",
        show_default=False,
    ),
]
StrideOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        min=checks.WINDOW[0],
        max=checks.WINDOW[1],
        help="Seconds between the starts of two windows. Default: half a window.",
        metavar="SECONDS",
    ),
]
ExplainOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Write one image per video into this folder: the answer, frames, heat maps of the best labels and of "
        "motion, and probabilities. With --window: the timeline and its segments.",
        metavar="FOLDER",
    ),
]
ExplainLabelOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--explain-label",
        help="Label to draw a heat map for in --explain, instead of the best two; repeatable.",
        metavar="LABEL",
    ),
]
ReportOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Write one HTML page with all answers and their frames, to search, choose a threshold, and correct "
        "answers for zsar train and eval. Works offline.",
        metavar="FILE",
    ),
]
ShardOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Process one shard of the videos, I of N (from 0), and write it as a part into the folder --output. auto: "
        "as this task of a job array (Slurm, AWS Batch) or rank; auto/N: also in Kubernetes. Started again, it "
        "does what is missing.",
        metavar="I/N|auto",
    ),
]
MergeOption = Annotated[
    bool,
    typer.Option(
        "--merge",
        help="Join the parts in these folders of --shard to one --output, and say what is missing (exit code 1).",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue --output: skip the videos it already answers and retry those that failed.",
    ),
]
NullOption = Annotated[
    bool, typer.Option("--null", "-0", help="The list on standard input is NUL-separated (find -print0).")
]
ColumnOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Column of a list (CSV, JSON Lines, Parquet) that holds the videos. Default: video, path, url and such.",
        metavar="NAME",
    ),
]


@dataclass(frozen=True)
class Asked:
    """The parsed command line of ``zsar predict``, one field per option."""

    context: typer.Context
    videos: list[str]
    labels: str | None
    label: list[str] | None
    model: str
    backbone: str | None
    templates: str | None
    prompts: Path | None
    top_k: int
    min_confidence: float | None
    threshold: float | None
    multi: bool
    calibration: Literal["95", "90", "80", "alarms", "off"]
    wide: bool
    format: Format | None
    container: str | None  # of a video on standard input
    output: Path | None  # on this disk
    remote: str | None  # the output's address, if it is in a storage
    embeddings: bool
    window: float | None
    stride: float | None
    shots: bool | None
    explain: Path | None
    explain_label: list[str] | None
    report: Path | None
    resume: bool
    shard: str | None
    merge: bool
    overwrite: bool
    null: bool
    column: str | None
    max_bytes: str
    storage_options: Path | None
    frames: int | None
    views: int
    crops: int
    batch_size: int
    workers: int | None
    fps: float
    decoder: Literal["auto", "decord", "pyav"]
    timeout: float
    device: str
    precision: str
    cache: Path | None
    ray: str | None
    list_models: bool
    list_labels: bool

    @property
    def place(self) -> str | None:
        """The output as it was given."""
        return self.remote or (None if self.output is None else str(self.output))

    @property
    def shown_place(self) -> str | None:
        """The output as messages name it."""
        return None if self.place is None else public(self.place)

    @property
    def written_format(self) -> Format:
        """The format of the records; without ``--format``, the one that the output's name suggests."""
        if self.shard is not None:
            return self.format or "jsonl"
        return format_of(self.output or (Path(self.remote) if self.remote else None), self.format)

    @cached_property
    def own_shard(self) -> Shard | None:
        """The shard that this run processes; None for all videos."""
        return None if self.shard is None else parse_shard(self.shard, os.environ)

    @property
    def typed_calibration(self) -> bool:
        """Tell whether a bound of a calibration is asked for, not just taken where there is one."""
        source = self.context.get_parameter_source("calibration")
        return getattr(source, "name", "") == "COMMANDLINE" and self.calibration != "off"

    @property
    def listed(self) -> bool:
        """Whether videos come from a list, so that they are not known before."""
        from zsar_cli.prediction.inputs import is_list

        return any(map(is_list, self.videos))


def asked_of(arguments: dict[str, Any]) -> Asked:
    """Take the arguments of the command, by name."""
    place = arguments.pop("output")
    remote = place if place is not None and is_remote(place) else None
    output = None if place is None or remote else Path(local_path(place))
    format, container = formats_of(arguments.pop("format"))
    return Asked(**arguments, format=format, container=container, output=output, remote=remote)


def formats_of(given: Sequence[Enum] | None) -> tuple[Format | None, str | None]:
    """Tell the format of records from the container of a video on standard input; the last of each counts."""
    names = [str(name.value) for name in given or ()][::-1]
    records = (name for name in names if name in get_args(Format))
    containers = (name for name in names if name in CONTAINERS)
    return cast("Format | None", next(records, None)), next(containers, None)
