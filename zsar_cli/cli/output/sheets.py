"""``zsar predict --explain``: an explain sheet for each record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zsar_cli.cache_files import open_file
from zsar_cli.errors import VideoError
from zsar_cli.prediction.records import Failure, Prediction

if TYPE_CHECKING:
    from zsar_cli.cli.predict_run import Run
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.prediction.explain import Evidence
    from zsar_cli.prediction.timeline import Segment, Timeline
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.video.pool import DecodePool


def with_sheets(
    recognizer: Recognizer, paths: Iterator[str], text: PromptEmbeddings, pool: DecodePool, run: Run
) -> Iterator[Prediction | Failure]:
    """Yield the results of predict; each sheet is written before its record, which has its path."""
    from zsar_cli.plots import to_png
    from zsar_cli.prediction.sheets import explain_sheet

    assert run.explain is not None
    how = replace(run.answers, evidence=True, where=run.explain_labels)
    results = recognizer.answers(paths, text, pool, run.options, how, stop=run.stop)
    for result, evidence in results:
        if evidence is not None and isinstance(result, Prediction):
            sheet = explain_sheet(evidence, result.video, _answers(result))
            path = run.explain.write(result.video, to_png(sheet, _about(result.video)))
            result = replace(result, written=str(path))
        yield result


def _answers(result: Prediction) -> list[str] | None:
    from zsar_cli.prediction.records import NONE_OF_THESE

    if result.answers is not None or result.answer is None:
        return result.answers
    return [] if result.answer == NONE_OF_THESE else [result.answer]


def with_timeline_sheets(
    results: Iterator[Timeline | Failure],
    recognizer: Recognizer,
    text: PromptEmbeddings,
    pool: DecodePool,
    run: Run,
) -> Iterator[Timeline | Failure]:
    """Yield the results of ``--window``, each with a sheet as in :func:`with_sheets`."""
    from zsar_cli.plots import to_png
    from zsar_cli.prediction.sheets import timeline_sheet
    from zsar_cli.video.pool import DecodePool

    assert run.explain is not None
    # A worker of its own: those of the pool may be waiting for their next videos to be asked for
    with DecodePool(min(1, pool.workers), timeout=pool.timeout) as own:
        for result in results:
            if not isinstance(result, Failure):
                seen = list(_segments_seen(result, recognizer.model, text, own, run))
                sheet = timeline_sheet(result, seen, text.labels)
                path = run.explain.write(result.video, to_png(sheet, _about(result.video)))
                result = replace(result, written=str(path))
            yield result


def _segments_seen(
    timeline: Timeline, model: RecognizerModel, text: PromptEmbeddings, pool: DecodePool, run: Run
) -> Iterator[tuple[Segment, Evidence]]:
    """Choose the longest segments with an answer, in order of time, each with its most confident window."""
    from zsar_cli.prediction.clips import examine
    from zsar_cli.prediction.records import NONE_OF_THESE
    from zsar_cli.prediction.sheets import MOST_SEGMENTS
    from zsar_cli.video.pool import ClipRequest
    from zsar_cli.video.sampling import Sampling

    windows = run.windows
    assert windows is not None
    answered = [s for s in timeline.segments if s.answer != NONE_OF_THESE]
    longest = sorted(answered, key=lambda s: s.start - s.end)[:MOST_SEGMENTS]
    chosen = sorted(longest, key=lambda s: s.start)

    def request(segment: Segment) -> ClipRequest:
        return ClipRequest(
            *(timeline.video, Sampling(len(segment.seen)), model.preprocess),
            decoder=windows.decoder,
            image_rate=windows.fps,
            look=True,
            indices=segment.seen,
        )

    for segment, clip in pool.imap(chosen, request):
        if not isinstance(clip, VideoError):
            where = run.explain_labels or [segment.answer]
            yield segment, examine(model, clip, text, top_k=run.top_k, where=where)


def heat_note(model: RecognizerModel, *, cached: bool) -> str | None:
    """Note limitations of this model's heat maps before sheets are drawn; None if there are none."""
    from zsar_cli.model.attribution import why_no_label_heat

    if (why := why_no_label_heat(model)) is not None:
        return f"The sheets show motion, but no heat maps of labels: {why}."
    if cached and model.msm is None:
        return (
            "Displayed frames pass the visual tower again: the cache of a model without motion modules has no patch "
            "tokens."
        )
    return None


def is_sheet_of(path: Path, video: str) -> bool:
    """Tell whether a file is a sheet of this video, such as one that a killed run left without its record."""
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
