"""``zsar eval``: the field's protocols on data sets as they lie on disk."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from zsar_cli import checks, distributed
from zsar_cli.cli.options import (
    BackboneOption,
    CacheOption,
    CropsOption,
    DeviceOption,
    FramesOption,
    OverwriteOption,
    PrecisionOption,
    TemplatesOption,
    ViewsOption,
    complete_data,
    complete_model,
    labels_or_classes,
)
from zsar_cli.errors import UsageError
from zsar_cli.evaluation.choice import DEFAULT_MODEL, Choice

if TYPE_CHECKING:
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.evaluation.protocols import Plan
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.run_log import StageTimes

Protocol = Literal["zero-shot", "base-to-novel", "generalised", "few-shot", "open-set"]


def evaluate(
    data: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates this on Python 3.10 too
        typer.Option(
            help="Data set: kinetics400, kinetics600, ucf101, hmdb51, ssv2, motion-shapes, a YAML file, "
            "a list, or a folder with one folder a class. Default: what --model was trained on.",
            envvar="ZSAR_DATA",
            autocompletion=complete_data,
            metavar="NAME|FILE|DIR",
        ),
    ] = None,
    data_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Folder of the data set's videos and lists, or of several data sets in a folder each.",
            envvar="ZSAR_DATA_ROOT",
            metavar="DIR",
        ),
    ] = None,
    list_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--list", help="Annotation file to use instead of the data set's own.", metavar="FILE"),
    ] = None,
    model: Annotated[
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
    ] = None,
    backbone: BackboneOption = None,
    protocol: Annotated[
        Optional[Protocol],  # noqa: UP045
        typer.Option(help="What is asked of the model; see docs/evaluation.md."),
    ] = None,
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="seen, unseen, all, or a named split (base, split1, temporal, test2, ...).", metavar="NAME"
        ),
    ] = None,
    unknown: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="open-set: data set of the unknown classes. Default for ucf101: hmdb51.", metavar="NAME|DIR"
        ),
    ] = None,
    unknown_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="open-set: folder of the unknown videos. Default: --data-root.", metavar="DIR"),
    ] = None,
    shots: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(
            min=1,
            help="Videos a class in the training lists that few-shot (2, 4, 8, 16 unless told) and "
            "base-to-novel write to --output; repeats.",
        ),
    ] = None,
    calibrate: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Instead: a list (path,label; none where no label fits) of a few dozen of your videos, to find the "
            "--min-confidence of predict on. Kept with --model, for --labels; predict uses it.",
            metavar="FILE",
        ),
    ] = None,
    labels: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Class names, where the data set's list numbers them, or that --calibrate is about: a file or "
            "built-in list.",
            metavar="FILE|LIST",
        ),
    ] = None,
    label_column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Column of the list that holds the label, where it has several: its header or number (from 1).",
            metavar="NAME|N",
        ),
    ] = None,
    descriptions: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="YAML or JSON map of class names to phrases that stand for them in the prompts.",
            metavar="FILE",
        ),
    ] = None,
    templates: TemplatesOption = None,
    frames: FramesOption = None,
    views: ViewsOption = 1,
    crops: CropsOption = 1,
    sampling: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Short for the three: FRAMESxVIEWS or FRAMESxCROPSxVIEWS, as 8x1, 32x1, 16x3x4.",
            metavar="TEXT",
        ),
    ] = None,
    probe: Annotated[
        Optional[Literal["motion"]],  # noqa: UP045
        typer.Option(help="motion: again with frames shuffled, reversed, and one frame repeated."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output",
            "-o",
            help="Folder for results.json, predictions.jsonl and tables; goes on from what it finds there.",
            metavar="DIR",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write report.html into this folder, to be looked at in a browser: numbers, confusions, curves, "
            "the worst mistakes as pictures. It is --output, too, unless that is given.",
            metavar="DIR",
        ),
    ] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How results are shown.")] = "table",
    compare: Annotated[bool, typer.Option("--compare", help="Show published numbers beside these.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; read no video.")] = False,
    max_missing: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of listed videos that may be missing or unreadable."),
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Videos a batch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes.", envvar="ZSAR_WORKERS")] = 2,
    decoder: Annotated[Literal["auto", "decord", "pyav"], typer.Option(help="Who decodes.")] = "auto",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds one video may take to decode.")] = 60.0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    seed: Annotated[int, typer.Option(help="Of shuffled frames, bootstrap and few-shot draws.")] = 0,
    cache: CacheOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Evaluate a model on a data set.

    With no option at all: the bundled model on motion-shapes, which renders itself.
    """
    from zsar_cli.prediction.clips import ClipOptions

    if sampling is not None:
        frames, views, crops = parse_sampling(sampling)
    checks.choice("--crops", crops, (1, 3))
    ClipOptions(frames, views, crops, decoder, batch_size)  # says what is wrong, before anything is read
    checks.number("--timeout", timeout, checks.TIMEOUT)
    if calibrate is not None:
        others = {"data": data, "list": list_file, "protocol": protocol, "split": split, "unknown": unknown}
        others |= {"descriptions": descriptions, "output": output, "report": report, "probe": probe}
        _check_calibrate(others | {"shots": shots or None, "dry-run": dry_run or None})
        from zsar_cli.cli import calibrate as calibration
        from zsar_cli.evaluation.inference import Options

        shown = calibration.calibrate(
            calibrate,
            model or DEFAULT_MODEL,
            labels_or_classes(labels, None, model or DEFAULT_MODEL),
            Options(frames, views, crops, batch_size, workers, decoder, timeout, seed=seed),
            templates=templates,
            label_column=label_column,
            data_root=None if str(data_root) == os.environ.get("ZSAR_DATA_ROOT") else data_root,
            device=device,
            precision=precision,
            backbone=backbone,
            cache=cache,
            max_missing=max_missing,
            overwrite=overwrite,
        )
        _show_json(shown) if format == "json" else _show(calibration.lines(shown))
        return
    from zsar_cli.evaluation.evaluate import How, plan_evaluation, run_evaluation
    from zsar_cli.evaluation.protocols import count_seen, setting

    plan, chosen = plan_evaluation(
        data,
        model,
        data_root=data_root,
        list_file=list_file,
        protocol=protocol,
        split=split,
        unknown=unknown,
        unknown_root=unknown_root,
        shots=shots,
        labels=labels,
        label_column=label_column,
        seed=seed,
    )
    if dry_run:
        header = _header(plan, chosen, setting(plan.protocol, *count_seen(plan, chosen.seen)))
        _show_plan(plan, chosen, header, format, max_missing)
        return

    from zsar_cli.cli import console
    from zsar_cli.evaluation.inference import Options

    options = Options(
        frames,
        views,
        crops,
        batch_size,
        workers,
        decoder,
        timeout,
        probe_motion=probe is not None,
        seed=seed,
    )
    how = How(
        device,
        precision,
        backbone,
        templates,
        None if descriptions is None else str(descriptions),
        output,
        report,
        max_missing,
        cache,
        overwrite,
        command=shlex.join(["zsar", *sys.argv[1:]]),
    )
    results = run_evaluation(
        plan,
        chosen.model,
        options,
        how,
        loading=console.status,
        loaded=lambda network: _say_start(network, plan, options, (output or report, report)),
        progress=console.progress,
        ended=_say_costs,
    )
    if distributed.rank() > 0:
        return
    if report is not None:
        console.note(f"Report: {report / 'report.html'}")
    _show_results(results, _header(plan, chosen, results["protocol"]), format, compare)
    if sys.stderr.isatty():
        _say_end(chosen.model, output or report, report)


