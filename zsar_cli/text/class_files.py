"""Reader of label files in many formats: names of classes, and their phrases if the file has any.

Read are texts with a name a line, numbered (``1 Archery``, ``0: run``, ``run,0``) or not; CSV with any separator;
JSON and YAML lists and maps, from number to name, name to number or name to descriptions, also where they lie inside
a configuration (``id2label``, YOLO's ``names``, ``categories``); JSON Lines; TensorFlow's and Label Studio's files.
What a column or a map holds is decided from all of its rows.

Rows of a table with a header keep their order, as its readers take it, whatever its numbers say. Elsewhere the
numbers give the order.
"""

from __future__ import annotations

import csv
import html
import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zsar_cli import yaml_files
from zsar_cli.encodings import lines_of
from zsar_cli.errors import UsageError
from zsar_cli.files import read_text
from zsar_cli.text import tables
from zsar_cli.text.class_maps import (
    Entry,
    by_number,
    entries_of,
    entries_of_text_proto,
    json_or_lines,
    without_brackets,
)
from zsar_cli.text.tables import Line

logger = logging.getLogger(__name__)


def read_class_file(path: Path) -> list[Entry]:
    """Read the classes of a file, in order. UsageError where it is none or does not say which column holds them."""
    text = read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return entries_of(yaml_files.read_json(text, path), path)
    if suffix in (".yaml", ".yml"):
        node = yaml_files.compose(text, path)
        return [] if node is None else entries_of(yaml_files.plain(node, path), path)
    start = text.strip()
    if suffix in (".jsonl", ".ndjson"):
        return entries_of(json_or_lines(text, path), path)
    if start[:1] + start[-1:] in ("[]", "{}") and (content := _structure(text, path)) is not None:
        return entries_of(content, path)
    if re.match(r"(item|label)\s*\{", start):
        return entries_of_text_proto(text, path)
    if start.startswith("<"):
        found = re.findall(r"<(?:Label|Choice)\b[^>]*?\bvalue=\"([^\"]*)\"", text)
        if found:
            return [Entry(html.unescape(name), (), f"{path}, {name!r}") for name in found]
    return _of_table(text, path, {".csv": ",", ".tsv": "\t"}.get(suffix))


def _structure(text: str, path: Path) -> Any:
    """Read a text file as a list or map, of JSON or as Python prints it; None where it is none."""
    with suppress(UsageError):
        return json_or_lines(text, path)
    with suppress(UsageError):
        node = yaml_files.compose(text, path)
        return None if node is None else yaml_files.plain(node, path)
    return None


# --- lines and tables ---------------------------------------------------------------------------------------


def _of_table(text: str, path: Path, usual: str | None) -> list[Entry]:
    """Read the names of a table; ``usual`` is the separator that the file's ending promises."""
    said, text = tables.said_mark(text)
    home = said or usual
    for mark in [said] if said else [mark for mark in tables.MARKS if mark in text]:
        if (found := _columns(text, mark, path, csv_file=bool(home))) is not None:
            return found
    if home:
        _check_quotes(text, home, path)
    lines = [Line(i, (line.strip(),)) for i, line in enumerate(lines_of(text), start=1)]
    lines = [_without_comment(line, path) for line in lines if line.cells[0] and line.cells[0][0] != "#"]
    if len(lines) == 1 and (several := _in_one_line(lines[0].cells[0], said)):
        logger.warning("%s: one line is read as %d labels", path, len(several))
        return [Entry(name, (), f"{path}, line {lines[0].number}") for name in several]
    headed = len(lines) > 1 and _is_header_line(lines[0].cells[0])
    found = _numbered(lines[headed:], path, in_order=headed)
    if found is None and home:
        return _single_column(text, home, path)
    if headed:
        _tell_header(lines[0], path)
    return _plain(lines[headed:], path) if found is None else found


