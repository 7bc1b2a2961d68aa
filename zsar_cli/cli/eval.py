"""``zsar eval``: standard protocols on data sets in the layouts they are distributed in."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli import checks, distributed
from zsar_cli.cli import evaluation_options as own
from zsar_cli.cli import options
from zsar_cli.cli.evaluation_options import AskedEvaluation
from zsar_cli.cli.on_ray import check_engine, engine_of
from zsar_cli.cli.options import labels_or_classes
from zsar_cli.cli.output.evaluation_shown import (
    say_costs,
    say_end,
    say_start,
    show,
    show_json,
    show_plan,
    show_results,
)
from zsar_cli.errors import UsageError
from zsar_cli.evaluation.choice import DEFAULT_MODEL, Choice

if TYPE_CHECKING:
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.evaluation.protocols import Plan


def evaluate(
    data: own.DataOption = None,
    data_root: own.DataRootOption = None,
    list_file: own.ListFileOption = None,
    model: own.ModelOption = None,
    backbone: options.BackboneOption = None,
    protocol: own.ProtocolOption = None,
    protocol_preset: own.ProtocolPresetOption = None,
    split: own.SplitOption = None,
    unknown: own.UnknownOption = None,
    unknown_root: own.UnknownRootOption = None,
    shots: own.ShotsOption = None,
    calibrate: own.CalibrateOption = None,
    labels: own.LabelsOption = None,
    label_column: own.LabelColumnOption = None,
    descriptions: own.DescriptionsOption = None,
    templates: options.TemplatesOption = None,
    frames: options.FramesOption = None,
    views: options.ViewsOption = 1,
    crops: options.CropsOption = 1,
    sampling: own.SamplingOption = None,
    probe: own.ProbeOption = None,
    output: own.OutputOption = None,
    report: own.ReportOption = None,
    format: own.FormatOption = "table",
    compare: own.CompareOption = False,
    dry_run: own.DryRunOption = False,
    max_missing: own.MaxMissingOption = 0.1,
    batch_size: options.BatchSizeOption = 8,
    workers: options.WorkersOption = None,
    decoder: options.DecoderOption = "auto",
    timeout: options.TimeoutOption = 60.0,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    seed: own.SeedOption = 0,
    cache: options.CacheOption = None,
    max_bytes: options.MaxBytesOption = "20G",
    storage_options: options.StorageOptionsOption = None,
    overwrite: options.OverwriteOption = False,
    ray: options.RayOption = None,
) -> None:
    """Evaluate a model on a data set.

    Without options: the bundled model on motion-shapes, a synthetic benchmark that is rendered on the fly.
    """
    asked = AskedEvaluation(**locals())
    options.set_up_storage(max_bytes, storage_options)
    distributed.refuse_several("zsar eval", "start one without WORLD_SIZE; --ray uses several machines")
    if sampling is not None:
        frames, views, crops = parse_sampling(sampling)
        asked = replace(asked, frames=frames, views=views, crops=crops)
    shown_as = _options(asked)
    if ray is not None:
        check_engine(cache)
    if protocol_preset is not None:
        from zsar_cli.evaluation.presets import as_published

        model, shown_as = as_published(model, shown_as, templates)
    if calibrate is not None:
        _calibrate(asked, calibrate, shown_as)
        return
    from zsar_cli.evaluation.evaluate import plan_evaluation
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
        show_plan(plan, chosen, header, format, max_missing)
        return
    results = _run(asked, plan, chosen.model, shown_as)
    show_results(results, _header(plan, chosen, results["protocol"]), format, compare)
    if sys.stderr.isatty():
        say_end(chosen.model, output or report, report)


def _options(asked: AskedEvaluation) -> Options:
    """Check how videos are shown to the model, before anything is read."""
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.prediction.clips import ClipOptions

    checks.choice("--crops", asked.crops, (1, 3))
    ClipOptions(asked.frames, asked.views, asked.crops, asked.decoder, asked.batch_size)
    checks.number("--timeout", asked.timeout, checks.TIMEOUT)
    return Options(
        asked.frames,
        asked.views,
        asked.crops,
        asked.batch_size,
        asked.workers,
        asked.decoder,
        asked.timeout,
        probe_motion=asked.probe is not None,
        seed=asked.seed,
    )


def _run(asked: AskedEvaluation, plan: Plan, model: str, shown_as: Options) -> dict[str, Any]:
    """Evaluate the plan, and say what runs and what it took."""
    from zsar_cli.cli import console
    from zsar_cli.evaluation.evaluate import How, run_evaluation

    how = How(
        asked.device,
        asked.precision,
        asked.backbone,
        asked.templates,
        None if asked.descriptions is None else str(asked.descriptions),
        asked.protocol_preset is not None,
        asked.output,
        asked.report,
        asked.max_missing,
        asked.cache,
        asked.overwrite,
        command=shlex.join(["zsar", *sys.argv[1:]]),
    )
    places = (asked.output or asked.report, asked.report)
    with contextlib.ExitStack() as stack:
        engine = None
        if asked.ray is not None:
            engine, precision = stack.enter_context(
                engine_of(asked.ray, model, asked.device, asked.precision, asked.backbone)
            )
            how = replace(how, device="cpu", precision=precision)  # of the model that is on record
        results = run_evaluation(
            plan,
            model,
            shown_as,
            how,
            loading=console.status,
            loaded=lambda network: say_start(network, plan, shown_as, places),
            progress=console.progress,
            ended=say_costs,
            engine=engine,
        )
    if asked.report is not None:
        console.note(f"Report: {asked.report / 'report.html'}")
    return results


def _calibrate(asked: AskedEvaluation, listing: Path, shown_as: Options) -> None:
    """Find the bounds of answers on a list of videos, and show them."""
    from zsar_cli.cli import calibrate as calibration

    others = {name: getattr(asked, name) for name in ("data", "protocol", "split", "unknown", "descriptions")}
    others |= {"ray": asked.ray, "list": asked.list_file}
    others |= {
        "output": asked.output,
        "report": asked.report,
        "probe": asked.probe,
    }
    _check_calibrate(others | {"shots": asked.shots or None, "dry-run": asked.dry_run or None})
    root, model = asked.data_root, asked.model or DEFAULT_MODEL
    shown = calibration.calibrate(
        listing,
        model,
        labels_or_classes(asked.labels, None, model),
        shown_as,
        templates=asked.templates,
        label_column=asked.label_column,
        data_root=None if str(root) == os.environ.get("ZSAR_DATA_ROOT") else root,
        device=asked.device,
        precision=asked.precision,
        backbone=asked.backbone,
        cache=asked.cache,
        max_missing=asked.max_missing,
        overwrite=asked.overwrite,
    )
    if asked.format == "json":
        show_json(shown)
    else:
        show(calibration.lines(shown))


def _check_calibrate(others: dict[str, Any]) -> None:
    if others["data"] == os.environ.get("ZSAR_DATA"):
        others.pop("data")  # what the environment says always may be overruled
    beside = next((name for name, value in others.items() if value is not None), None)
    if beside is not None:
        raise UsageError(
            f"--calibrate has its own list of videos and writes no folder; leave --{beside} out."
        )


def _header(plan: Plan, chosen: Choice, protocol: str) -> str:
    return f"{chosen.model} on {plan.data} ({protocol}; {chosen.why})"


def parse_sampling(text: str) -> tuple[int, int, int]:
    """Frames, views and crops: 16x1 is 16 frames, 1 view; 16x3x4 is 16 frames, 3 crops, 4 views."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--sampling {text!r} is not FRAMESxVIEWS (8x1) or FRAMESxCROPSxVIEWS (16x3x4).")
    numbers = [int(part) for part in parts]
    return (numbers[0], numbers[1], 1) if len(numbers) == 2 else (numbers[0], numbers[2], numbers[1])
