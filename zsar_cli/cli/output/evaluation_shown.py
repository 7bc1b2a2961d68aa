"""Output of ``zsar eval`` on the terminal: start, plan, results, and next steps."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Print the model, device and data at the start, and where the run writes."""
    from zsar_cli.cli import console
    from zsar_cli.cli.memory import keep_freed_memory
    from zsar_cli.cli.run_lines import counted, start_line
    from zsar_cli.cli.threads import limit_threads

    limit_threads(network.backbone)
    keep_freed_memory()  # not before: weights that were cast give theirs back
    if not sys.stderr.isatty():
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
    """Print the time of each stage, and the use of the cache."""
    from zsar_cli.cli import console

    console.detail(f"Time: {times}.")
    if cache is not None:
        console.note(f"Cache {cache.summary()}.")


def say_end(model: str, output: Path | None, report: Path | None) -> None:
    """Print what was written, and a command to run next."""
    from zsar_cli.cli import console

    if output is None:
        console.note("Nothing was written. Next:  add --report FOLDER for a page with the mistakes.")
        return
    console.note(f"Written to {output}: results.json, predictions.jsonl and tables.")
    if report is None:
        console.note("Next:  add --report FOLDER for a page with the mistakes.")
    else:
        console.note(
            f"Next:  zsar predict VIDEO --model {shlex.quote(model)} --min-confidence P, with P from the table."
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
    """Show the results, with published ones on request."""
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
    """Print lines of text and Rich tables."""
    from zsar_cli.cli import console
    from zsar_cli.cli.output.formats import printable

    for line in lines:
        console.out(printable(line) if isinstance(line, str) else line)


def show_json(content: dict[str, Any]) -> None:
    """Print plain data as JSON, in ASCII if standard output needs it."""
    from zsar_cli.cli import console
    from zsar_cli.evaluation.results import to_json
    from zsar_cli.text.plain_text import takes_unicode

    console.out(to_json(content, ascii_only=not takes_unicode(sys.stdout)))
