"""Checks of option combinations of ``zsar predict``, before any work is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from zsar_cli import checks
from zsar_cli.cli.options import labels_or_classes
from zsar_cli.cli.output.answers_page import check_report
from zsar_cli.cli.output.destination import check_destination, check_subtitles
from zsar_cli.cli.output.sink import STORED, SUBTITLES
from zsar_cli.cli.predict_options import Asked
from zsar_cli.cli.run_lines import stray_labels_line, stray_list_line
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.outputs import refuse_inputs
from zsar_cli.prediction.parquet import require_pyarrow
from zsar_cli.prediction.parts import refuse_parts
from zsar_cli.video.address import is_remote

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.prediction.confidence import AnswerRule
    from zsar_cli.prediction.records import Failure
    from zsar_cli.prediction.windows import WindowOptions
    from zsar_cli.text.labels import Labels
    from zsar_cli.video.pool import DecodePool


def check_numbers(asked: Asked) -> None:
    """Raise UsageError for numbers that the ranges of the options cannot exclude, such as NaN."""
    checks.number("--timeout", asked.timeout, checks.TIMEOUT)
    checks.choice("--crops", asked.crops, (1, 3))
    checks.number("--fps", asked.fps, checks.FPS)


def check_outputs(asked: Asked) -> None:
    """Raise UsageError for outputs that cannot be written, or that cannot be combined."""
    if asked.shard is not None:
        check_shard(asked)
    else:
        check_destination(asked.output, asked.resume, asked.overwrite, asked.format)
    if asked.wide and asked.written_format != "csv":
        raise UsageError("--wide needs --format csv.")
    check_embeddings(asked)
    report = asked.report
    if report is None:
        return
    if asked.resume and asked.written_format == "csv":
        raise UsageError(
            "--report with --resume includes the earlier answers, which it can read only from --format jsonl."
        )
    check_report(report, overwrite=asked.overwrite, resume=asked.resume)
    if asked.output is not None and os.path.realpath(report) == os.path.realpath(asked.output):
        raise UsageError("--output and --report are the same file; give different paths.")


def check_shard(asked: Asked) -> None:
    """Raise UsageError for a shard whose part cannot be written."""
    assert asked.own_shard is not None
    if asked.place is None or (asked.output is not None and asked.output.is_file()):
        raise UsageError("--shard writes a part of the answers into a folder; name it with --output FOLDER.")
    if asked.written_format not in STORED:
        raise UsageError(f"--shard needs --format jsonl, csv or parquet, not {asked.written_format}.")
    if asked.written_format == "parquet":
        require_pyarrow()
    if asked.remote is not None:
        from zsar_cli.prediction.places import StorageFolder

        StorageFolder(asked.remote).make()
    for option, value in (("--report", asked.report), ("--explain", asked.explain)):
        if value is not None:
            raise UsageError(
                f"{option} shows all answers; use it without --shard, once the parts are merged."
            )


def check_embeddings(asked: Asked) -> None:
    """Raise UsageError where embeddings are asked for that have no place, or that there are not."""
    if not asked.embeddings:
        return
    if asked.written_format not in ("jsonl", "parquet"):
        raise UsageError(
            f"--embeddings needs --format jsonl or parquet; {asked.written_format} has no place for them."
        )
    if asked.window or asked.stride is not None or asked.shots:
        raise UsageError(
            "--embeddings stores one embedding per video, and --window makes many; remove one of them."
        )


def find_inputs(asked: Asked) -> tuple[list[str] | None, Iterator[str]]:
    """Find the videos: all of them, or None where a list is read as they are needed; and what yields them.

    Raises:
        UsageError: there are no videos, or an output is one of the inputs.
    """
    from zsar_cli.cli import console
    from zsar_cli.prediction.inputs import find_videos

    if stray := stray_labels_line(asked.videos) or stray_list_line(asked.videos):
        console.note(stray)
    listed = asked.listed
    if "-" in asked.videos and sys.stdin.isatty():
        console.note("Reading paths of videos from the terminal, one per line; end the list with Ctrl-D.")
    paths = find_videos(asked.videos, sys.stdin.buffer, null=asked.null, column=asked.column)
    if asked.own_shard is not None:
        paths = filter(asked.own_shard.has, paths)
        listed = listed and not has_manifest(asked)  # a complete part is compared with its videos
    try:
        found = None if listed else list(paths)
    except UsageError:
        for given in filter(is_remote, asked.videos):
            refuse_parts(given)
        raise
    if listed and asked.videos[0] != "-":
        paths = begun(paths)
    for written in (asked.output, asked.report):
        if written is not None:
            refuse_inputs(written, [asked.labels, asked.prompts, asked.templates, *(found or ())])
    several = found is None or len(found) > 1
    if asked.shard is None:
        check_subtitles(asked.output, asked.format, several=several, overwrite=asked.overwrite)
    return found, paths if found is None else iter(found)


def begun(paths: Iterator[str]) -> Iterator[str]:
    """Read the first of a list: what is wrong with it is said before a model is loaded."""
    return chain(list(islice(paths, 1)), paths)


def unreadable(asked: Asked, found: list[str] | None) -> list[Failure]:
    """Say why none of the videos can be read, where that needs no model; an empty list otherwise.

    A file of records says which model it was made with, and the columns of CSV depend on the model.
    """
    from zsar_cli.prediction.records import Failure
    from zsar_cli.video.container import check_path

    plain = asked.written_format in ("table", "jsonl") and asked.place is None
    if not plain or asked.report is not None or asked.explain is not None:
        return []
    failures = []
    for video in found or ():
        if is_remote(video):
            return []
        try:
            check_path(video)
        except VideoError as error:
            failures.append(Failure(video, error.kind, error.message))
        else:
            return []
    return failures


def has_manifest(asked: Asked) -> bool:
    """Tell whether the part of this run's shard was complete before."""
    from zsar_cli.prediction.parts import manifest_name
    from zsar_cli.prediction.places import open_folder

    assert asked.own_shard is not None
    assert asked.place is not None
    return open_folder(asked.place).size(manifest_name(asked.own_shard)) is not None


