"""What people see of an evaluation: what runs, its plan, its results, and what is next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli import distributed

if TYPE_CHECKING:
    from zsar_cli.evaluation.choice import Choice
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.evaluation.protocols import Plan
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.run_log import StageTimes


def say_start(
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


def say_costs(times: StageTimes, cache: FeatureCache | None) -> None:
    """Say what the stages took, and what the cache had."""
    from zsar_cli.cli import console

    console.detail(f"Time: {times}.")
    if cache is not None:
        console.note(f"Cache {cache.summary()}.")


def say_end(model: str, output: Path | None, report: Path | None) -> None:
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


def show_plan(plan: Plan, chosen: Choice, header: str, format: str, max_missing: float) -> None:
    """Show what would run."""
    from zsar_cli.cli.output.evaluation_tables import plan_lines
    from zsar_cli.evaluation.protocols import count_seen, describe_data, setting

    if format == "table":
        show(plan_lines(plan, header, max_missing))
        return
    about = {
        "model": chosen.model,
        "why": chosen.why,
        "data": plan.data,
        "protocol": setting(plan.protocol, *count_seen(plan, chosen.seen)),
        "parts": describe_data(plan),
        "notes": plan.notes,
    }
    show_json(about)


def show_results(results: dict[str, Any], header: str, format: str, compare: bool) -> None:
    """Show numbers, and published ones beside them on demand."""
    from zsar_cli.cli.output.evaluation_tables import comparison_lines, result_lines
    from zsar_cli.evaluation.protocols import published_numbers

    published = published_numbers() if compare else None
    if format == "json":
        show_json(results | ({"published": published} if published else {}))
        return
    show(result_lines(results, header))
    if published is not None:
        show(comparison_lines(results, published))


def show(lines: Iterable[Any]) -> None:
    """Show texts and Rich's tables, one below the other."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.formats import printable

    for line in lines:
        console.out(printable(line) if isinstance(line, str) else line)


def show_json(content: dict[str, Any]) -> None:
    """Show plain data as JSON that standard output can encode."""
    from zsar_cli.cli import console
    from zsar_cli.evaluation.results import to_json
    from zsar_cli.text.plain_text import takes_unicode

    console.out(to_json(content, ascii_only=not takes_unicode(sys.stdout)))
