"""``zsar predict --explain``: a picture beside each record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zsar_cli.cache_files import open_file
from zsar_cli.prediction.records import Failure, Prediction

if TYPE_CHECKING:
    from zsar_cli.cli.predict import Run
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.video.pool import DecodePool


def with_sheets(
    recognizer: Recognizer, paths: Iterator[str], text: PromptEmbeddings, pool: DecodePool, run: Run
) -> Iterator[Prediction | Failure]:
    """Pass on the results of predict; a video's sheet is on the disk before its record, which names it."""
    from zsar_cli.plots import explain_sheet, to_png

    assert run.explain is not None
    results = recognizer.answers(
        paths,
        text,
        pool,
        run.options,
        top_k=run.top_k,
        rule=run.rule,
        stop=run.stop,
        evidence=True,
        shown=run.film is not None,
    )
    for result, evidence in results:
        if evidence is not None and isinstance(result, Prediction):
            answer = ", ".join(result.answers or []) or result.answer
            sheet = explain_sheet(evidence, result.video, answer and f"answer: {answer}")
            path = run.explain.write(result.video, to_png(sheet, _about(result.video)))
            result = replace(result, written=str(path))
        yield result


def is_sheet_of(path: Path, video: str) -> bool:
    """Whether a file is a sheet about this video: a run that was killed may have left one without its record."""
    from zsar_cli.plots import ABOUT

    try:
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            start = file.read(100_000)
    except OSError:  # none, or a link, or a pipe that nobody writes to
        return False
    mark = f"tEXt{ABOUT}\0{_about(video)}".encode("latin-1")
    return start.startswith(b"\x89PNG\r\n\x1a\n") and mark in start


def _about(video: str) -> str:
    return json.dumps(video)