def _say_start(
    network: RecognizerModel, plan: Plan, options: Options, places: tuple[Path | None, ...]
) -> None:
    """Say what runs on what, and where it writes."""
    from zsar_cli.cli import console
    from zsar_cli.cli.memory import keep_freed_memory
    from zsar_cli.cli.run_lines import counted, start_line

    keep_freed_memory()  # not before: weights that were cast give theirs back
    if not sys.stderr.isatty() or distributed.rank() > 0:
        return
    labels = len({label for part in plan.parts for label in part.labels})
    videos = len({item.path for part in plan.parts for item in part.items})
    console.note(
        start_line(
            network,
            frames=options.frames or network.frames,
            labels=counted(labels, "label"),
            videos=counted(videos, "video"),
            places=places,
        )
    )


def _say_costs(times: StageTimes, cache: FeatureCache | None) -> None:
    from zsar_cli.cli import console

    console.detail(f"Time: {times}.")
    if cache is not None:
        console.note(f"Cache {cache.summary()}.")


def _say_end(model: str, output: Path | None, report: Path | None) -> None:
    """Say what was written, and what one does with an evaluation."""
    from zsar_cli.cli import console

    if output is None:
        console.note(
            "Next:  the same with --report FOLDER, for a page with the mistakes; nothing was written."
        )
        return
    console.note(f"Written to {output}: results.json, predictions.jsonl and tables.")
    if report is None:
        console.note("Next:  the same with --report FOLDER, for a page with the mistakes.")
    else:
        console.note(
            f"Next:  zsar predict VIDEO --model {shlex.quote(model)} --min-confidence P, with a P of the table."
        )


