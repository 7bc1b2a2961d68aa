"""CSV that is written record by record and can be resumed; its column ``made_with`` has the settings of the run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zsar_cli.cli.output.formats import Columns, csv_columns, csv_rows
from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.record_file import Stored
from zsar_cli.prediction.records import MADE_WITH, NONE_OF_THESE, to_json
from zsar_cli.text.plain_text import BOM, csv_text

# Cells that two different texts may have become
_AMBIGUOUS = re.compile(r"""\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|;[ \xa0]*'""")
_ROUNDED = 0.002  # s


class CsvRows:
    """CSV as a format of :class:`zsar_cli.prediction.record_file.RecordFile`: consecutive rows per video.

    Args:
        path: of the file, for messages.
        columns: of the file.
        rows: least number of rows per video, unless rows are segments or there is one row per video.
    """

    def __init__(self, path: Path, columns: Columns, rows: int = 1) -> None:
        self._path, self._columns, self._rows = path, columns, rows
        head = csv_text([[*csv_columns(columns), MADE_WITH]])
        self._names = _cells(head.encode())
        self.head = (("" if is_stream(path) else BOM) + head).encode()

    @classmethod
    def of_header(cls, path: Path, line: bytes) -> CsvRows:
        """Read the columns from the first line of a file that is complete."""
        names = _cells(line)
        wide = tuple(names[2:]) if "rank" not in names and "label" not in names else None
        found = cls(path, Columns(windows="start" in names, labels=wide))
        found._names, found.head = names, line
        return found

    def parts(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the rows of each video together; an incomplete last row belongs to the last video."""
        name, part = "", b""
        for number, line in enumerate(lines):
            if number == 0 and line.endswith(b"\n"):
                self._check_names(_cells(line))
                continue
            first = next(iter(_cells(line)), "")
            cut = not line.endswith(b"\n")
            if part and first != name and not (cut and (name.startswith(first) or not self._is_whole(part))):
                yield part
                part = b""
            name, part = first, part + line
        if part:
            yield part

    def _check_names(self, names: list[str]) -> None:
        if names == self._names:
            return
        if names == self._names[:-1]:
            what = f"does not say what it was made with: it has no column {MADE_WITH}"
        else:
            what = "has other columns than this run (other labels, --window or --wide)"
        raise UsageError(f"{self._path} {what}. Choose another --output, or start over with --overwrite.")

    def _is_whole(self, part: bytes) -> bool:
        stored = self.read(part)
        return stored is not None and stored.whole

    def read(self, part: bytes) -> Stored | None:
        """Parse the rows of a video."""
        rows = [_cells(line) for line in part.splitlines(keepends=True)]
        if not rows or any(len(row) != len(self._names) or row[0] != rows[0][0] for row in rows):
            return None
        records = [dict(zip(self._names, row, strict=True)) for row in rows]
        first, last = records[0], records[-1]
        made = first[MADE_WITH]
        try:
            kind = first["error"].partition(":")[0] or None
            whole = kind is not None or (
                float(last["end"]) - float(first["start"]) > float(first["duration"]) - _ROUNDED
                if self._columns.windows
                else self._columns.labels is not None or len(rows) >= self._rows
            )
            found = json.loads(made) if made else None
        except (ValueError, RecursionError):
            return None
        if found is not None and not isinstance(found, dict):
            return None
        several = self._columns.several and self._columns.windows and self._columns.labels is None
        ended = kind is not None or not several or last["label"] == NONE_OF_THESE
        clear = not _AMBIGUOUS.search(first["video"])
        return Stored(same_input(first["video"]), kind, found, whole, ended, clear)

    def part(self, record: dict[str, Any]) -> bytes:
        """Format the rows of a record, the first with its ``made_with`` if it has one."""
        made = to_json(record[MADE_WITH], ascii_only=True) if MADE_WITH in record else ""
        rows = csv_rows(record, self._columns)
        more = [made] + [""] * (len(rows) - 1)
        return csv_text([*row, cell] for row, cell in zip(rows, more, strict=True)).encode()

    def key(self, video: str) -> str:
        """Return the path as it is written in a cell."""
        return same_input(next(iter(_cells(csv_text([[video]]).encode())), ""))

    def starts(self, line: bytes) -> bool:
        """Tell whether this is the header of such a file, or an incomplete one."""
        names = _cells(line)
        if not line.endswith(b"\n"):
            return len(line) > len(BOM.encode() + b"video,") and self.head.startswith(line)
        return names[:1] == ["video"] and "error" in names[-2:]

    def torn(self, part: bytes, *, alone: bool) -> bool:
        """Tell whether this may be an incomplete row or header."""
        last = part.splitlines()[-1] if part.strip(b"\0") else b""
        return (self.head.startswith(part) and alone) or len(_cells(last)) <= len(self._names)


def _cells(line: bytes) -> list[str]:
    """Split a line into cells; none if it is not CSV. Cells written by zsar have no line breaks."""
    try:
        text = line.decode("utf-8").removeprefix(BOM)
        return next(csv.reader(io.StringIO(text)), [])
    except (UnicodeDecodeError, csv.Error):
        return []
