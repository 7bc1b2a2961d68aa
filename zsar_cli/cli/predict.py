"""``zsar predict``: name the action in videos."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from zsar_cli import checks, distributed
from zsar_cli.cli.convert import convert, find_answers
from zsar_cli.cli.options import (
    BackboneOption,
    CacheOption,
    CropsOption,
    DeviceOption,
    FramesOption,
    LabelOption,
    LabelsOption,
    ListLabelsOption,
    ListModelsOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    TemplatesOption,
    ViewsOption,
    labels_or_classes,
)
from zsar_cli.cli.output.answers_page import add_earlier, check_report, command_line, new_page, open_page
from zsar_cli.cli.output.destination import check_destination, check_subtitles
from zsar_cli.cli.output.formats import Columns, Format
from zsar_cli.cli.output.made_with import made_with
from zsar_cli.cli.output.sink import GROWING, SUBTITLES, Sink, Target, format_of, open_sink
from zsar_cli.cli.run_lines import (
    answers_in,
    counted,
    start_line,
    stray_labels_line,
    tally_line,
    unlike_training_line,
)
from zsar_cli.cli.signals import listening
from zsar_cli.errors import UsageError
from zsar_cli.outputs import refuse_inputs
from zsar_cli.prediction.familiar import MEANS_NOTHING
from zsar_cli.prediction.records import NONE_OF_THESE

if TYPE_CHECKING:
    from zsar_cli.cli.output.folders import VideoFolder
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.prediction.clips import ClipOptions
    from zsar_cli.prediction.confidence import AnswerRule
    from zsar_cli.prediction.records import Failure, Prediction
    from zsar_cli.prediction.report import AnswersPage, FilmSize
    from zsar_cli.prediction.windows import Timeline, WindowOptions
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.text.labels import Labels

SHORT = 1.0  # s
MANY = 100  # videos from which on a faster precision is worth a word
INT8_HINT = (
    "This processor has VNNI: --precision int8 is faster (docs/performance.md has how much, and its price)."
)


def predict(
    context: typer.Context,
    videos: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders (searched for videos), patterns, or - for a list on standard input. Not URLs. Or "
            "answers.jsonl, to write what it holds in another --format, or as a --report, without a model.",
            metavar="VIDEO",
        ),
    ],
    labels: LabelsOption = None,
    label: LabelOption = None,
    model: ModelOption = "PE-Core-B-16/meta",
    backbone: BackboneOption = None,
    templates: TemplatesOption = None,
    prompts: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
        typer.Option(
            help="Embeddings from zsar embed-prompts, in place of labels and templates.", metavar="FILE"
        ),
    ] = None,
    top_k: Annotated[
        int,
        typer.Option(
            "--top-k", "-k", min=checks.TOP_K[0], max=checks.TOP_K[1], help="Labels to show for a video."
        ),
    ] = 5,
    min_confidence: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--min-confidence",
            min=checks.SHARE[0],
            max=checks.SHARE[1],
            help='Add an "answer" to each record: the best label where 1 - unknown is at least this, else "none of '
            'these". Higher is stricter. Default: no answer; 0.5 with --window and --multi.',
            metavar="P",
        ),
    ] = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=checks.SHARE[0], max=checks.SHARE[1], hidden=True),
    ] = None,
    multi: Annotated[
        bool,
        typer.Option(
            "--multi",
            help='Several things at once: "answers" has every label whose yes is at least --min-confidence.',
        ),
    ] = False,
    calibration: Annotated[
        Literal["95", "90", "80", "alarms", "off"],
        typer.Option(
            help="After zsar eval --calibrate, and without --min-confidence: answer by its bound for 95, 90 or 80% "
            "right answers, for 5% false alarms, or not by it.",
        ),
    ] = "90",
    wide: Annotated[
        bool,
        typer.Option("--wide", help="CSV with a row a video (or segment) and a column a label: its yes."),
    ] = False,
    format: Annotated[
        Optional[Format],  # noqa: UP045
        typer.Option(
            "--format",
            "-f",
            help="Default: table on a terminal, else jsonl. srt and vtt are subtitles, with --window.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output",
            "-o",
            help="Write the records to this file, not to standard output. With srt or vtt and several videos: a "
            "folder.",
            metavar="FILE",
        ),
    ] = None,
    window: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=checks.WINDOW[0],
            max=checks.WINDOW[1],
            help="When does it happen? Slide a window of so many seconds over each video; gives segments.",
            metavar="SECONDS",
        ),
    ] = None,
    stride: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=checks.WINDOW[0],
            max=checks.WINDOW[1],
            help="Seconds from one window's start to the next. Default: half a window.",
            metavar="SECONDS",
        ),
    ] = None,
    explain: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Write a picture about each video into this folder: the answer, frames, where each of the best labels "
            "is seen and where there is motion, probabilities. With --window: the timeline, and its segments.",
            metavar="FOLDER",
        ),
    ] = None,
    explain_label: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--explain-label",
            help="A label whose places --explain shows, in place of the best two; repeatable.",
            metavar="LABEL",
        ),
    ] = None,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Write one HTML page of all answers with their frames: to look at, search, choose a threshold, and "
            "correct answers for zsar train and eval. Needs no network.",
            metavar="FILE",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with --output: skip the videos that it answers already, and try its failures again.",
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on standard input is NUL-separated (find -print0).")
    ] = False,
    frames: FramesOption = None,
    views: ViewsOption = 1,
    crops: CropsOption = 1,
    batch_size: Annotated[
        int,
        typer.Option(
            min=checks.BATCH_SIZE[0],
            max=checks.BATCH_SIZE[1],
            help="Videos scored together at most.",
            envvar="ZSAR_BATCH_SIZE",
        ),
    ] = 8,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=checks.WORKERS[0],
            max=checks.WORKERS[1],
            help="Decoding processes. 0 decodes in this one, unprotected. Default: half the cores, 2 to 8; 1 on one.",
            envvar="ZSAR_WORKERS",
        ),
    ] = None,
    fps: Annotated[
        float,
        typer.Option(
            min=checks.FPS[0],
            max=checks.FPS[1],
            help="Frames a second of folders of images, which do not tell: durations and times rest on it.",
        ),
    ] = 25.0,
    decoder: Annotated[
        Literal["auto", "decord", "pyav"],
        typer.Option(
            help="How to decode. decord reads plain files only, PyAV the others.", envvar="ZSAR_DECODER"
        ),
    ] = "auto",
    timeout: Annotated[
        float,
        typer.Option(
            min=checks.TIMEOUT[0],
            max=checks.TIMEOUT[1],
            help="Seconds that decoding one video may take.",
            envvar="ZSAR_TIMEOUT",
        ),
    ] = 60.0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    cache: CacheOption = None,
    list_models: ListModelsOption = False,
    list_labels: ListLabelsOption = False,
) -> None:
    """Name the action in videos.

    score is the probability among the labels given. yes (0 to 1) says whether the video shows a label at all,
    and unknown (0 to 1) whether none of them fits: with a single label, its score is always 1, so read these.

    Exit codes: 0 all well, 1 some videos failed (each has its record; 0 under torchrun, which would start such a
    job again), 2 wrong usage, 130 interrupted.
    """
    from zsar_cli.cli import console

    checks.number("--timeout", timeout, checks.TIMEOUT)
    rule = _rule(min_confidence, threshold, multi, windows=window is not None)
    checks.choice("--crops", crops, (1, 3))
    checks.number("--fps", fps, checks.FPS)
    from zsar_cli.text.labels import class_labels

    with contextlib.ExitStack() as stack:
        unlabelled = labels is None and not label and prompts is None
        stored = find_answers(stack, videos, listed=unlabelled and class_labels(model) is None)
        if stored is not None:
            return convert(context, stored, format, output, report, wide=wide, overwrite=overwrite)
    check_destination(output, resume, overwrite, format)
    windows = _windows(window, stride, frames, views, crops, top_k, rule, decoder, fps, format, output)
    if wide and format_of(output, format) != "csv":
        raise UsageError("--wide is a form of CSV; add --format csv.")
    if report is not None and resume and format_of(output, format) == "csv":
        raise UsageError(
            "--report with --resume shows the earlier answers too, and they need --format jsonl."
        )
    if report is not None and distributed.rank() == 0:
        check_report(report, overwrite=overwrite, resume=resume)
    if cache is not None and windows is not None and cache != _from_environment("ZSAR_FEATURES"):
        raise UsageError(
            "--cache keeps clips of whole videos and nothing of windows; leave one of the two out."
        )
    wanted, templates = _labels(labels, label, prompts, templates, model)

    from zsar_cli.cli.memory import keep_freed_memory
    from zsar_cli.prediction.clips import ClipOptions
    from zsar_cli.prediction.inputs import find_videos
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.resources import default_workers
    from zsar_cli.run_log import log_setup
    from zsar_cli.video.pool import DecodePool

    options = ClipOptions(frames, views, crops, decoder, batch_size, fps)
    _check_explain(explain, explain_label)
    if stray := stray_labels_line(videos):
        console.note(stray)
    listed = "-" in videos
    if listed and sys.stdin.isatty():
        console.note("Reading names of videos from the terminal, one a line; end the list with Ctrl-D.")
    found = None if listed or distributed.rank() else list(find_videos(videos))
    for written in (output, report):
        if written is not None:
            refuse_inputs(written, [labels, prompts, templates, *(found or ())])
    if report is not None and output is not None and os.path.realpath(report) == os.path.realpath(output):
        raise UsageError("--output and --report name the same file; give each its own.")
    if distributed.rank() == 0:
        check_subtitles(output, format, several=found is None or len(found) > 1, overwrite=overwrite)
    run = Run(options, top_k, rule, windows)
    workers = default_workers() if workers is None else workers
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interruptible(run))
        if explain is not None:
            run.explain = _open_explain(stack, explain, videos, found, resume, overwrite)
        # The processes start while this one imports torch and reads the weights
        pool = stack.enter_context(DecodePool(workers, timeout=timeout))
        with console.status(f"Loading {model} ..."):
            stack.enter_context(distributed.processes())
            recognizer = Recognizer.load(
                model,
                device=device,
                precision=precision,
                backbone=backbone,
                cache=None if windows else cache,
            )
            text = _embeddings(recognizer, wanted, prompts, templates)
        if explain is not None:
            _prepare_sheets(run, recognizer, text, explain_label or [])
        if min_confidence is None and threshold is None and not multi and wanted is not None:
            frames_shown = frames or recognizer.model.frames
            run.calibrate(recognizer.model, wanted, text.templates_hash, frames_shown, calibration)
        if len(text.labels) == 1:
            console.note("With one label, score is always 1: read yes (does the video show it?) and unknown.")
        if wide:
            run.top_k = len(text.labels)
        if windows is not None:
            assert run.rule.min_confidence is not None
            run.windows = replace(
                windows,
                frames=frames or recognizer.model.frames,
                top_k=run.top_k,
                min_confidence=run.rule.min_confidence,
            )
        if report is not None:
            from zsar_cli.prediction.report import FilmSize

            run.film = FilmSize.for_videos(distributed.from_first(None if found is None else len(found)))
        log_setup(recognizer.model, workers=workers, decoder=decoder)
        if sys.stderr.isatty() and distributed.rank() == 0:
            console.note(
                start_line(
                    recognizer.model,
                    frames=frames or recognizer.model.frames,
                    labels=counted(len(text.labels), "label"),
                    videos="videos as they come" if found is None else counted(len(found), "video"),
                    places=(output, report, explain),
                )
            )
        if precision == "auto" and len(found or ()) >= MANY and recognizer.model.backbone.takes_int8:
            console.note(INT8_HINT)
        keep_freed_memory()  # not before: weights that were cast give theirs back
        if (unlike := unlike_training_line(text.labels, recognizer.model)) and distributed.rank() == 0:
            console.note(unlike)
        sink = Sink(lambda record: None)
        if distributed.rank() == 0:
            target = Target(
                *(output, format_of(output, format), videos, found, resume, overwrite),
                Columns(windows is not None, tuple(text.labels) if wide else None, tuple(text.labels)),
            )
            if report is not None:
                page = new_page(report, recognizer.model, run, text.labels, command_line(context))
                run.page = stack.enter_context(open_page(report, page, overwrite=overwrite, resume=resume))
            if output is not None and target.format in GROWING:
                made = made_with(recognizer.model, run, text, wanted)
                target = replace(target, made_with=made, rows=min(run.top_k, len(text.labels)))
            sink = stack.enter_context(open_sink(target))
        paths = find_videos(videos, sys.stdin.buffer, null=null) if listed else iter(found or ())
        run.all(recognizer, text, pool, sink, paths, total=None if found is None else len(found))
        if run.page is not None and run.film is not None and resume and output is not None:
            with console.status("Frames of the answers that were there ..."):
                add_earlier(run.page, output, pool, run.film, recognizer.model.preprocess, run.stop)
    if report is not None and sys.stderr.isatty():
        console.note(f"{report}: open it in a browser.")
    run.report(output, format_of(output, format))
    console.detail(f"Time: {recognizer.times}, {run.seconds:.1f} s for all videos.")
    if recognizer.cache is not None:
        console.note(f"Cache {recognizer.cache.summary()}.")
    if run.stop.is_set():
        raise typer.Exit(130)
    if run.failed and distributed.world() == 1:  # torchrun would start a job again that did not exit with 0
        raise typer.Exit(1)


def _windows(
    window: float | None,
    stride: float | None,
    frames: int | None,
    views: int,
    crops: int,
    top_k: int,
    rule: AnswerRule,
    decoder: str,
    fps: float,
    format: Format | None,
    output: Path | None,
) -> WindowOptions | None:
    """The windows asked for, checked; None where none were."""
    if window is None:
        if stride is not None:
            raise UsageError("--stride is the step of sliding windows; give their length with --window.")
        if format_of(output, format) in SUBTITLES:
            raise UsageError(
                "Subtitles say when something happens; add --window SECONDS, such as --window 4."
            )
        return None
    if views > 1 or crops > 1:
        raise UsageError("--window goes without --views and --crops: overlapping windows are views already.")
    from zsar_cli.prediction.windows import WindowOptions

    stride = window / 2 if stride is None else stride
    assert rule.min_confidence is not None
    return WindowOptions(window, stride, frames or 8, top_k, rule.min_confidence, decoder, fps, rule.multi)


def _rule(min_confidence: float | None, threshold: float | None, multi: bool, *, windows: bool) -> AnswerRule:
    """The rule that was asked for; a line about the old name of its bound."""
    from zsar_cli.cli import console
    from zsar_cli.prediction.confidence import DEFAULT, answer_rule

    if min_confidence is not None:
        checks.number("--min-confidence", min_confidence, checks.SHARE)
    if threshold is not None:
        checks.number("--threshold", threshold, checks.SHARE)
        if min_confidence is not None:
            raise UsageError("Give --min-confidence alone: --threshold is its old name, for 1 minus it.")

    def tell(threshold: float, least: float) -> None:
        if distributed.rank() == 0:
            console.note(
                f"--threshold {threshold:g} is the old name of --min-confidence {least:g}, 1 minus it."
            )

    return answer_rule(
        min_confidence, threshold, multi=multi, default=DEFAULT if windows else None, tell=tell
    )


def _check_explain(folder: Path | None, labels: Sequence[str] | None) -> None:
    """Say what is missing for pictures before any work is done."""
    from zsar_cli.plots import require_matplotlib

    if folder is not None:
        require_matplotlib()
    elif labels:
        raise UsageError("--explain-label says what --explain shows; name a folder with --explain.")


def _prepare_sheets(run: Run, recognizer: Recognizer, text: PromptEmbeddings, labels: Sequence[str]) -> None:
    """Check the labels that sheets are to show, and say what this model does not have for them."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.sheets import check_labels, heat_note

    run.explain_labels = check_labels(labels, text.labels)
    note = heat_note(recognizer.model, cached=recognizer.cache is not None)
    if note is not None and distributed.rank() == 0:
        console.note(note)


