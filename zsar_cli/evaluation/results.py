"""Run an evaluation plan and write what comes of it: results, confusion matrix, per-class accuracy."""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli import __version__
from zsar_cli.evaluation.inference import Engine, Options, evaluate_parts
from zsar_cli.evaluation.predictions import PredictionsFile, usable
from zsar_cli.evaluation.presets import published_settings
from zsar_cli.evaluation.protocols import EvaluationPart, Plan, combine, count_seen, describe_data, setting
from zsar_cli.evaluation.summary import PROBES, class_table, detect_unknown, summarise
from zsar_cli.evaluation.thresholds import judged_records, summary
from zsar_cli.files import atomic_write
from zsar_cli.prediction.records import to_json as records_json
from zsar_cli.run_log import StageTimes
from zsar_cli.text.class_lists import NameMatcher
from zsar_cli.text.plain_text import BOM, csv_text

if TYPE_CHECKING:
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptSettings:
    """Templates, phrase bank and descriptions of an evaluation, for its record."""

    templates: dict[str, str]  # name and hash
    bank: dict[str, Any] = field(default_factory=dict)  # number of phrases and their hash
    descriptions: str | None = (
        None  # hash of the phrases that stand for the labels, where it is not their names
    )
    phrases_each: int | None = None  # that stand for a label, where it is as many for all


def settings_of(
    model: RecognizerModel, plan: Plan, options: Options, prompts: PromptSettings, *, cached: bool = False
) -> dict[str, Any]:
    """Collect the settings that must be equal for two evaluations to give the same records."""
    preprocess = asdict(model.preprocess)
    moves_nothing = ("batch_size", "workers", "timeout")
    return {
        "weights": model.fingerprint(),
        "precision": model.backbone.precision,
        "features": "kept in fp16" if cached else "as computed",
        "templates": prompts.templates,
        "bank": prompts.bank,
        "descriptions": prompts.descriptions,
        "preprocess": {k: list(v) if isinstance(v, tuple) else v for k, v in preprocess.items()},
        "options": {k: v for k, v in asdict(options).items() if k not in moves_nothing},
        "protocol": plan.protocol,
        **published_settings(model, options, prompts, plan.data),
        "data": [
            {
                key: entry[key]
                for key in ("part", "data", "list", "rows", "hash", "videos", "missing", "labels_hash")
            }
            for entry in describe_data(plan)
        ],
    }


