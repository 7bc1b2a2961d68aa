"""``zsar predict`` of a live source: a stream of the network, a camera, or a video that comes through a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import typer

from zsar_cli.cli.output.formats import Columns
from zsar_cli.cli.output.sink import GROWING
from zsar_cli.cli.predict_checks import (
    check_outputs,
    chosen_rule,
    labels_and_templates,
    typed_cache,
    window_options,
)
from zsar_cli.cli.predict_options import Asked
from zsar_cli.cli.predict_run import Run, interruptible
from zsar_cli.errors import UsageError, VideoError

if TYPE_CHECKING:
    from zsar_cli.prediction.live import Watched
    from zsar_cli.prediction.timeline import Segment
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.labels import Labels
    from zsar_cli.video.live import LiveRequest
    from zsar_cli.video.live_source import Source
    from zsar_cli.video.pool import DecodePool

WINDOW = 4.0  # s, of a model that was trained on clips of any length


def source_asked(asked: Asked) -> Source | None:
    """Find the live source that the arguments name; None where they name files.

    Raises:
        UsageError: there are other videos beside it, or ``--format`` is a container and no video comes through a pipe.
    """
    from zsar_cli.video.live_source import live_source

    if asked.container is not None and asked.videos != ["-"]:
        raise UsageError(
            f"--format {asked.container} is the container of a video on standard input; give - as the only video."
        )
    found = next((source for text in asked.videos if (source := live_source(text, asked.container))), None)
    if found is not None and len(asked.videos) > 1:
        raise UsageError(f"{found.name} is live; start a run of its own for each live source and for files.")
    return found


def predict_live(asked: Asked, source: Source) -> None:
    """Write the segments of a live source as they end, until it does or is interrupted."""
    _check(asked, source)
    rule = chosen_rule(asked)
    windows = window_options(asked, _window(asked), _shots(asked))
    wanted, templates = labels_and_templates(asked)
    from zsar_cli.prediction.clips import ClipOptions

    run = Run(ClipOptions(asked.frames), asked.top_k, rule, windows)
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible(run))
        _run(stack, asked, run, source, wanted, templates)
    if run.stop.is_set():
        raise typer.Exit(130)
    if run.failed:
        raise typer.Exit(1)


def _check(asked: Asked, source: Source) -> None:
    """Raise UsageError for options that a source without an end does not have."""
    check_outputs(asked)
    given = {
        "--report": asked.report,
        "--explain": asked.explain,
        "--resume": asked.resume,
        "--embeddings": asked.embeddings,
        "--views": asked.views > 1,
        "--crops": asked.crops > 1,
        "--shard": asked.shard is not None,
        "--ray": asked.ray is not None,
        "--cache": typed_cache(asked),
        "--window 0": asked.window == 0,
    }
    if taken := [option for option, value in given.items() if value]:
        raise UsageError(f"{taken[0]} is not for live sources; remove it, or record the video to a file.")
    if asked.written_format not in GROWING and (asked.output or asked.written_format != "table"):
        raise UsageError("Segments of a live source are written as jsonl or csv; choose one with --format.")
    if source.kind == "pipe" and sys.stdin.isatty():
        raise UsageError("- with --format reads a video from a pipe, and standard input is the terminal.")


def _window(asked: Asked) -> float:
    """Choose the length of windows, with a note where it is not asked for."""
    from zsar_cli.cli import console
    from zsar_cli.model.config import clip_seconds_of

    if asked.window:
        return asked.window
    own = clip_seconds_of(asked.model)
    why = "as it was trained on clips of that length" if own else "the default"
    console.note(f"Windows of {own or WINDOW:g} s slide over the source ({why}); choose with --window.")
    return own or WINDOW


def _shots(asked: Asked) -> bool:
    from zsar_cli.model.config import clip_seconds_of

    return clip_seconds_of(asked.model) is not None if asked.shots is None else asked.shots


def _run(
    stack: contextlib.ExitStack,
    asked: Asked,
    run: Run,
    source: Source,
    wanted: Labels | None,
    templates: str | None,
) -> None:
    from zsar_cli.cli import console
    from zsar_cli.cli.memory import keep_freed_memory
    from zsar_cli.cli.predict import embeddings_of, open_records, settle
    from zsar_cli.cli.threads import limit_threads
    from zsar_cli.prediction.live import Watched, watch
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.run_log import log_setup

    hard = threading.Event()
    with console.status(f"Loading {asked.model} ..."):
        recognizer = Recognizer.load(
            asked.model, device=asked.device, precision=asked.precision, backbone=asked.backbone
        )
        text = embeddings_of(recognizer, wanted, asked.prompts, templates)
    settle(asked, run, recognizer, text, wanted)
    pool, request = _decoder(stack, asked, run, recognizer, source, hard)
    limit_threads(recognizer.model.backbone)
    log_setup(recognizer.model, workers=pool.workers, decoder="pyav")
    keep_freed_memory()
    sink = open_records(stack, asked, run, recognizer, text, [source.name], wanted)
    assert run.windows is not None
    seen, run.started = Watched(), True
    write: Callable[[dict[str, Any]], object] = sink.write
    if asked.written_format == "table":
        write = _lines(text.labels)
    spent: Counter[str] = Counter()
    error: VideoError | None = None
    try:
        for segment in watch(
            *(recognizer.model, request, text, pool, run.windows, seen),
            stop=run.stop,
            hard=hard,
            tell=console.note,
        ):
            write(_record(segment, source, seen, run.windows.min_confidence))
            spent[segment.answer] += segment.end - segment.start  # type: ignore[assignment]
    except VideoError as failed:
        error = failed
    if error is not None:
        run.failed += 1
        if asked.written_format != "table":
            sink.write({"video": source.name, "error": {"kind": error.kind, "message": error.message}})
        console.error(f"{source.name}: {error.message}.")
    _say_end(run, source, seen, spent)


def _decoder(
    stack: contextlib.ExitStack,
    asked: Asked,
    run: Run,
    recognizer: Recognizer,
    source: Source,
    hard: threading.Event,
) -> tuple[DecodePool, LiveRequest]:
    """Start the process that decodes, and make its request; it ends as soon as the run is interrupted."""
    from zsar_cli.prediction.live import LATE
    from zsar_cli.video.live import LiveRequest
    from zsar_cli.video.pool import DecodePool

    assert run.windows is not None
    window, frames = run.windows.window, run.windows.frames
    # A pipe is waited for; anything else says itself that nothing comes
    timeout = 10 * 365 * 86400.0 if source.kind == "pipe" else asked.timeout + 2 * window
    apart = asked.workers != 0 and sys.platform != "win32"  # whose processes share no descriptors
    pipe = sys.stdin.fileno() if source.kind == "pipe" else 0
    ended, ending = os.pipe() if apart else (-1, -1)
    if apart:
        stack.callback(os.close, ended)
        pipe = os.dup(pipe)
        stack.callback(os.close, pipe)
    pool = stack.enter_context(DecodePool(int(apart), timeout=timeout, handed=(ended, pipe) if apart else ()))
    over = threading.Event()
    stack.callback(over.set)

    def end() -> None:
        while not run.stop.wait(0.2):
            if over.is_set():
                break
        if apart:
            os.close(ending)
        if not over.wait(LATE):
            hard.set()

    threading.Thread(target=end, daemon=True, name="zsar-stop").start()
    request = LiveRequest(
        source,
        window,
        frames,
        recognizer.model.preprocess,
        run.windows.shots,
        pool.alone,
        pipe,
        ended if apart else run.stop,
    )
    return pool, request


def _record(segment: Segment, source: Source, seen: Watched, min_confidence: float) -> dict[str, Any]:
    """Make the record of a segment: that of a video with one segment, and when it began by the clock on the wall."""
    record: dict[str, Any] = {
        "video": source.name,
        "segments": [segment.to_record()],
        "duration": round(seen.duration, 3),
        "frames": seen.frames,
        "min_confidence": min_confidence,
    }
    if source.kind != "pipe" and seen.began is not None:
        began = datetime.fromtimestamp(seen.began + segment.start, timezone.utc)
        record["began"] = began.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return record


def _lines(labels: list[str]) -> Callable[[dict[str, Any]], None]:
    """Print a line for each segment."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.timelines import live_line

    columns = Columns(windows=True, known=tuple(labels))

    def write(record: dict[str, Any]) -> None:
        console.out(live_line(record["segments"][0], columns.known))

    return write


def _say_end(run: Run, source: Source, seen: Watched, spent: Counter[str]) -> None:
    from zsar_cli.cli import console
    from zsar_cli.prediction.timeline_style import clock

    how = "Interrupted after" if run.stop.is_set() else "Ended after"
    left = f"; {seen.dropped} frames were left out, as the model was slower" if seen.dropped else ""
    console.note(f"{how} {clock(seen.duration)} of {source.name}{left}.")
    if spent:
        most = ", ".join(f"{label} {clock(seconds)}" for label, seconds in spent.most_common(5))
        console.note(f"Answers: {most}.")