def _columns(text: str, mark: str, path: Path, *, csv_file: bool) -> list[Entry] | None:
    """Read the classes of a table with several columns; None where this separator makes no table of the text."""
    try:
        rows = tables.split_table(text, mark)
    except csv.Error:
        return None
    if not rows or len(rows[0].cells) < 2:
        return None
    sure = tables.is_header(rows[0].cells) and _all_known(rows[0].cells)
    if tables.width(rows) is None:
        if not sure:
            return None
        odd = next(row for row in rows if len(row.cells) != len(rows[0].cells))
        raise UsageError(
            f"{path}, line {odd.number}: {len(odd.cells)} columns instead of {len(rows[0].cells)}; put a label with "
            "a comma in quotes."
        )
    headed = sure or (csv_file and tables.is_header(rows[0].cells))
    body = rows[1:] if headed else rows
    if not body:
        return []
    integers = tables.integer_columns(body)
    if not headed and not integers and len(rows) > 1 and (integers := tables.integer_columns(rows[1:])):
        headed, body = True, rows[1:]  # a header in words that are not known
        _tell_header(rows[0], path)
    texts = [i for i in range(len(rows[0].cells)) if i not in integers]
    column = _name_column(rows[0].cells, texts) if headed else None
    if column is None:
        if not integers or len(texts) != 1:
            if integers and not (mark == "," and ", " in text):  # else a comma of prose
                _check_one_name(rows, texts, path)
            return None
        column = texts[0]
    if headed:  # a column of counts is no numbering
        integers = [i for i in integers if tables.word(rows[0].cells[i]) in _NUMBER_WORDS]
    numbers = [int(row.cells[integers[0]]) if integers else None for row in body]
    entries = [
        Entry(row.cells[column], (), f"{path}, line {row.number}", number)
        for row, number in zip(body, numbers, strict=True)
    ]
    if headed:
        _tell_rest([cell for i, cell in enumerate(rows[0].cells) if i not in (column, *integers)], path)
        return _in_rows_order(entries, path)
    _tell_numbers(body[0].cells[column], mark.join(body[0].cells), path)
    return by_number(entries)


def _check_one_name(rows: list[Line], texts: list[int], path: Path) -> None:
    """Raise UsageError where numbered rows without a header have several columns of texts."""
    if len(texts) < 2 or len(rows) < 2:
        return
    places = " or ".join(f"{i + 1} ({rows[0].cells[i][:40]!r})" for i in texts[:4])
    raise UsageError(
        f"{path}: the names could be in column {places}; add a header line such as id,name,description."
    )


def _check_quotes(text: str, mark: str, path: Path) -> None:
    try:
        tables.split_table(text, mark)
    except csv.Error as error:
        raise UsageError(f"{path}: this is not CSV ({error}).") from error


def _plain(lines: Sequence[Line], path: Path) -> list[Entry]:
    """Read a label a line; quotes, bullets or a comma that all of them have are not part of them."""
    texts = [line.cells[0] for line in lines]
    if len(texts) > 1 and all(len(text) > 1 and text[-1] in ",;" for text in texts):
        texts = [text[:-1] for text in texts]
    if len(texts) > 1 and all(re.match(r"[-*•] +\S", text) for text in texts):
        texts = [text[1:].strip() for text in texts]
    quoted = [text for text in texts if text[0] == '"']
    if quoted and all(len(text) > 1 and text[-1] == '"' for text in quoted):
        texts = [_unquote(text) for text in texts]
    elif len(texts) > 1 and all(len(text) > 2 and text[0] == text[-1] == "'" for text in texts):
        texts = [text[1:-1] for text in texts]
    if texts and texts[0] != lines[0].cells[0]:
        logger.warning("%s: %r is read as %r", path, lines[0].cells[0][:80], texts[0][:80])
    return [Entry(text, (), f"{path}, line {line.number}") for text, line in zip(texts, lines, strict=True)]


def _without_comment(line: Line, path: Path) -> Line:
    """Cut a comment off a label: what follows a "#" that stands alone."""
    label = re.split(r"\s#\s", line.cells[0], maxsplit=1)[0].rstrip()
    if label != line.cells[0]:
        logger.warning("%s: %r is read as %r", path, line.cells[0][:80], label[:80])
    return Line(line.number, (label,))


def _tell_numbers(name: str, line: str, path: Path) -> None:
    logger.warning("%s: numbers are removed from the labels: %r is %r", path, line[:80], name[:80])


def _tell_rest(columns: Sequence[str], path: Path) -> None:
    if columns:
        logger.warning("%s: ignored: %s", path, ", ".join(columns)[:200])


def _in_one_line(line: str, said: str | None) -> list[str]:
    """Read the labels of a file of one line, "run,walk,jump"; none where that may be one label."""
    mark = said or next((mark for mark in tables.MARKS if mark in line), ",")
    prose = mark == "," and line.count(", ") == line.count(",") < 2
    parts = [part.strip() for part in line.split(mark)]
    if prose or not all(parts) or len(parts) < 2 or '"' in line or any(map(tables.is_integer, parts)):
        return []
    return parts


def _tell_header(line: Line, path: Path) -> None:
    logger.warning("%s: the first line, %r, is read as a header", path, ",".join(line.cells)[:80])


def _name_column(header: Sequence[str], texts: Sequence[int]) -> int | None:
    """Find the column of names among those of text, by its header."""
    words = {tables.word(header[i]): i for i in reversed(texts)}
    return next((words[name] for name in tables.NAME_WORDS if name in words), None)