def chosen_windows(asked: Asked) -> WindowOptions | None:
    """Check and return the options of sliding windows that are asked for; None where none are."""
    from zsar_cli.model.config import clip_seconds_of

    length = asked.window
    if length is None and (asked.stride is not None or asked.shots or asked.written_format in SUBTITLES):
        length = clip_seconds_of(asked.model)
    if not length:
        if asked.stride is not None:
            raise UsageError("--stride needs --window, the length of the sliding windows.")
        if asked.shots:
            raise UsageError("--shots needs sliding windows; add --window SECONDS, such as --window 4.")
        if asked.written_format in SUBTITLES:
            raise UsageError("Subtitles need sliding windows; add --window SECONDS, such as --window 4.")
        return None
    if asked.views > 1 or asked.crops > 1:
        raise UsageError("--window cannot be combined with --views or --crops.")
    if typed_cache(asked):
        raise UsageError(
            "--cache cannot be combined with --window, as it stores clips of whole videos; remove one of them."
        )
    shots = clip_seconds_of(asked.model) is not None if asked.shots is None else asked.shots
    return window_options(asked, length, shots)


def window_options(asked: Asked, length: float, shots: bool) -> WindowOptions:
    """Make the options of windows of this length, in s."""
    from zsar_cli.prediction.windows import WindowOptions

    return WindowOptions(
        length,
        length / 2 if asked.stride is None else asked.stride,
        asked.frames or 8,
        asked.top_k,
        decoder=asked.decoder,
        fps=asked.fps,
        multi=asked.multi,
        shots=shots,
    )


LONGER = 1.5  # times as long as a clip of training is a video over which windows of that length slide unasked