def _open_explain(
    stack: contextlib.ExitStack,
    folder: Path,
    inputs: Sequence[str],
    videos: Sequence[str] | None,
    resume: bool,
    overwrite: bool,
) -> VideoFolder:
    """The folder of pictures; of several processes, each draws some, and the first one holds the folder."""
    from zsar_cli.cli.output.folders import VideoFolder, lock
    from zsar_cli.cli.output.sheets import is_sheet_of

    if distributed.rank() == 0:
        stack.enter_context(lock(folder, "--explain"))
    own = is_sheet_of if resume else (lambda path, video: False)
    known = videos if distributed.world() == 1 else None
    return VideoFolder(folder, "png", inputs, known, overwrite=overwrite, own=own, option="--explain")


def _from_environment(name: str) -> Path | None:
    # What the environment says always may be overruled; what was typed is meant
    return Path(value) if (value := os.environ.get(name)) else None


def _labels(
    labels: str | None, label: list[str] | None, prompts: Path | None, templates: str | None, model: str
) -> tuple[Labels | None, str | None]:
    """Labels and templates, checked; None where prompt embeddings take their place."""
    from zsar_cli.text.templates import load_templates

    if prompts is None:
        if templates is not None:
            load_templates(templates)
        return labels_or_classes(labels, label, model), templates
    # What the environment says always may be overruled; what was typed beside --prompts is a mistake
    if label or labels not in (None, os.environ.get("ZSAR_LABELS")):
        raise UsageError("Give labels or --prompts, not both: the embeddings bring their labels along.")
    if templates not in (None, os.environ.get("ZSAR_TEMPLATES")):
        raise UsageError("Give --templates or --prompts, not both: the embeddings were made with templates.")
    if not prompts.is_file():
        raise UsageError(f"There is no file {prompts}; make it with `zsar embed-prompts`.")
    return None, None


