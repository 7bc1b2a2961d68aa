"""Options that ``zsar predict`` alone has, and all that it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from zsar_cli import checks
from zsar_cli.cli.output.formats import Format
from zsar_cli.cli.output.sink import format_of

VideosArgument = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders (searched for videos), patterns, or - for a list on standard input. Not URLs. Or "
        "answers.jsonl, to write what it holds in another --format, or as a --report, without a model.",
        metavar="VIDEO",
    ),
]
PromptsOption = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
    typer.Option(
        help="Embeddings from zsar embed-prompts, in place of labels and templates.", metavar="FILE"
    ),
]
TopKOption = Annotated[
    int,
    typer.Option(
        "--top-k", "-k", min=checks.TOP_K[0], max=checks.TOP_K[1], help="Labels to show for a video."
    ),
]
MinConfidenceOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--min-confidence",
        min=checks.SHARE[0],
        max=checks.SHARE[1],
        help='Add an "answer" to each record: the best label where 1 - unknown is at least this, else "none of '
        'these". Higher is stricter. Default: no answer; 0.5 with --window and --multi.',
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
        help='Several things at once: "answers" has every label whose yes is at least --min-confidence.',
    ),
]
CalibrationOption = Annotated[
    Literal["95", "90", "80", "alarms", "off"],
    typer.Option(
        help="After zsar eval --calibrate, and without --min-confidence: answer by its bound for 95, 90 or 80% "
        "right answers, for 5% false alarms, or not by it.",
    ),
]
WideOption = Annotated[
    bool,
    typer.Option("--wide", help="CSV with a row a video (or segment) and a column a label: its yes."),
]
FormatOption = Annotated[
    Optional[Format],  # noqa: UP045
    typer.Option(
        "--format",
        "-f",
        help="Default: table on a terminal, else jsonl. srt and vtt are subtitles, with --window.",
    ),
]
OutputOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--output",
        "-o",
        help="Write the records to this file, not to standard output. With srt or vtt and several videos: a "
        "folder.",
        metavar="FILE",
    ),
]
WindowOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        min=checks.WINDOW[0],
        max=checks.WINDOW[1],
        help="When does it happen? Slide a window of so many seconds over each video; gives segments.",
        metavar="SECONDS",
    ),
]
StrideOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        min=checks.WINDOW[0],
        max=checks.WINDOW[1],
        help="Seconds from one window's start to the next. Default: half a window.",
        metavar="SECONDS",
    ),
]
ExplainOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Write a picture about each video into this folder: the answer, frames, where each of the best labels "
        "is seen and where there is motion, probabilities. With --window: the timeline, and its segments.",
        metavar="FOLDER",
    ),
]
ExplainLabelOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--explain-label",
        help="A label whose places --explain shows, in place of the best two; repeatable.",
        metavar="LABEL",
    ),
]
ReportOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Write one HTML page of all answers with their frames: to look at, search, choose a threshold, and "
        "correct answers for zsar train and eval. Needs no network.",
        metavar="FILE",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with --output: skip the videos that it answers already, and try its failures again.",
    ),
]
NullOption = Annotated[
    bool, typer.Option("--null", "-0", help="The list on standard input is NUL-separated (find -print0).")
]


@dataclass(frozen=True)
class Asked:
    """What a command line asks of ``zsar predict``; a field for each of its options."""

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
    output: Path | None
    window: float | None
    stride: float | None
    explain: Path | None
    explain_label: list[str] | None
    report: Path | None
    resume: bool
    overwrite: bool
    null: bool
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
    list_models: bool
    list_labels: bool

    @property
    def written_format(self) -> Format:
        """The format of the records, where none is named by what the output suggests."""
        return format_of(self.output, self.format)

    @property
    def listed(self) -> bool:
        """Tell whether the names of videos come on standard input."""
        return "-" in self.videos