def _all_known(cells: Iterable[str]) -> bool:
    return all(tables.word(cell) in (*tables.NAME_WORDS, *tables.ID_WORDS) for cell in cells)


def _is_header_line(line: str) -> bool:
    cells = [cell for cell in re.split(r"[\s,;|]+", line.strip('"')) if cell]
    return _all_known(cells) and tables.is_header(cells)


def _single_column(text: str, mark: str, path: Path) -> list[Entry]:
    """Read CSV without numbers: one label a row."""
    rows = tables.split_table(text, mark)
    if rows and len(rows[0].cells) > 1:
        raise UsageError(f"{path}, line {rows[0].number}: a CSV of labels needs the header id,name.")
    for row in rows:
        if len(row.cells) > 1:
            raise UsageError(
                f"{path}, line {row.number}: {len(row.cells)} columns instead of 1; put a label with a comma in quotes."
            )
    if rows and tables.is_header(rows[0].cells):
        if tables.word(rows[0].cells[0]) != "name":
            _tell_header(rows[0], path)
        rows = rows[1:]
    return [Entry(row.cells[0], (), f"{path}, line {row.number}") for row in rows]


_LONGEST_NUMBERED = 2_000  # characters: the patterns below take time in its square
_NUMBER_WORDS = (*tables.ID_WORDS, *tables.NAME_WORDS)
# A number or code before or behind a name, and how sure the mark between them makes it
_FIRST = (
    (re.compile(r"[\[(]?(\d{1,18})[\])]?\s*[,;\t|]\s*(.+)"), "any"),
    (re.compile(r"[\[(]?([A-Za-z]?\d{1,18})(?:\s*[:=](?!\d)|[.)\]](?!\d)|\s+[-–]\s)\s*(.+)"), "several"),
    (re.compile(r"(\d{1,18})(?:\s+|[-_](?=[^\W\d]))(.+)"), "counted"),
    (re.compile(r"([A-Za-z]\d{3,18})\s+(.+)"), "several"),
)
_LAST = (
    (re.compile(r"(.+?)\s*[,;\t|]\s*(\d{1,18})"), "any"),
    (re.compile(r"(.+?)\s*[:=]\s*(\d{1,18})"), "several"),
    (re.compile(r"(.+?)\s+(\d{1,18})"), "counted"),
)


def _numbered(lines: Sequence[Line], path: Path, *, in_order: bool) -> list[Entry] | None:
    """Strip the numbers that all lines have before or behind the names; None where not all have."""
    if not lines or max(len(line.cells[0]) for line in lines) > _LONGEST_NUMBERED:
        return None
    for patterns, place in ((_FIRST, (2, 1)), (_LAST, (1, 2))):
        for pattern, sure in patterns:
            found = (pattern.fullmatch(line.cells[0]) for line in lines)
            matches = list(
                itertools.takewhile(bool, found)
            )  # the first line that does not fit is the last looked at
            if len(matches) < len(lines):
                continue
            names = [_unquote(m[place[0]]) for m in matches if m]
            codes = [m[place[1]] for m in matches if m]
            if not _is_numbering(names, codes, sure):
                continue
            _tell_numbers(names[0], lines[0].cells[0], path)
            entries = [
                Entry(without_brackets(name), (), f"{path}, line {line.number}", int(re.sub(r"\D", "", code)))
                for name, code, line in zip(names, codes, lines, strict=True)
            ]
            return _in_rows_order(entries, path) if in_order else by_number(entries)
    return None


def _is_numbering(names: Sequence[str], codes: Sequence[str], sure: str) -> bool:
    """Tell whether the codes number the names. "2 people" and "3 people" are names; so are "part 1" and "part 2"."""
    if sure == "any":
        return True
    if len(codes) < 2 or len(set(codes)) < len(codes) or len({n.casefold() for n in names}) < len(names):
        return False
    if len({re.sub(r"\d", "", code) for code in codes}) > 1:
        return False
    numbers = [int(re.sub(r"\D", "", code)) for code in codes]
    if len(numbers) > 2 and numbers == sorted(numbers):
        return True  # some classes of a longer list
    return sure == "several" or sorted(numbers) in (list(range(len(codes))), list(range(1, len(codes) + 1)))


def _in_rows_order(entries: list[Entry], path: Path) -> list[Entry]:
    numbers = [entry.number for entry in entries if entry.number is not None]
    if numbers != sorted(numbers):
        logger.warning(
            "the ids in %s are not in order; labels are numbered by row from 0, not by id", path.name
        )
    return entries


def _unquote(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text
