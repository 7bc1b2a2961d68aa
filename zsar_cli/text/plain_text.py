"""Text that strangers chose, made safe for terminals and spreadsheets."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import IO, Any

BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # reorder what follows
# What begins a formula in a spreadsheet; in East Asia the full-width forms do, too
FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
# Where ; divides columns, a quote in the middle of a row does not hold a cell together
_INSIDE = re.compile(f"(;[ \xa0]*)(?=[{re.escape(''.join(sorted(FORMULA)))}'])")
BOM = "\ufeff"  # by which spreadsheets know UTF-8


def printable(text: str) -> str:
    """Escape what steers a terminal: control characters and undecodable bytes become visible."""
    return "".join(map(_visible, text))


def _visible(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if letter in BIDIRECTIONAL or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return letter


def takes_unicode(stream: IO[str]) -> bool:
    """Tell whether every letter can be written there."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Write rows of CSV that run nothing where they are opened.

    A text that a spreadsheet would take for a formula has a ``'`` before it, and so has one that begins with ``'``:
    whoever takes a leading ``'`` off, and one after a ``;``, has the text again, control characters as escapes.
    """
    text = io.StringIO()
    minimal, quoted = (
        csv.writer(text, lineterminator="\n", quoting=how)
        for how in (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC)
    )
    for row in rows:
        cells = [_cell(value) for value in row]
        # Where ; divides columns, what follows it in an unquoted cell would begin a cell of its own
        divided = any(isinstance(cell, str) and ";" in cell for cell in cells)
        (quoted if divided else minimal).writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    dangerous = value[:1] == "'" or value.lstrip(" \xa0")[:1] in FORMULA
    return ("'" if value and dangerous else "") + _INSIDE.sub(r"\1'", printable(value))