def wants_own_windows(
    asked: Asked, model: RecognizerModel, found: list[str] | None, pool: DecodePool
) -> bool:
    """Tell whether windows of the model's own length slide unasked: it has one, and a video is longer.

    Of a list on standard input, whose videos are not known yet, one is taken to be.
    """
    from zsar_cli.prediction.windows import any_longer

    seconds = model.clip_seconds
    if (
        seconds is None
        or asked.embeddings
        or asked.window is not None
        or asked.views > 1
        or asked.crops > 1
        or typed_cache(asked)
    ):
        return False
    # Shards decide alike, whichever videos they have
    return (
        asked.listed or asked.shard is not None or any_longer(found or (), LONGER * seconds, pool, asked.fps)
    )


def own_windows(asked: Asked, model: RecognizerModel) -> WindowOptions:
    """Make windows as long as the model's clips of training, with a note that says so."""
    from zsar_cli.cli import console

    seconds = model.clip_seconds
    assert seconds is not None
    shots = asked.shots is not False
    inside = ", inside its shots" if shots else ""
    console.note(
        f"{model.name} was trained on clips of {seconds:g} s, so windows of {seconds:g} s slide over each "
        f"video{inside}. Turn this off with --window 0."
    )
    return window_options(asked, seconds, shots)


def chosen_rule(asked: Asked) -> AnswerRule:
    """Return the rule for answers; a note tells the new name of ``--threshold``."""
    from zsar_cli.cli import console
    from zsar_cli.prediction.confidence import answer_rule

    min_confidence, threshold = asked.min_confidence, asked.threshold
    if asked.multi and asked.typed_calibration:
        raise UsageError(
            "--calibration bounds one answer a video, and --multi gives several; bound those by --min-confidence."
        )
    if min_confidence is not None:
        checks.number("--min-confidence", min_confidence, checks.SHARE)
    if threshold is not None:
        checks.number("--threshold", threshold, checks.SHARE)
        if min_confidence is not None:
            raise UsageError(
                "Give --min-confidence only: --threshold T is the old name of --min-confidence 1-T."
            )

    def tell(threshold: float, least: float) -> None:
        console.note(
            f"--threshold {threshold:g} is deprecated; use --min-confidence {least:g} (1 minus the threshold)."
        )

    return answer_rule(
        min_confidence,
        threshold,
        multi=asked.multi,
        tell=tell,
    )


def check_explain(folder: Path | None, labels: Sequence[str] | None) -> None:
    """Raise UsageError if ``--explain`` is missing or cannot draw, before any work is done."""
    from zsar_cli.plots import require_matplotlib

    if folder is not None:
        require_matplotlib()
    elif labels:
        raise UsageError("--explain-label needs --explain FOLDER.")


def typed_cache(asked: Asked) -> bool:
    """Tell whether ``--cache`` was typed."""
    # What the environment says always may be overruled; what was typed is meant
    always = os.environ.get("ZSAR_FEATURES")
    return asked.cache is not None and asked.cache != (Path(always) if always else None)


def labels_and_templates(asked: Asked) -> tuple[Labels | None, str | None]:
    """Load and check labels and templates; None if prompt embeddings replace them."""
    from zsar_cli.text.templates import load_templates

    labels, prompts, templates = asked.labels, asked.prompts, asked.templates
    if prompts is None:
        if templates is not None:
            load_templates(templates)
        return labels_or_classes(labels, asked.label, asked.model), templates
    # What the environment says always may be overruled; what was typed beside --prompts is a mistake
    if asked.label or labels not in (None, os.environ.get("ZSAR_LABELS")):
        raise UsageError("Give labels or --prompts, not both: the embeddings include their labels.")
    if templates not in (None, os.environ.get("ZSAR_TEMPLATES")):
        raise UsageError("Give --templates or --prompts, not both: the embeddings include their templates.")
    if not prompts.is_file():
        raise UsageError(f"{prompts} does not exist; create it with `zsar embed-prompts`.")
    return None, None
