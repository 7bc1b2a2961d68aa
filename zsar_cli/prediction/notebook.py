"""An answer as a notebook shows it: its headline, its frames side by side, and a bar a label or a row a segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from zsar_cli.files import ASSETS
from zsar_cli.prediction.report import FilmSize, decoded_again, filmstrip
from zsar_cli.prediction.rows import answer_text
from zsar_cli.prediction.timeline_style import COLOURS
from zsar_cli.text.plain_text import printable
from zsar_cli.video.pool import DecodePool

if TYPE_CHECKING:
    from zsar_cli.prediction.result import Result

FILM = FilmSize(8, 112)
MOST_ROWS = 12


def card(result: Result) -> str:
    """Make HTML that stands alone: no script, nothing fetched, readable on a light and on a dark page."""
    record = result.to_record()
    segments = record.get("segments", [])
    seen = list(dict.fromkeys(segment["answer"] for segment in segments))
    colours = {answer: COLOURS[number % len(COLOURS)] for number, answer in enumerate(seen)}
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (ASSETS / "answer.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        record=record,
        name=printable(record["video"]),
        headline=_headline(record),
        film=None if "error" in record else _film(result, record),
        rows=[{"color": colours[s["answer"]], "text": answer_text(s, ", ")} | s for s in segments],
        most=MOST_ROWS,
    )


def _headline(record: dict[str, Any]) -> str:
    if "error" in record:
        return "cannot be read"
    if "segments" in record:
        count = len(record["segments"])
        return f"{count} segments" if count != 1 else "1 segment"
    return answer_text(record, ", ") or str(record["predictions"][0]["label"])


def _film(result: Result, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the frames that the answer holds, else those of the file; None where they are gone."""
    strip = filmstrip(getattr(result, "shown", None), FILM)
    if strip is None:
        with DecodePool(0) as pool:
            (strip,) = decoded_again([record], pool, FILM)
    return strip
