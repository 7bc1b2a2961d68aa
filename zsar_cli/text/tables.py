"""Rows and columns of texts that people keep as tables: which mark separates the cells, which row is a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARKS = "\t;|,"  # a comma last: it stands in names, too
# The headers of columns that hold class names, the surest first, and of those that hold their numbers
NAME_WORDS = (
    *("classname", "labelname", "actionname", "categoryname", "displayname", "name", "names"),
    *("class", "classes", "action", "actions", "category", "categories", "label", "labels", "activity"),
    *("klasse", "bezeichnung", "nom", "classe", "clase", "nombre"),
)
ID_WORDS = (
    *("id", "index", "idx", "no", "nr", "num", "number", "sno", "key", "code", ""),
    *("classid", "labelid", "actionid", "categoryid", "classindex", "labelindex", "classnumber"),
)
_RULE = re.compile(r":?-{3,}:?")
INTEGER = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Line:
    """A row and the number of the line it ends in, from 1."""

    number: int
    cells: tuple[str, ...]


def word(cell: str) -> str:
    """Normalise a header for looking it up: "Class Name", "class_name" and "className" are one."""
    return re.sub(r"[\W_]+", "", cell.casefold())


def is_integer(cell: str) -> bool:
    """Tell whether a cell holds a whole number."""
    return INTEGER.fullmatch(cell) is not None


def said_mark(text: str) -> tuple[str | None, str]:
    """Read the separator that Excel's first line ``sep=;`` names, or None; and the text with that line blank."""
    match = re.match(r'\s*"?sep=(.)"?[ \t]*(?=\n|$)', text, re.IGNORECASE)
    return (match[1], text[match.end() :].rjust(len(text))) if match else (None, text)


def split_table(text: str, mark: str) -> list[Line]:
    """Split a CSV by that separator, without blank rows, comments and columns that are empty throughout.

    Raises:
        csv.Error: quotes that do not close.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    for row in reader:
        cells = [cell.strip() for cell in row]
        if all(_RULE.fullmatch(cell) for cell in cells if cell):
            continue  # under the header of a table in Markdown, and empty lines
        if any(cells) and (not cells[0].startswith("#") or (not rows and is_header(cells))):
            rows.append((reader.line_num, cells))
    width = max((len(cells) for _, cells in rows), default=0)
    while width and all(len(cells) < width or not cells[width - 1] for _, cells in rows):
        width -= 1  # a separator at the end of each line
    return [Line(number, tuple(cells[:width])) for number, cells in rows]


def width(rows: Sequence[Line]) -> int | None:
    """Count the columns that each row has; None where they differ."""
    widths = {len(row.cells) for row in rows}
    return widths.pop() if len(widths) == 1 else None


def is_header(cells: Iterable[str]) -> bool:
    """Tell whether these are headers of a list of classes."""
    cells = list(cells)
    words = {word(cell) for cell in cells}
    return bool(words & set(NAME_WORDS)) and not any(map(is_integer, cells))


def integer_columns(rows: Sequence[Line]) -> list[int]:
    """Find the columns that hold whole numbers in every row."""
    return [i for i in range(width(rows) or 0) if all(is_integer(row.cells[i]) for row in rows)]