def _embeddings(
    recognizer: Recognizer, wanted: Labels | None, prompts: Path | None, templates: str | None
) -> PromptEmbeddings:
    from zsar_cli.text.embeddings import PromptEmbeddings

    if wanted is not None:
        return recognizer.embed_labels(wanted, templates)
    assert prompts is not None
    return recognizer.embed_labels(PromptEmbeddings.load(prompts))


# --- the run --------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One pass over the videos, and what is said about it at the end."""

    options: ClipOptions
    top_k: int
    rule: AnswerRule
    windows: WindowOptions | None = None
    explain: VideoFolder | None = None
    explain_labels: list[str] = field(default_factory=list)
    film: FilmSize | None = None  # of the cards of a page, where one was asked for
    page: AnswersPage | None = None  # of several processes, the first one's
    stop: threading.Event = field(default_factory=threading.Event)
    started: bool = False
    done: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    short: int = 0
    strange: int = 0  # videos that show nothing that the model knows
    tally: Counter[str] = field(default_factory=Counter)  # videos by answer

    def calibrate(
        self, model: RecognizerModel, labels: Labels, templates: str, frames: int, target: str
    ) -> None:
        """Answer by the bound that ``zsar eval --calibrate`` found for just this, where it did; a line says so."""
        from zsar_cli.cli import console
        from zsar_cli.prediction import calibration

        found = calibration.bound(model, labels, templates, frames, target)
        if found is None:
            return
        least, gave = found
        if least is not None:
            self.rule = replace(self.rule, min_confidence=least)
        if distributed.rank() == 0:
            console.note(f"{gave}; --calibration off leaves it.")

    def all(
        self,
        recognizer: Recognizer,
        text: PromptEmbeddings,
        pool: Any,
        sink: Sink,
        paths: Iterator[str],
        total: int | None,
    ) -> None:
        """Every video to the sink, with a bar; of several processes, the first one writes what all of them found."""
        from zsar_cli.cli import console

        skip: set[str] = set()
        if sink.file is not None:
            skip = set(sink.file.done)
            total = None if total is None else total - len(skip)

        def remaining() -> Iterator[str]:
            for path in paths:
                if self.stop.is_set():
                    return
                if sink.file is not None and sink.file.form.key(path) in skip:
                    self.skipped += 1
                else:
                    yield path

        self.started = True
        start = time.monotonic()
        by_time = self.windows is not None and total == 1  # a bar over one long video counts its seconds
        with console.progress(None if by_time else total, "s of video" if by_time else "videos") as advance:
            count_time = advance if by_time else (lambda seconds, length: None)
            share = iter(distributed.own_share(remaining()))
            results = self._results(recognizer, text, pool, share, count_time)
            own = ((result.to_record(), self._filmstrip(result)) for result in results)
            for record, strip in distributed.in_turn(distributed.to_first(own)):
                sink.write(record)
                if self.page is not None:
                    self.page.add(record, strip)
                self._remark(record, sink)
                if not by_time:
                    advance(1)
        self.seconds = time.monotonic() - start

    def _results(
        self,
        recognizer: Recognizer,
        text: PromptEmbeddings,
        pool: Any,
        paths: Iterator[str],
        count_time: Callable[[float, float | None], None],
    ) -> Iterator[Prediction | Timeline | Failure]:
        shown = self.film is not None
        if self.windows is not None:
            from zsar_cli.prediction.windows import run_windows

            model, stop = recognizer.model, self.stop
            timelines = run_windows(
                model,
                paths,
                text,
                pool,
                self.windows,
                shown=shown,
                stop=stop,
                report=count_time,
                times=recognizer.times,
            )
            if self.explain is None:
                return timelines
            from zsar_cli.cli.output.sheets import with_timeline_sheets

            return with_timeline_sheets(timelines, recognizer, text, pool, self)
        if self.explain is not None:
            from zsar_cli.cli.output.sheets import with_sheets

            return with_sheets(recognizer, paths, text, pool, self)
        return recognizer.run(
            paths,
            text,
            pool,
            self.options,
            top_k=self.top_k,
            rule=self.rule,
            shown=shown,
            stop=self.stop,
        )

    def _filmstrip(self, result: Prediction | Timeline | Failure) -> dict[str, Any] | None:
        """The frames for the page; made where they are, and of several processes sent to the first."""
        from zsar_cli.prediction.records import Failure
        from zsar_cli.prediction.report import filmstrip

        if self.film is None or isinstance(result, Failure):
            return None
        return filmstrip(result.shown, self.film, whole=self.windows is not None)

    def _remark(self, record: dict[str, Any], sink: Sink) -> None:
        """What stderr says beside a record."""
        from zsar_cli.cli import console

        self.done += 1
        self.tally.update(answers_in(record))
        if "error" in record:
            self.failed += 1
            if not sink.shows:
                console.error(f"{record['video']}: {record['error']['message']}")
        else:
            self.short += record["duration"] < SHORT
            self.strange += MEANS_NOTHING in record.get("warning", "")

    def report(self, output: Path | None, format: Format) -> None:
        """A line at the end, where there is something to say."""
        from zsar_cli.cli import console

        videos = "1 video" if self.done == 1 else f"{self.done} videos"
        skipped = f", {self.skipped} answered before" if self.skipped else ""
        failed = f"; {self.failed} failed, each with its record" if self.failed else ""
        if self.short:
            console.note(
                f"{self.short} of {videos} shorter than {SHORT:g} s: judged by appearance more than by movement."
            )
        if self.strange:
            console.note(
                f"{self.strange} of {videos}: {MEANS_NOTHING}. Name a general model with --model; "
                "zsar predict --list-models shows some."
            )
        if format in SUBTITLES and (silent := self.tally[NONE_OF_THESE]):
            console.note(
                f"{silent} of {videos} without a cue: nothing in it is as sure as --min-confidence asks; lower that."
            )
        if self.stop.is_set():
            held = " Go on with --resume." if format in GROWING else f" Their records are in {output}."
            console.note(f"Interrupted after {videos}{skipped}{failed}.{held if output is not None else ''}")
        elif self.failed or self.skipped or (self.done != 1 and sys.stderr.isatty()):
            where = f", written to {output}" if output is not None else ""
            console.note(f"{videos} in {self.seconds:.1f} s{skipped}{failed}{where}.")
            if self.tally and sys.stderr.isatty():
                console.note(tally_line(self.tally))
            if output is not None and format == "jsonl" and self.page is None and sys.stderr.isatty():
                console.note("Next:  the same with --resume and --report answers.html, a page to look at.")


@contextlib.contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run after the records in hand; before it has begun, or a second time, at once."""

    def handle(number: int, frame: object) -> None:
        again = run.stop.is_set() and distributed.world() == 1  # torchrun passes on what was sent already
        if again or not run.started:
            raise KeyboardInterrupt
        run.stop.set()

    with listening(handle):
        yield