def run_plan(
    model: RecognizerModel,
    plan: Plan,
    encode: Callable[[Sequence[str]], PromptEmbeddings],
    options: Options,
    *,
    prompts: PromptSettings,
    output: Path | None = None,
    progress: Callable[[int], None] = lambda count: None,
    max_missing: float = 0.1,
    cache: FeatureCache | None = None,
    times: StageTimes | None = None,
    overwrite: bool = False,
    prepare: Callable[[dict[str, Any]], None] = lambda settings: None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Evaluate every part of a plan.

    Args:
        encode: label names to their embeddings; called once for each different label set.
        output: where to write ``predictions.jsonl`` (resumed if there), ``results.json`` and the tables.
        progress: told how many more records are done.
        cache: where visual features are kept.
        times: gets the seconds of the stages.
        overwrite: replace what ``output`` holds of another evaluation, or of anybody else.
        prepare: told the settings once it is clear that ``output`` can be written, before any work.
        engine: evaluates in place of this process.

    Returns:
        the content of ``results.json``.

    Raises:
        UsageError: ``output`` holds another evaluation or other files, or more than ``max_missing`` of a list is
            missing or cannot be read.
    """
    for part in plan.parts:
        part.dataset.check_missing(max_missing)
    options = replace(options, frames=options.frames or model.frames)
    settings = settings_of(model, plan, options, prompts, cached=cache is not None)
    file = None
    if output is not None:
        file = PredictionsFile(output, settings, names=_file_names(plan), overwrite=overwrite)
    parts = {part.name: part for part in plan.parts}
    unreadable: dict[str, list[str]] = {name: [] for name in parts}

    def keep(record: dict[str, Any]) -> None:
        if file is not None:
            file.write(record)
        if "error" in record:
            logger.error("%s: %s", record["video"], record["error"]["message"])
            unreadable[record["part"]].append(record["video"])
            parts[record["part"]].dataset.check_missing(max_missing, unreadable[record["part"]])
        progress(1)

    try:
        prepare(settings)
        texts = {labels: encode(labels) for labels in dict.fromkeys(part.labels for part in plan.parts)}
        probes = PROBES if options.probe_motion else ()
        done = usable(file.done, plan.parts, probes) if file is not None else {}
        progress(sum(map(len, done.values())))
        records = evaluate_parts(
            model,
            plan.parts,
            [texts[part.labels] for part in plan.parts],
            options,
            done=done,
            write=keep,
            cache=cache,
            times=times,
            engine=engine,
        )
        results = {
            "model": model.name,
            "device": str(next(model.parameters()).device),
            **settings,
            "protocol": setting(
                plan.protocol, *count_seen(plan, (model.trained_on or {}).get("classes", ()))
            ),
            **_numbers(model, plan, records, options),
            "versions": _versions(),
        }
        if output is not None:
            _write_results(output, plan, records, results)
        return results
    finally:
        if file is not None:
            file.close()


def _file_names(plan: Plan) -> list[str]:
    """Name the files that :func:`_write_results` writes."""
    names = [
        f"{table}_{_file_part(part)}.csv"
        for part in _labelled(plan)
        for table in ("per_class", "confusion", "reliability")
    ]
    return [*names, *(f"train_{shots}shot.txt" for shots in plan.few_shot_lists), "results.json"]


def _file_part(part: EvaluationPart) -> str:
    return part.name.replace(" ", "-")


def _numbers(
    model: RecognizerModel, plan: Plan, records: dict[str, list[dict[str, Any]]], options: Options
) -> dict[str, Any]:
    numbers = {
        part.name: summarise(records[part.name], part.labels, seed=options.seed, missing=part.dataset.missing)
        for part in _labelled(plan)
    }
    if plan.data == "motion-shapes":
        for name, of_part in numbers.items():
            of_part |= _ordered(records[name], of_part)
    trained = model.trained_on or {"data": None, "classes": []}
    matcher = NameMatcher(trained["classes"])
    for part in _labelled(plan):
        numbers[part.name]["labels_in_training"] = sum(matcher.find(name) is not None for name in part.labels)
    seen, unseen = count_seen(plan, trained["classes"])
    results: dict[str, Any] = {
        "trained_on": trained["data"],
        "labels_seen_in_training": seen,
        "labels_not_seen_in_training": unseen,
        "summary": combine(plan, numbers),
        "parts": numbers,
        "lists": describe_data(plan),
        "notes": plan.notes,
    }
    results["thresholds"] = {
        part.name: summary(
            judged_records([*records[part.name], *(records["unknown"] if part.name == plan.known else ())])
        )
        for part in _labelled(plan)
    }
    if plan.known:
        known, unknown = records[plan.known], records["unknown"]
        results["open_set"] = {
            "positive_class": "unknown",
            "fpr_at_tpr": 0.95,
            "known": plan.known,
            "known_videos": sum("error" not in r for r in known),
            "unknown_videos": sum("error" not in r for r in unknown),
            "unknown_of_predict": "yes" if model.uses_negatives else "bank",
            "scores": detect_unknown(known, unknown),
        }
    return results


def _ordered(records: list[dict[str, Any]], numbers: dict[str, Any]) -> dict[str, Any]:
    """Compute what the motion probe costs the classes of motion-shapes that only the frames' order tells apart."""
    if "probes" not in numbers:
        return {}
    from zsar_cli.data.motion_shapes import find_class

    ordered = [r for r in records if "error" not in r and find_class(r["label"]).needs_order]
    found = summarise(
        ordered, sorted({r["label"] for r in records} | {x for r in records for x, _ in r["top"]})
    )
    return {"probes_of_ordered": {key: found[key] for key in ("videos", "top1", "probes")}} if ordered else {}


def _labelled(plan: Plan) -> list[EvaluationPart]:
    """Find the parts whose videos have a label among those that are offered."""
    return [part for part in plan.parts if part.name != "unknown"]


def _write_results(
    output: Path, plan: Plan, records: dict[str, list[dict[str, Any]]], results: dict[str, Any]
) -> None:
    for part in _labelled(plan):
        name = _file_part(part)
        counts, accuracy = class_table(records[part.name], part.labels)
        rows = [["class", "videos", "top1"]]
        for label, count, value in zip(part.labels, counts.sum(axis=1), accuracy, strict=True):
            rows.append([label, str(int(count)), f"{value:.6f}" if math.isfinite(value) else ""])
        _write_csv(output / f"per_class_{name}.csv", rows)
        matrix = [["true \\ predicted", *part.labels]]
        matrix += [[label, *map(str, row.tolist())] for label, row in zip(part.labels, counts, strict=True)]
        _write_csv(output / f"confusion_{name}.csv", matrix)
        curve = results["parts"][part.name]["reliability"]
        bins = zip(
            curve["edges"],
            curve["edges"][1:],
            curve["count"],
            curve["confidence"],
            curve["accuracy"],
            strict=False,
        )
        _write_csv(
            output / f"reliability_{name}.csv",
            [["above", "up to", "videos", "confidence", "accuracy"]]
            + [["" if value is None else f"{value:.6g}" for value in row] for row in bins],
        )
    for shots, lines in plan.few_shot_lists.items():
        _write(output / f"train_{shots}shot.txt", "\n".join(lines) + "\n")
    _write(output / "results.json", to_json(results))


def to_json(results: dict[str, Any], *, ascii_only: bool = False) -> str:
    """Make valid JSON: numbers that do not exist are null."""
    return records_json(_finite(results), indent=2, ascii_only=ascii_only) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    _write(path, BOM + csv_text(rows))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="surrogateescape")


def _versions() -> dict[str, str]:
    """Name what computes and decodes here; versions of it have moved numbers before."""
    versions = {"zsar": __version__, "python": platform.python_version()}
    for package in ("torch", "open_clip_torch", "numpy", "pillow", "av", "decord"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # decord has no wheel for some machines
            continue
    return versions
