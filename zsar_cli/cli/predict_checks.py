"""What of a command line of ``zsar predict`` goes together: said before any work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsar_cli import checks, distributed
from zsar_cli.cli.options import labels_or_classes
from zsar_cli.cli.output.answers_page import check_report
from zsar_cli.cli.output.destination import check_destination, check_subtitles
from zsar_cli.cli.output.sink import SUBTITLES
from zsar_cli.cli.predict_options import Asked
from zsar_cli.cli.run_lines import stray_labels_line
from zsar_cli.errors import UsageError
from zsar_cli.outputs import refuse_inputs

if TYPE_CHECKING:
    from zsar_cli.prediction.confidence import AnswerRule
    from zsar_cli.prediction.windows import WindowOptions
    from zsar_cli.text.labels import Labels


def check_numbers(asked: Asked) -> None:
    """Refuse numbers that an option's range does not tell from others by UsageError."""
    checks.number("--timeout", asked.timeout, checks.TIMEOUT)
    checks.choice("--crops", asked.crops, (1, 3))
    checks.number("--fps", asked.fps, checks.FPS)


def check_outputs(asked: Asked) -> None:
    """Refuse outputs that cannot be had, or do not go with each other, by UsageError."""
    check_destination(asked.output, asked.resume, asked.overwrite, asked.format)
    if asked.wide and asked.written_format != "csv":
        raise UsageError("--wide is a form of CSV; add --format csv.")
    report = asked.report
    if report is None:
        return
    if asked.resume and asked.written_format == "csv":
        raise UsageError(
            "--report with --resume shows the earlier answers too, and they need --format jsonl."
        )
    if distributed.rank() == 0:
        check_report(report, overwrite=asked.overwrite, resume=asked.resume)
    if asked.output is not None and os.path.realpath(report) == os.path.realpath(asked.output):
        raise UsageError("--output and --report name the same file; give each its own.")


def find_inputs(asked: Asked) -> list[str] | None:
    """Find the videos; None where they come on standard input, or another process finds them.

    Raises:
        UsageError: there are none, or an output is one of the inputs.
    """
    from zsar_cli.cli import console
    from zsar_cli.prediction.inputs import find_videos

    if stray := stray_labels_line(asked.videos):
        console.note(stray)
    if asked.listed and sys.stdin.isatty():
        console.note("Reading names of videos from the terminal, one a line; end the list with Ctrl-D.")
    found = None if asked.listed or distributed.rank() else list(find_videos(asked.videos))
    for written in (asked.output, asked.report):
        if written is not None:
            refuse_inputs(written, [asked.labels, asked.prompts, asked.templates, *(found or ())])
    if distributed.rank() == 0:
        several = found is None or len(found) > 1
        check_subtitles(asked.output, asked.format, several=several, overwrite=asked.overwrite)
    return found


def chosen_windows(asked: Asked, rule: AnswerRule) -> WindowOptions | None:
    """Make the windows asked for, checked; None where none were."""
    if asked.window is None:
        if asked.stride is not None:
            raise UsageError("--stride is the step of sliding windows; give their length with --window.")
        if asked.written_format in SUBTITLES:
            raise UsageError(
                "Subtitles say when something happens; add --window SECONDS, such as --window 4."
            )
        return None
    if asked.views > 1 or asked.crops > 1:
        raise UsageError("--window goes without --views and --crops: overlapping windows are views already.")
    if asked.cache is not None and asked.cache != _from_environment("ZSAR_FEATURES"):
        raise UsageError(
            "--cache keeps clips of whole videos and nothing of windows; leave one of the two out."
        )
    from zsar_cli.prediction.windows import WindowOptions

    stride = asked.window / 2 if asked.stride is None else asked.stride
    assert rule.min_confidence is not None
    return WindowOptions(
        asked.window,
        stride,
        asked.frames or 8,
        asked.top_k,
        rule.min_confidence,
        asked.decoder,
        asked.fps,
        rule.multi,
    )


def chosen_rule(asked: Asked) -> AnswerRule:
    """Choose the rule that was asked for; with a line about the old name of its bound."""
    from zsar_cli.cli import console
    from zsar_cli.prediction.confidence import DEFAULT, answer_rule

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
            raise UsageError("Give --min-confidence alone: --threshold is its old name, for 1 minus it.")

    def tell(threshold: float, least: float) -> None:
        if distributed.rank() == 0:
            console.note(
                f"--threshold {threshold:g} is the old name of --min-confidence {least:g}, 1 minus it."
            )

    return answer_rule(
        min_confidence,
        threshold,
        multi=asked.multi,
        default=None if asked.window is None else DEFAULT,
        tell=tell,
    )


def check_explain(folder: Path | None, labels: Sequence[str] | None) -> None:
    """Say what is missing for pictures before any work is done."""
    from zsar_cli.plots import require_matplotlib

    if folder is not None:
        require_matplotlib()
    elif labels:
        raise UsageError("--explain-label says what --explain shows; name a folder with --explain.")


def _from_environment(name: str) -> Path | None:
    # What the environment says always may be overruled; what was typed is meant
    return Path(value) if (value := os.environ.get(name)) else None


def labels_and_templates(asked: Asked) -> tuple[Labels | None, str | None]:
    """Load labels and templates, checked; None where prompt embeddings take their place."""
    from zsar_cli.text.templates import load_templates

    labels, prompts, templates = asked.labels, asked.prompts, asked.templates
    if prompts is None:
        if templates is not None:
            load_templates(templates)
        return labels_or_classes(labels, asked.label, asked.model), templates
    # What the environment says always may be overruled; what was typed beside --prompts is a mistake
    if asked.label or labels not in (None, os.environ.get("ZSAR_LABELS")):
        raise UsageError("Give labels or --prompts, not both: the embeddings bring their labels along.")
    if templates not in (None, os.environ.get("ZSAR_TEMPLATES")):
        raise UsageError("Give --templates or --prompts, not both: the embeddings were made with templates.")
    if not prompts.is_file():
        raise UsageError(f"There is no file {prompts}; make it with `zsar embed-prompts`.")
    return None, None
