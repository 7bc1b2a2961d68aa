"""Run an evaluation plan and write what comes of it: results, confusion matrix, per-class accuracy."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli import __version__
from zsar_cli.evaluation import (
    Options,
    RecordFile,
    TextSide,
    class_table,
    detect_unknown,
    evaluate_part,
    summarise,
    weights_hash,
)
from zsar_cli.protocols import Plan, combine, describe_data

if TYPE_CHECKING:
    from zsar_cli.feature_cache import FeatureCache
    from zsar_cli.model.recognizer import RecognizerModel


def settings_of(
    model: RecognizerModel, plan: Plan, options: Options, templates: dict[str, str], bank: int
) -> dict[str, Any]:
    """What must be equal for two evaluations to give the same records."""
    preprocess = asdict(model.preprocess)
    shown = {k: v for k, v in asdict(options).items() if k not in ("workers", "timeout")}
    return {
        "model": model.name,
        "weights": weights_hash(model),
        "templates": templates,
        "bank_phrases": bank,
        "preprocess": {k: list(v) if isinstance(v, tuple) else v for k, v in preprocess.items()},
        "options": shown,
        "protocol": plan.protocol,
        "data": [
            {
                key: entry[key]
                for key in ("part", "data", "list", "rows", "hash", "videos", "missing", "labels")
            }
            for entry in describe_data(plan)
        ],
    }


def run_plan(
    model: RecognizerModel,
    plan: Plan,
    encode: Callable[[Sequence[str]], TextSide],
    options: Options,
    *,
    templates: dict[str, str],
    bank: int = 0,
    output: Path | None = None,
    progress: Callable[[int], None] = lambda count: None,
    max_missing: float = 0.1,
    cache: FeatureCache | None = None,
) -> dict[str, Any]:
    """Evaluate every part of a plan.

    Args:
        encode: label names to their embeddings; called once for each different label set.
        templates: name and hash of the prompt templates, for the record.
        output: where to write ``predictions.jsonl`` (resumed if there), ``results.json`` and the tables.
        progress: told how many more videos are done.
        cache: where the visual tower's features are kept.

    Returns:
        the content of ``results.json``.

    Raises:
        UsageError: ``output`` holds another evaluation, or more than ``max_missing`` of a list is missing.
    """
    for part in plan.parts:
        part.dataset.check_missing(max_missing)
    settings = settings_of(model, plan, options, templates, bank)
    file = RecordFile(output, settings) if output is not None else None
    texts: dict[tuple[str, ...], TextSide] = {}
    records: dict[str, list[dict[str, Any]]] = {}

    def keep(record: dict[str, Any]) -> None:
        if file is not None:
            file.write(record)
        progress(1)

    try:
        for part in plan.parts:
            if part.labels not in texts:
                texts[part.labels] = encode(part.labels)
            done = file.done.get(part.name, {}) if file is not None else {}
            progress(len(done))
            records[part.name] = evaluate_part(
                model, part, texts[part.labels], options, done=done, write=keep, cache=cache
            )
    finally:
        if file is not None:
            file.close()
    known = [part for part in plan.parts if part.name != "unknown"]
    numbers = {part.name: summarise(records[part.name], part.labels, seed=options.seed) for part in known}
    results: dict[str, Any] = {
        **settings,
        "summary": combine(plan, numbers),
        "parts": numbers,
        "lists": describe_data(plan),
        "notes": plan.notes,
        "versions": _versions(),
    }
    if "unknown" in records:
        results["open_set"] = {
            "positive_class": "unknown",
            "fpr_at_tpr": 0.95,
            "unknown_videos": sum("error" not in r for r in records["unknown"]),
            "scores": detect_unknown(records["known"], records["unknown"]),
        }
    if output is not None:
        for part in known:
            _write_classes(output, part.name, records[part.name], part.labels)
        for shots, lines in plan.few_shot_lists.items():
            _write(output / f"train_{shots}shot.csv", "\n".join(lines) + "\n")
        _write(output / "results.json", to_json(results))
    return results


def to_json(results: dict[str, Any]) -> str:
    """Valid JSON: numbers that do not exist are null."""
    return json.dumps(_finite(results), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_classes(output: Path, part: str, records: list[dict[str, Any]], labels: Sequence[str]) -> None:
    counts, accuracy = class_table(records, labels)
    rows = [["class", "videos", "top1"]]
    for name, count, value in zip(labels, counts.sum(axis=1), accuracy, strict=True):
        rows.append([name, str(int(count)), f"{value:.6f}" if math.isfinite(value) else ""])
    _write_csv(output / f"per_class_{part}.csv", rows)
    matrix = [["true \\ predicted", *labels]]
    matrix += [[name, *map(str, row.tolist())] for name, row in zip(labels, counts, strict=True)]
    _write_csv(output / f"confusion_{part}.csv", matrix)


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    os.replace(aside, path)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _versions() -> dict[str, str]:
    import numpy
    import torch

    return {
        "zsar": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
