"""``zsar predict --explain``: a picture beside each record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zsar_cli.files import OwnNames
from zsar_cli.records import Failure, Prediction

if TYPE_CHECKING:
    from zsar_cli.cli.predict import Run
    from zsar_cli.prediction import Recognizer
    from zsar_cli.prompts import PromptEmbeddings
    from zsar_cli.video.workers import DecodePool


def with_sheets(
    recognizer: Recognizer, paths: Iterator[str], text: PromptEmbeddings, pool: DecodePool, run: Run
) -> Iterator[Prediction | Failure]:
    """The results of predict; a video's sheet is on the disk before its record is out."""
    from zsar_cli.pictures import explain_sheet, save

    assert run.explain is not None
    names = OwnNames()
    results = recognizer.answers(
        paths,
        text,
        pool,
        run.options,
        top_k=run.top_k,
        threshold=run.threshold,
        stop=run.stop,
        evidence=True,
    )
    for result, evidence in results:
        if evidence is not None and isinstance(result, Prediction):
            save(
                explain_sheet(evidence, result.video, result.answer and f"answer: {result.answer}"),
                run.explain / f"{names.of(result.video)}.png",
            )
        yield result