def _check_calibrate(others: dict[str, Any]) -> None:
    if others["data"] == os.environ.get("ZSAR_DATA"):
        others.pop("data")  # what the environment says always may be overruled
    beside = next((name for name, value in others.items() if value is not None), None)
    if beside is not None:
        raise UsageError(
            f"--calibrate has its own list of videos and writes no folder; leave --{beside} out."
        )
    if distributed.world() > 1:
        raise UsageError("--calibrate is for one process; start it without torchrun.")


def _header(plan: Plan, chosen: Choice, protocol: str) -> str:
    return f"{chosen.model} on {plan.data} ({protocol}; {chosen.why})"


# --- what was asked for ------------------------------------------------------------------------------------


def parse_sampling(text: str) -> tuple[int, int, int]:
    """Frames, views and crops: 16x1 is 16 frames, 1 view; 16x3x4 is 16 frames, 3 crops, 4 views."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--sampling {text!r} is not FRAMESxVIEWS (8x1) or FRAMESxCROPSxVIEWS (16x3x4).")
    numbers = [int(part) for part in parts]
    return (numbers[0], numbers[1], 1) if len(numbers) == 2 else (numbers[0], numbers[2], numbers[1])


# --- what is shown ------------------------------------------------------------------------------------------


def _show_plan(plan: Plan, chosen: Choice, header: str, format: str, max_missing: float) -> None:
    from zsar_cli.cli.output.evaluation_tables import plan_lines
    from zsar_cli.evaluation.protocols import count_seen, describe_data, setting

    if format == "table":
        _show(plan_lines(plan, header, max_missing))
        return
    about = {
        "model": chosen.model,
        "why": chosen.why,
        "data": plan.data,
        "protocol": setting(plan.protocol, *count_seen(plan, chosen.seen)),
        "parts": describe_data(plan),
        "notes": plan.notes,
    }
    _show_json(about)


def _show_results(results: dict[str, Any], header: str, format: str, compare: bool) -> None:
    from zsar_cli.cli.output.evaluation_tables import comparison_lines, result_lines
    from zsar_cli.evaluation.protocols import published_numbers

    published = published_numbers() if compare else None
    if format == "json":
        _show_json(results | ({"published": published} if published else {}))
        return
    _show(result_lines(results, header))
    if published is not None:
        _show(comparison_lines(results, published))


def _show(lines: Iterable[Any]) -> None:
    """Texts and Rich's tables, one below the other."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.formats import printable

    for line in lines:
        console.out(printable(line) if isinstance(line, str) else line)


def _show_json(content: dict[str, Any]) -> None:
    from zsar_cli.cli import console
    from zsar_cli.evaluation.results import to_json
    from zsar_cli.text.plain_text import takes_unicode

    console.out(to_json(content, ascii_only=not takes_unicode(sys.stdout)))
