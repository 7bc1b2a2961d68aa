"""``zsar predict``: recognise actions in videos."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zsar_cli import distributed
from zsar_cli.cli import options
from zsar_cli.cli import predict_options as own
from zsar_cli.cli.convert import are_answers, convert, find_answers
from zsar_cli.cli.live import predict_live, source_asked
from zsar_cli.cli.output.answers_page import add_earlier, command_line, new_page, open_page
from zsar_cli.cli.output.formats import Columns
from zsar_cli.cli.output.made_with import made_with
from zsar_cli.cli.output.sink import STORED, Sink, Target, open_sink
from zsar_cli.cli.predict_checks import (
    check_explain,
    check_numbers,
    check_outputs,
    chosen_rule,
    chosen_windows,
    find_inputs,
    labels_and_templates,
    own_windows,
    unreadable,
    wants_own_windows,
)
from zsar_cli.cli.predict_options import Asked, asked_of
from zsar_cli.cli.predict_run import Run, interruptible
from zsar_cli.cli.rescore import rescore, wants_rescoring
from zsar_cli.cli.run_lines import counted, start_line, unlike_training_line

if TYPE_CHECKING:
    from zsar_cli.cli.output.folders import VideoFolder
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.text.labels import Labels

MANY = 100  # videos from which on INT8_HINT is shown
INT8_HINT = "On a CPU --precision int8 is faster (docs/performance.md has its speed and accuracy)."


def predict(
    context: typer.Context,
    videos: own.VideosArgument,
    labels: options.LabelsOption = None,
    label: options.LabelOption = None,
    model: options.ModelOption = "PE-Core-B-16/meta",
    backbone: options.BackboneOption = None,
    templates: options.TemplatesOption = None,
    prompts: own.PromptsOption = None,
    top_k: own.TopKOption = 5,
    min_confidence: own.MinConfidenceOption = None,
    threshold: own.ThresholdOption = None,
    multi: own.MultiOption = False,
    calibration: own.CalibrationOption = "90",
    wide: own.WideOption = False,
    format: own.FormatOption = None,
    output: own.OutputOption = None,
    embeddings: own.EmbeddingsOption = False,
    window: own.WindowOption = None,
    stride: own.StrideOption = None,
    shots: own.ShotsOption = None,
    explain: own.ExplainOption = None,
    explain_label: own.ExplainLabelOption = None,
    report: own.ReportOption = None,
    resume: own.ResumeOption = False,
    shard: own.ShardOption = None,
    merge: own.MergeOption = False,
    overwrite: options.OverwriteOption = False,
    null: own.NullOption = False,
    column: own.ColumnOption = None,
    max_bytes: options.MaxBytesOption = "20G",
    storage_options: options.StorageOptionsOption = None,
    frames: options.FramesOption = None,
    views: options.ViewsOption = 1,
    crops: options.CropsOption = 1,
    batch_size: options.BatchSizeOption = 8,
    workers: options.WorkersOption = None,
    fps: options.FpsOption = 25.0,
    decoder: options.DecoderOption = "auto",
    timeout: options.TimeoutOption = 60.0,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    cache: options.CacheOption = None,
    ray: options.RayOption = None,
    list_models: options.ListModelsOption = False,
    list_labels: options.ListLabelsOption = False,
) -> None:
    """Recognise actions in videos.

    score is the probability of a label among the given labels; with a single label, it is always 1. yes (0 to 1)
    says whether the video shows a label at all, and unknown (0 to 1) whether it shows none of them.

    Exit codes: 0 success; 1 some videos failed (each has a record with its error; with --shard 0, as schedulers start
    failed tasks again), or --merge misses parts; 2 usage error; 130 interrupted.
    """
    asked = asked_of(locals())
    from zsar_cli.cli.merge import merge_parts
    from zsar_cli.cli.output.sending import on_this_disk

    if shard is None and not merge:
        distributed.refuse_several("zsar predict", "use --shard auto, or start one without WORLD_SIZE")
    options.set_up_storage(max_bytes, storage_options)
    if ray is not None and source_asked(asked) is None:
        from zsar_cli.cli.on_ray import predict_on_ray

        predict_on_ray(asked)
        return
    with on_this_disk(asked) as asked:
        if merge:
            merge_parts(asked)
        else:
            _predict(asked)


def _predict(asked: Asked) -> None:
    check_numbers(asked)
    if (source := source_asked(asked)) is not None:
        predict_live(asked, source)
        return
    rule = chosen_rule(asked)
    if _from_stored(asked):
        return
    check_outputs(asked)
    windows = chosen_windows(asked)
    wanted, templates = labels_and_templates(asked)
    from zsar_cli.prediction.clips import ClipOptions

    clips = ClipOptions(asked.frames, asked.views, asked.crops, asked.decoder, asked.batch_size, asked.fps)
    check_explain(asked.explain, asked.explain_label)
    found, paths = find_inputs(asked)
    run = Run(clips, asked.top_k, rule, windows, asked.embeddings)
    if asked.own_shard is not None:
        _check_part(asked, run, wanted)
    recognizer = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible(run))
        if failures := unreadable(asked, found):
            run.write_all(
                stack.enter_context(open_sink(_target(asked, run, found))), failures, lambda left, _: left
            )
        else:
            recognizer = _answer(stack, asked, run, (found, paths), wanted, templates)
    end(asked, run, recognizer)


def _check_part(asked: Asked, run: Run, wanted: Labels | None) -> None:
    """Raise UsageError where the part of this shard cannot be written, before a model is loaded."""
    from zsar_cli.cli.output.made_with import known_before
    from zsar_cli.cli.output.part import check_part
    from zsar_cli.prediction.places import open_folder

    assert asked.place is not None
    assert asked.own_shard is not None
    target = replace(_target(asked, run, None), made_with=known_before(run, wanted, wide=asked.wide))
    check_part(target, open_folder(asked.place), asked.own_shard)


def _target(asked: Asked, run: Run, found: list[str] | None, labels: tuple[str, ...] = ()) -> Target:
    """Describe the destination of the records."""
    return Target(
        *(asked.output, asked.written_format, asked.videos, found, asked.resume, asked.overwrite),
        Columns(
            *(run.windows is not None, labels if asked.wide else None, labels, run.rule.multi),
            embeddings=run.embeddings,
        ),
    )


def _from_stored(asked: Asked) -> bool:
    """Convert stored answers, or score them with other labels, if the arguments are such; return whether they were."""
    from zsar_cli.text.labels import class_labels

    if wants_rescoring(asked) and are_answers(asked.videos):
        rescore(asked, asked.videos)
        return True
    with contextlib.ExitStack() as stack:
        unlabelled = asked.labels is None and not asked.label and asked.prompts is None
        listed = unlabelled and class_labels(asked.model) is None
        stored = find_answers(stack, asked.videos, listed=listed)
        if stored is not None:
            made = (asked.format, asked.output, asked.report)
            convert(
                asked.context,
                stored,
                *made,
                wide=asked.wide,
                overwrite=asked.overwrite,
                shown=asked.shown_place,
            )
    return stored is not None


def _answer(
    stack: contextlib.ExitStack,
    asked: Asked,
    run: Run,
    videos: tuple[list[str] | None, Iterator[str]],
    wanted: Labels | None,
    templates: str | None,
) -> Recognizer:
    """Load the model, open the outputs, and process all videos."""
    from zsar_cli.cli import console
    from zsar_cli.cli.memory import keep_freed_memory
    from zsar_cli.cli.threads import limit_threads
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.resources import default_workers
    from zsar_cli.run_log import log_setup
    from zsar_cli.video.pool import DecodePool

    found, paths = videos
    if asked.explain is not None:
        run.explain = _open_explain(stack, asked, asked.explain, found)
    workers = default_workers() if asked.workers is None else asked.workers
    # The processes start while this one imports torch and reads the weights
    pool = stack.enter_context(DecodePool(workers, timeout=asked.timeout))
    with console.status(f"Loading {asked.model} ..."):
        recognizer = Recognizer.load(
            asked.model,
            device=asked.device,
            precision=asked.precision,
            backbone=asked.backbone,
            cache=None if run.windows else asked.cache,
        )
        text = embeddings_of(recognizer, wanted, asked.prompts, templates)
    if asked.workers is None:
        pool.grow(default_workers(recognizer.model.backbone.device.type))
    if found is not None and len(found) == 1:
        pool.threads = pool.alone
    if run.windows is None and wants_own_windows(asked, recognizer.model, found, pool):
        run.windows, recognizer.cache = own_windows(asked, recognizer.model), None
    settle(asked, run, recognizer, text, wanted)
    if asked.report is not None:
        from zsar_cli.prediction.report import FilmSize

        run.film = FilmSize.for_videos(None if found is None else len(found))
    limit_threads(recognizer.model.backbone)
    log_setup(recognizer.model, workers=pool.workers, decoder=asked.decoder)
    _say_start(asked, recognizer, text, found)
    keep_freed_memory()  # not before: weights that were cast give theirs back
    sink = open_records(stack, asked, run, recognizer, text, found, wanted)
    if sink.part is not None and sink.part.manifest is not None:
        run.part = sink.part
        return recognizer
    run.all(recognizer, text, pool, sink, paths, total=None if found is None else len(found))
    if sink.part is not None and sink.part.finish is not None and not run.stop.is_set():
        sink.part.finish()
        run.part = sink.part
    if run.page is not None and run.film is not None and asked.resume and asked.output is not None:
        with console.status("Decoding frames of earlier answers ..."):
            add_earlier(run.page, asked.output, pool, run.film, recognizer.model.preprocess, run.stop)
    return recognizer


def settle(
    asked: Asked, run: Run, recognizer: Recognizer, text: PromptEmbeddings, wanted: Labels | None
) -> None:
    """Set what depends on the model and the labels: the threshold, the number of labels, the frames of windows."""
    from zsar_cli.prediction.confidence import DEFAULT

    if asked.explain is not None:
        _prepare_sheets(run, recognizer, text, asked.explain_label or [])
    if run.windows is not None and run.rule.min_confidence is None:
        run.rule = replace(run.rule, min_confidence=DEFAULT)
    frames = asked.frames or recognizer.model.frames
    unbound = asked.min_confidence is None and asked.threshold is None and not asked.multi
    if unbound and wanted is not None:
        run.calibrate(
            recognizer.model, wanted, text.templates_hash, frames, asked.calibration, asked.typed_calibration
        )
    if asked.wide:
        run.top_k = len(text.labels)
    if run.windows is not None:
        assert run.rule.min_confidence is not None
        run.windows = replace(
            run.windows, frames=frames, top_k=run.top_k, min_confidence=run.rule.min_confidence
        )


def _say_start(asked: Asked, recognizer: Recognizer, text: PromptEmbeddings, found: list[str] | None) -> None:
    from zsar_cli.cli import console

    model = recognizer.model
    if len(text.labels) == 1:
        commas = " A comma does not separate labels; repeat --label." if "," in text.labels[0] else ""
        console.note(f"With a single label, score is always 1; read yes and unknown instead.{commas}")
    if sys.stderr.isatty():
        console.note(
            start_line(
                model,
                frames=asked.frames or model.frames,
                labels=counted(len(text.labels), "label"),
                videos="videos from a list" if found is None else counted(len(found), "video"),
                places=(asked.shown_place, asked.report, asked.explain),
            )
        )
    if asked.precision == "auto" and len(found or ()) >= MANY and model.backbone.takes_int8:
        console.note(INT8_HINT)
    if unlike := unlike_training_line(text.labels, model):
        console.note(unlike)


def open_records(
    stack: contextlib.ExitStack,
    asked: Asked,
    run: Run,
    recognizer: Recognizer,
    text: PromptEmbeddings,
    found: list[str] | None,
    wanted: Labels | None,
) -> Sink:
    """Open the outputs for records and for the report page."""
    labels = tuple(text.labels)
    target = _target(asked, run, found, labels)
    if asked.report is not None:
        page = new_page(asked.report, recognizer.model, run, text.labels, command_line(asked.context))
        run.page = stack.enter_context(
            open_page(asked.report, page, overwrite=asked.overwrite, resume=asked.resume)
        )
    if asked.place is not None and target.format in STORED:
        made = made_with(recognizer.model, run, text, wanted)
        target = replace(target, made_with=made, rows=min(run.top_k, len(labels)))
    if asked.own_shard is not None:
        from zsar_cli.cli.output.part import open_part
        from zsar_cli.prediction.places import open_folder

        assert asked.place is not None
        return stack.enter_context(open_part(target, open_folder(asked.place), asked.own_shard, found))
    return stack.enter_context(open_sink(target))


def end(asked: Asked, run: Run, recognizer: Recognizer | None) -> None:
    """Report on the run, and exit with 1 or 130 where not all went well; without a model where none was needed."""
    from zsar_cli.cli import console

    if asked.report is not None and sys.stderr.isatty():
        console.note(f"Report: {asked.report} (open it in a browser).")
    if run.part is not None:
        run.report_part(run.part)
    run.report(asked.shown_place, asked.written_format)
    if recognizer is not None:
        console.detail(f"Time: {recognizer.times}, {run.seconds:.1f} s for all videos.")
        if recognizer.cache is not None:
            console.note(f"Cache {recognizer.cache.summary()}.")
    if run.stop.is_set():
        raise typer.Exit(130)
    if run.failed and asked.shard is None:  # a scheduler would start the task again
        raise typer.Exit(1)


def _prepare_sheets(run: Run, recognizer: Recognizer, text: PromptEmbeddings, labels: Sequence[str]) -> None:
    """Check the labels of ``--explain-label``, with a note if this model has no heat maps of labels."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.sheets import heat_note
    from zsar_cli.text.labels import labels_among

    run.explain_labels = labels_among(labels, text.labels, "--explain-label")
    note = heat_note(recognizer.model, cached=recognizer.cache is not None)
    if note is not None:
        console.note(note)


def _open_explain(
    stack: contextlib.ExitStack, asked: Asked, folder: Path, videos: Sequence[str] | None
) -> VideoFolder:
    """Open and lock the folder for explain sheets."""
    from zsar_cli.cli.output.folders import VideoFolder, lock
    from zsar_cli.cli.output.sheets import is_sheet_of

    stack.enter_context(lock(folder, "--explain"))
    own = is_sheet_of if asked.resume else (lambda path, video: False)
    return VideoFolder(
        folder, "png", asked.videos, videos, overwrite=asked.overwrite, own=own, option="--explain"
    )


def embeddings_of(
    recognizer: Recognizer, wanted: Labels | None, prompts: Path | None, templates: str | None
) -> PromptEmbeddings:
    """Embed the labels, or load their embeddings."""
    from zsar_cli.text.embeddings import PromptEmbeddings

    if wanted is not None:
        return recognizer.embed_labels(wanted, templates)
    assert prompts is not None
    return recognizer.embed_labels(PromptEmbeddings.load(prompts))
