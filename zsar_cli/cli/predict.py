"""``zsar predict``: name the action in videos."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Optional

import typer

from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from zsar_cli.prediction import Recognizer, TextSide

FORMATS = ("table", "jsonl", "csv")


def predict(
    videos: Annotated[
        list[str],
        typer.Argument(
            help="Video files, folders, patterns, or - for a list on standard input.", metavar="VIDEO..."
        ),
    ],
    labels: Annotated[
        Optional[str],  # noqa: UP045 - typer reads this on Python 3.10
        typer.Option(
            help="Labels: a file (.txt, .csv, .yaml, .json) or a built-in list (kinetics400, ucf101, ...).",
            envvar="ZSAR_LABELS",
        ),
    ] = None,
    label: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="One more label; repeats."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="motion-tiny, ARCH/TAG, ARCH/path/to/weights, or a trained folder.",
            envvar="ZSAR_MODEL",
        ),
    ] = "PE-Core-B-16/meta",
    templates: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Prompt templates: plain, video, kinetics, ssv2, or a YAML file. Default: the model's, else video.",
            envvar="ZSAR_TEMPLATES",
        ),
    ] = None,
    prompts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Prompt embeddings that zsar embed-prompts made, instead of labels."),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Labels to show a video.")] = 5,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=1, help="Answer 'none of these' where unknown is above this (0 to 1)."),
    ] = None,
    format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--format", "-f", help="table, jsonl or csv. Default: table on a terminal, else jsonl."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Write the records to this file instead of standard output."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what --output (jsonl) already holds and skip those videos.")
    ] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on standard input is NUL-separated.")
    ] = False,
    frames: Annotated[int, typer.Option(min=1, max=512, help="Frames a view.")] = 8,
    views: Annotated[int, typer.Option(min=1, max=64, help="Views over time, averaged.")] = 1,
    crops: Annotated[int, typer.Option(help="Crops a view: 1 (centre) or 3.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Most videos in one batch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes.", envvar="ZSAR_WORKERS")] = 2,
    decoder: Annotated[str, typer.Option(help="auto, decord or pyav.")] = "auto",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds one video may take to decode.")] = 60.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", envvar="ZSAR_DEVICE")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16.", envvar="ZSAR_PRECISION")
    ] = "auto",
) -> None:
    """Name the action in videos.

    Example:  zsar predict video.mp4 --label "arm wrestling" --label "shooting a basketball"

    Many at once:  find . -name '*.mp4' | zsar predict - --labels labels.txt --output answers.jsonl

    score is the probability among the labels; yes says whether the video shows that label at all, and unknown
    whether none of them fits. Both matter most where there is a single label.
    """
    from zsar_cli.cli import console

    if crops not in (1, 3):
        raise UsageError("--crops must be 1 (centre) or 3.")
    if decoder not in ("auto", "decord", "pyav"):
        raise UsageError(f"--decoder must be auto, decord or pyav, not {decoder!r}.")
    if prompts is not None and (labels or label):
        raise UsageError("Give labels or --prompts, not both: the prompt embeddings bring their own labels.")
    if format is not None and format not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {format!r}.")
    if resume and output is None:
        raise UsageError("--resume continues a file; name it with --output.")
    from zsar_cli.labels import load_labels

    wanted = None if prompts is not None else load_labels(labels, label or [])
    if wanted is not None and len(wanted.names) == 1:
        console.note("One label: its score is always 100%; read yes and unknown instead.")

    from zsar_cli.prediction import ClipOptions, find_videos
    from zsar_cli.video.workers import DecodePool

    options = ClipOptions(frames, views, crops, decoder, timeout, batch_size)
    stop = threading.Event()
    failed = 0
    with contextlib.ExitStack() as stack:
        done, stream, chosen = _open_output(stack, output, format, resume)
        pool = stack.enter_context(DecodePool(workers, timeout=timeout))  # starts while torch is imported
        known = None if "-" in videos else [v for v in find_videos(videos) if v not in done]
        recognizer = _load(model, device, precision)
        text = _text_side(recognizer, wanted, prompts, templates)
        _interruptible(stop)

        def remaining() -> Iterator[str]:
            paths = known if known is not None else find_videos(videos, sys.stdin.buffer, null=null)
            for path in paths:
                if stop.is_set():
                    return
                if path not in done:
                    yield path

        writer = console.RecordWriter(stream, chosen, header=not done)
        advance = stack.enter_context(console.progress(len(known) if known is not None else None))
        for result in recognizer.run(remaining(), text, pool, options, top_k, threshold):
            record = result.to_record()
            writer.write(record)
            failed += "error" in record
            advance(1)
            if stop.is_set():
                break
    if stop.is_set():
        console.note("Interrupted; what was written is whole." + (" Go on with --resume." if output else ""))
        raise typer.Exit(130)
    if failed:
        console.note(f"{failed} of the videos could not be read; each has its record.")
        raise typer.Exit(1)


def _load(model: str, device: str, precision: str) -> Recognizer:
    from zsar_cli.prediction import Recognizer

    return Recognizer.load(model, device=device, precision=precision)


def _text_side(
    recognizer: Recognizer, labels: object, prompts: Path | None, templates: str | None
) -> TextSide:
    if prompts is None:
        return recognizer.text_side(recognizer.embed_labels(labels, templates))  # type: ignore[arg-type]
    from zsar_cli.prompts import PromptEmbeddings

    embeddings = PromptEmbeddings.load(prompts)
    embeddings.check_model(recognizer.model.name, recognizer.model.backbone.fingerprint())
    if recognizer.model.uses_negatives and embeddings.negative is None:
        raise UsageError(
            f"{prompts} holds no negative prompts, which this model needs; make it again with it."
        )
    return recognizer.text_side(embeddings)


def _open_output(
    stack: contextlib.ExitStack, output: Path | None, format: str | None, resume: bool
) -> tuple[set[str], IO[str], str]:
    """The videos already done, the stream to write to, and the format."""
    from zsar_cli.cli import console

    if output is None:
        return set(), sys.stdout, console.choose_format(format, sys.stdout)
    chosen = format or {".csv": "csv", ".txt": "table"}.get(output.suffix.lower(), "jsonl")
    if resume and chosen != "jsonl":
        raise UsageError("--resume needs the jsonl format, which alone tells what is done.")
    try:
        if output.exists() and not resume:
            raise UsageError(f"{output} exists; continue it with --resume, or remove it first.")
        done = _done_videos(output) if resume and output.exists() else set()
        stream = stack.enter_context(
            open(output, "a", encoding="utf-8", errors="surrogateescape", newline="")
        )
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}. Choose another --output.") from error
    return done, stream, chosen


def _done_videos(output: Path) -> set[str]:
    """Videos with a whole record in the file; a last line that was cut off is taken out of it."""
    done: set[str] = set()
    end = 0
    with open(output, "rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                done.add(json.loads(line.decode("utf-8", "surrogateescape"))["video"])
            except (ValueError, KeyError, TypeError):
                raise UsageError(
                    f"{output} holds a line that is no record of zsar predict; choose another --output."
                ) from None
            end += len(line)
        file.truncate(end)
        file.flush()
        os.fsync(file.fileno())
    return done


def _interruptible(stop: threading.Event) -> None:
    """The first Ctrl-C or SIGTERM ends the run after the records in hand; a second one at once."""

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        if number == signal.SIGINT:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, lambda *_: stop.set() if not stop.is_set() else handle(signal.SIGINT, None))
