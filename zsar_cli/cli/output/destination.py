"""Tell whether records can go where they shall: said before any work."""

from __future__ import annotations

from pathlib import Path

from zsar_cli import distributed
from zsar_cli.cli.options import refuse_directory
from zsar_cli.cli.output.formats import Columns, Format
from zsar_cli.cli.output.sink import GROWING, SUBTITLES, form_of, format_of
from zsar_cli.errors import UsageError
from zsar_cli.outputs import refuse_busy, refuse_taken
from zsar_cli.prediction.record_file import check_output


def check_destination(output: Path | None, resume: bool, overwrite: bool, format: Format | None) -> None:
    """Refuse an output that cannot be had, or cannot go on, by UsageError."""
    chosen = format_of(output, format)
    if resume and output is None:
        raise UsageError("--resume adds to a file; name it with --output.")
    if resume and chosen not in GROWING:
        raise UsageError("--resume needs jsonl or csv, the formats that tell what is done.")
    if output is None or chosen in SUBTITLES:
        return
    refuse_directory(output)
    if distributed.rank() == 0:
        refuse_busy(output)
    if chosen in GROWING:
        check_output(output, form=form_of(output, chosen, Columns()), resume=resume, overwrite=overwrite)
    else:
        refuse_taken([output], overwrite=overwrite)


def check_subtitles(output: Path | None, format: Format | None, *, several: bool, overwrite: bool) -> None:
    """Refuse one subtitle file for several videos by UsageError."""
    chosen = format_of(output, format)
    if chosen not in SUBTITLES:
        return
    if several and (output is None or not output.is_dir()):
        raise UsageError(f"Each video has its own {chosen} file; name a folder that exists with --output.")
    if not several and output is not None and not output.is_dir():
        refuse_directory(output)
        refuse_taken([output], overwrite=overwrite)
