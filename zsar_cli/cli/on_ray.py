"""``--ray``: predict and eval on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zsar_cli.cli.convert import are_answers
from zsar_cli.cli.predict_options import Asked
from zsar_cli.cli.run_lines import counted
from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from zsar_cli.cli.predict_run import Run
    from zsar_cli.cluster.connect import Share
    from zsar_cli.cluster.stages import Answer, Decode
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings

FILES = (".jsonl", ".ndjson", ".csv", ".parquet", ".txt")
OTHERWISE = "leave one of them out; --shard runs on several machines, too"


def check_ray(asked: Asked) -> None:
    """Raise UsageError for options that ``--ray`` does not go with, before anything is started."""
    from zsar_cli.cluster.connect import require_ray

    refused = {
        "--window": asked.window,
        "--stride": asked.stride,
        "--shots": asked.shots,
        "--explain": asked.explain,
        "--report": asked.report,
        "--shard": asked.shard,
        "--merge": asked.merge,
    }
    for name, value in refused.items():
        if value:
            raise UsageError(f"--ray answers whole videos and does not go with {name}; {OTHERWISE}.")
    if asked.context.get_parameter_source("cache").name == "COMMANDLINE":  # type: ignore[union-attr]
        raise UsageError(f"--ray does not go with --cache; {OTHERWISE}.")
    if asked.resume:
        raise UsageError(
            "--ray continues by itself when the same command is started again; leave --resume out."
        )
    if asked.output is None and asked.remote is None:
        raise UsageError("--ray needs --output: a folder for parts, or a file that is written at the end.")
    if asked.remote is not None and Path(asked.remote).suffix.lower() in FILES:
        raise UsageError("--ray writes parts to a folder in a storage; join them by --merge.")
    if are_answers(asked.videos):
        raise UsageError(f"{asked.videos[0]} holds stored answers, which need no cluster; leave --ray out.")
    require_ray()


def predict_on_ray(asked: Asked) -> None:
    """Answer the videos on a cluster; records are in parts in a folder, or in one file once all are there."""
    from zsar_cli.cli import console, predict
    from zsar_cli.cli.output.made_with import made_with
    from zsar_cli.cli.predict_checks import (
        begun,
        check_numbers,
        check_outputs,
        chosen_rule,
        labels_and_templates,
    )
    from zsar_cli.cli.predict_run import Run
    from zsar_cli.cluster.connect import connected, resolved, shared_out
    from zsar_cli.cluster.predict import predict_on
    from zsar_cli.prediction.clips import ClipOptions
    from zsar_cli.prediction.inputs import find_videos
    from zsar_cli.recognizer import Recognizer

    check_numbers(asked)
    rule = chosen_rule(asked)
    check_ray(asked)
    whole = asked.output is not None and asked.output.suffix.lower() in FILES
    if whole:
        check_outputs(asked)
    wanted, templates = labels_and_templates(asked)
    clips = ClipOptions(asked.frames, asked.views, asked.crops, asked.decoder, asked.batch_size, asked.fps)
    run = Run(clips, asked.top_k, rule, None, asked.embeddings)
    videos = begun(find_videos(asked.videos, sys.stdin.buffer, null=asked.null, column=asked.column))
    with console.status(f"Loading {asked.model} ..."):
        recognizer = Recognizer.load(
            asked.model, device="cpu", precision=asked.precision, backbone=asked.backbone
        )
        text = predict.embeddings_of(recognizer, wanted, asked.prompts, templates)
    predict.settle(asked, run, recognizer, text, wanted)
    folder = f"{asked.output}.parts" if whole else asked.remote or str(asked.output)
    started = time.monotonic()
    assert asked.ray is not None
    with connected(asked.ray) as ray:
        share = shared_out(ray, asked.device)
        precision = resolved(ray, share, asked.precision)
        run.precision = recognizer.model.backbone.precision if precision == "auto" else precision
        made = made_with(recognizer.model, run, text, wanted)
        stages = _stages(asked, run, recognizer, text, share, precision)
        done = predict_on(ray, videos, folder, *stages, share, made_with=made, overwrite=asked.overwrite)
    if whole:
        _become_one(asked, folder)
        done.remove()
    failed = sum(done.kinds.values())
    before = f", {done.before} answered before" if done.before else ""
    console.note(
        f"{counted(done.written, 'video')} in {time.monotonic() - started:.1f} s{before}"
        f"{f'; {failed} failed (see the records)' if failed else ''}, written to {asked.shown_place}."
    )
    if failed:
        raise typer.Exit(1)


def _become_one(asked: Asked, folder: str) -> None:
    """Write the parts in a folder as the one file that was asked for."""
    from zsar_cli.cli.merge import find_parts, write_merged
    from zsar_cli.cli.output.sink import format_of

    found = find_parts(folder)

    def refuse_gaps() -> None:
        if lines := list(found.lines()):
            raise UsageError(" ".join(lines))

    refuse_gaps()
    write_merged(asked, format_of(asked.output, asked.format), [found])
    refuse_gaps()  # which showed as the parts were read


def _stages(
    asked: Asked, run: Run, recognizer: Recognizer, text: PromptEmbeddings, share: Share, precision: str
) -> tuple[Decode, Answer]:
    from zsar_cli.batch import BatchPredictor
    from zsar_cli.cluster.stages import Answer, Decode
    from zsar_cli.prediction.clips import clip_requests
    from zsar_cli.video.fetch import LIMITS

    (shown,) = clip_requests(recognizer.model, [""], run.options)
    options: dict[str, Any] = {name: getattr(asked, name) for name in ("frames", "views", "crops", "decoder")}
    predictor = BatchPredictor(
        text.to("cpu"),
        asked.model,
        device="cuda" if share.model_gpus else "cpu",
        precision=precision,
        backbone=asked.backbone,
        embeddings=run.embeddings,
        top_k=run.top_k,
        min_confidence=run.rule.min_confidence,
        multi=run.rule.multi,
        calibration="off",  # the bound is that of the rule
        batch_size=asked.batch_size,
        fps=asked.fps,
        **options,
    )
    decode = Decode(
        *(shown, os.getcwd(), asked.timeout),
        max_bytes=LIMITS.max_bytes,
        storage_options=asked.storage_options and Path(os.path.abspath(asked.storage_options)),
    )
    return decode, Answer(predictor, share.threads)


def check_engine(cache: Path | None) -> None:
    """Raise UsageError where ``zsar eval`` cannot run on a cluster, before anything is read."""
    from zsar_cli.cluster.connect import require_ray

    if cache is not None:
        raise UsageError("--ray does not go with --cache; leave one of them out.")
    require_ray()


@contextlib.contextmanager
def engine_of(address: str, model: str, device: str, precision: str, backbone: str | None) -> Any:
    """Connect to a cluster, and yield what evaluates there and the precision of its models."""
    from zsar_cli.cluster.connect import connected, resolved, shared_out
    from zsar_cli.cluster.evaluate import ClusterEngine

    with connected(address) as ray:
        share = shared_out(ray, device)
        precision = resolved(ray, share, precision)
        how = {"device": "cuda" if share.model_gpus else "cpu", "precision": precision, "backbone": backbone}
        yield ClusterEngine(ray, share, model, how), precision
