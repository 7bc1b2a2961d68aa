"""Answers as the rows of a table: of CSV on the command line, of pandas in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.prediction.records import NONE_OF_THESE, answers_of

if TYPE_CHECKING:
    import pandas as pd

    from zsar_cli.prediction.result import Result

OF_VIDEOS = (
    "video",
    "rank",
    "label",
    "score",
    "yes",
    "unknown",
    "answer",
    "duration",
    "frames",
    "warning",
    "error",
)
OF_SEGMENTS = ("video", "start", "end", "label", "score", "yes", "unknown", "duration", "warning", "error")


def rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make a row for each label of a record, or for each answer of each of its segments; or one with its error.

    The columns are :data:`OF_VIDEOS` or :data:`OF_SEGMENTS`; what a row has nothing for is left out. Times in s.
    """
    about = {name: record[name] for name in ("video", "warning") if name in record}
    if "error" in record:
        return [about | {"error": f"{record['error']['kind']}: {record['error']['message']}"}]
    if "segments" in record:
        about["duration"] = record["duration"]
        return [
            about
            | {name: segment[name] for name in ("start", "end", "unknown")}
            | next((found for found in segment["predictions"] if found["label"] == label), {"label": label})
            for segment in record["segments"]
            for label in answers_of(segment) or [NONE_OF_THESE]
        ]
    about |= {name: record[name] for name in ("unknown", "duration", "frames")}
    if "answer" in record:
        about["answer"] = answer_text(record)
    return [about | {"rank": rank} | found for rank, found in enumerate(record["predictions"], start=1)]


def cells(row: Mapping[str, Any], columns: Iterable[str]) -> list[Any]:
    """Make a row of CSV; what it has nothing for is blank."""
    return [row.get(name, "") for name in columns]


def answer_text(record: Mapping[str, Any], between: str = "; ") -> str:
    """Format the answer of a record or segment, or all of several; blank where none was asked for."""
    return between.join(answers_of(record)) or str(record.get("answer", ""))


def to_pandas(answers: Iterable[Result]) -> pd.DataFrame:
    """Put answers into one table, with the rows and columns of the command's CSV.

    Args:
        answers: what ``predict``, ``predict_many`` and ``segments`` of a Recognizer give.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("Tables need the package pandas: pip install pandas.") from None
    records = [answer.to_record() for answer in answers]
    columns = OF_SEGMENTS if any("segments" in record for record in records) else OF_VIDEOS
    return pd.DataFrame([row for record in records for row in rows(record)], columns=list(columns))
