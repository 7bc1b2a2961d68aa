"""Checks of the destination of records, before any work is done."""

from __future__ import annotations

from pathlib import Path

from zsar_cli.cli.options import refuse_directory
from zsar_cli.cli.output.formats import Columns, Format
from zsar_cli.cli.output.sink import GROWING, SUBTITLES, form_of, format_of
from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream
from zsar_cli.outputs import refuse_busy, refuse_taken
from zsar_cli.prediction.parquet import require_pyarrow
from zsar_cli.prediction.record_file import check_output

NO_RECORDS = {  # endings of other things, and how these are had
    **dict.fromkeys((".html", ".htm"), "a page is written by --report FILE"),
    **dict.fromkeys((".png", ".jpg", ".pdf"), "pictures are drawn by --explain FOLDER"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet opens .csv"),
}


def check_destination(output: Path | None, resume: bool, overwrite: bool, format: Format | None) -> None:
    """Raise UsageError if an output cannot be written or resumed."""
    chosen = format_of(output, format)
    if format is None and output is not None and output.suffix.lower() in NO_RECORDS:
        raise UsageError(
            f"--output writes records, such as answers.jsonl or answers.csv, and {output} is named for something "
            f"else: {NO_RECORDS[output.suffix.lower()]}."
        )
    if resume and output is None:
        raise UsageError("--resume needs --output, the file to continue.")
    if resume and chosen not in GROWING:
        parts = " (--shard writes parts, and those that are missing)" if chosen == "parquet" else ""
        raise UsageError(f"--resume needs --format jsonl or csv; other formats cannot be continued{parts}.")
    if chosen == "parquet":
        require_pyarrow()
        if output is None or is_stream(output):
            raise UsageError("parquet is no text for a pipe; name a file: --output answers.parquet.")
    if output is None or chosen in SUBTITLES:
        return
    refuse_directory(output)
    refuse_busy(output)
    if chosen in GROWING:
        check_output(output, form=form_of(output, chosen, Columns()), resume=resume, overwrite=overwrite)
    else:
        refuse_taken([output], overwrite=overwrite)


def check_subtitles(output: Path | None, format: Format | None, *, several: bool, overwrite: bool) -> None:
    """Raise UsageError for a single subtitle file with several videos."""
    chosen = format_of(output, format)
    if chosen not in SUBTITLES:
        return
    if several and (output is None or not output.is_dir()):
        raise UsageError(f"Each video gets its own {chosen} file; give an existing folder with --output.")
    if not several and output is not None and not output.is_dir():
        refuse_directory(output)
        refuse_taken([output], overwrite=overwrite)
