"""Lists that are tables: which column holds the videos and which their labels, by headers and by all rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

import yaml

from zsar_cli.data.rows import (
    AFTER_VIDEO,
    BARE_VIDEO,
    LOOKED_AT,
    NUMBER,
    SPLITS,
    Kind,
    Row,
    has_video,
    of_split,
    unquote,
)
from zsar_cli.errors import UsageError
from zsar_cli.text import tables

MOST_NAMED = 8  # columns in a message

# Headers of columns, the surest first
PATH_WORDS = (
    *(
        "filename",
        "filepath",
        "file",
        "path",
        "videopath",
        "videofile",
        "relativepath",
        "clippath",
        "clipname",
    ),
    *("videoname", "video", "clip", "videodir", "framedir", "directory", "folder", "videoid", "id", "name"),
)
LABEL_WORDS = (
    *("labelname", "classname", "actionname", "categoryname", "label", "class", "action", "category"),
    *(
        "labels",
        "activity",
        "target",
        "tag",
        "y",
        "labelid",
        "classid",
        "actionid",
        "categoryid",
        "classlabel",
    ),
)
_LONGEST_CELL = 2_000  # characters; reading a list in one takes time in its square
_PLURAL = {"labels", "classes", "actions", "categories", "tags", "labelnames", "classnames"}
SPLIT_WORDS = ("split", "subset", "partition", "set", "fold")
_TIME_WORDS = ("start", "end", "timestart", "timeend", "starttime", "endtime", "startframe", "endframe")


@dataclass(frozen=True)
class Table:
    """A list whose lines have the same columns; ``path`` is the column of the videos."""

    header: list[str]
    body: list[list[str]]
    path: int

    @classmethod
    def of(
        cls,
        header: list[str],
        lines: list[str],
        whole: Sequence[str],
        said: str | None,
        kind: Kind,
        *,
        spaced: bool,
    ) -> Table | None:
        """Read lines as a table; None where they are none, or where the path may hold separators.

        Args:
            whole: the paths of the first lines, if all that stands before a label is one.
            said: the separator that the file names itself.
            spaced: whether blanks separate columns, too.
        """
        for mark in [said] if said else [mark for mark in tables.MARKS if mark in lines[0]]:
            body = cells_of(lines, mark)
            if body is None or (header and len(header) < len(body[0])):
                continue
            header = header[: len(body[0])]
            path = _path_column(header, body, lines, whole, kind)
            if path is not None:
                return cls(header, body, path)
        if spaced:
            body = [
                [unquote(m[1]), *m[3].split()] if (m := AFTER_VIDEO.match(x)) else x.split() for x in lines
            ]
            if len({*map(len, body)}) == 1 or min(map(len, body)) > 1:
                return cls(header if len(header) == len(body[0]) else [], body, 0)
        return None

    def rows(self, split: str, label_column: str | None) -> tuple[list[Row], list[str]] | None:
        """Make rows of a split's videos, and notes; None where the table is no more than a path and a label."""
        count = min(map(len, self.body))
        words = [tables.word(cell) for cell in self.header] or [""] * count
        body, notes = self.body, []
        splits = _first_of(SPLIT_WORDS, words)
        if splits is not None and (wanted := of_split(split, {row[splits] for row in body})) is not None:
            body = [row for row in body if row[splits] == wanted]
            notes.append(f"{len(body)} of {len(self.body)} rows belong to the split {wanted!r}")
        rest = [i for i in range(count) if i not in (self.path, splits)]
        if label_column is not None:
            label: int | None = self._named(label_column, count)
            if label == self.path:
                raise UsageError(f"--label-column {label_column!r} is the column of the paths.")
        else:
            label = self._label(words, body, rest)
            if label is None and rest:
                return None
        left = [(self.header and self.header[i]) or f"column {i + 1}" for i in rest if i != label]
        if left:
            notes.append(f"ignored: {', '.join(left)[:200]}")
        if any(word in _TIME_WORDS for word in words):
            notes.append("the times in the list are ignored: each video is used as a whole")
        if label is None:
            return [Row(row[self.path], None) for row in body], notes
        rows = [_row(row[self.path], row[label]) for row in body]
        return divided(rows, plural=words[label] in _PLURAL), notes

    def _named(self, column: str, count: int) -> int:
        if column.isdecimal() and 1 <= int(column[:9]) <= count:
            return int(column) - 1
        words = [tables.word(cell) for cell in self.header]
        if tables.word(column) in words:
            return words.index(tables.word(column))
        has = ", ".join(self.header) or f"in each line the columns 1 to {count}"
        raise UsageError(f"--label-column {column!r} is not a column of the list; it has {has}.")

    def _label(self, words: list[str], body: list[list[str]], rest: list[int]) -> int | None:
        """Find the label's column; None where the line's own reader decides as well. UsageError where two may be it."""
        texts = [i for i in rest if not all(NUMBER.fullmatch(row[i]) for row in body)]
        for choice in (texts, rest):  # names before numbers
            named = _first_of(LABEL_WORDS, words, choice)
            if named is not None:
                return named
        if not self.header and self.path == 0 and (not texts or BARE_VIDEO.match(body[0][0])):
            return None
        return only_label([[row[i] for i in rest] for row in body], rest, self.header)


def _first_of(wanted: Sequence[str], words: list[str], among: Sequence[int] | None = None) -> int | None:
    places = range(len(words)) if among is None else among
    found = {words[i]: i for i in reversed(places)}
    return next((found[name] for name in wanted if name in found), None)


def _path_column(
    header: list[str], body: list[list[str]], lines: list[str], whole: Sequence[str], kind: Kind
) -> int | None:
    """Find the column of the videos; None where it cannot be told or is the left one of a list without a header."""
    videos = [i for i in range(len(body[0])) if all(BARE_VIDEO.match(row[i]) for row in body)]
    if header:
        words = [tables.word(cell) for cell in header]
        if len(videos) == 1:
            return videos[0]
        return _first_of(PATH_WORDS, words, videos or None)
    if len(videos) != 1:
        return 0 if not videos and not any(map(has_video, lines)) else None
    (column,) = videos
    if column == 0:
        return 0
    if any(kind(path) is not None for path in whole):
        return None  # a path with commas in it
    there = any(kind(row[column]) is not None for row in body[:LOOKED_AT])
    return column if there or (len(body[0]) == 2 and len(body) > 1) else None


def only_label(columns: list[list[str]], places: Sequence[int], header: list[str]) -> int:
    """Find which of some columns holds labels: the only one of words that are neither a split's nor all the same."""
    by_column = [{row[i] for row in columns} for i in range(len(places))]
    words = [i for i, cells in enumerate(by_column) if not all(map(NUMBER.fullmatch, cells))]
    splits = {name for names in SPLITS.values() for name in names}
    if header:  # a video's or a narration's own code is no label
        words = [i for i in words if not tables.word(header[places[i]]).endswith(("id", "uid", "url"))]
    likely = [i for i in words if not {cell.lower() for cell in by_column[i]} <= splits]
    if len(likely) > 1:
        likely = [i for i in likely if len(by_column[i]) > 1] or likely
    if not words and len(places) == 1:
        likely = [0]
    if len(likely) == 1:
        return places[likely[0]]
    names = ", ".join(
        f"{header[place]:.40}" if header else f"{place + 1} ({columns[0][i][:40]!r})"
        for i, place in enumerate(places[:MOST_NAMED])
    )
    if len(places) > MOST_NAMED:
        names += f" and {len(places) - MOST_NAMED} more"
    raise UsageError(
        f"More than one column of the list could be the label: {names}. Select one with --label-column."
    )


def _mark_of_several(cells: Sequence[str], plural: bool) -> str | None:
    """Find what divides the labels of one cell, "run|jump"; None where a cell holds one label, whatever is in it.

    A list as Python or JSON prints it is several labels; so is what ``|`` divides. Semicolons and commas stand in
    labels, too: they divide where the column's name says "labels", or a part of every such cell is another's label.
    """
    texts = [cell for cell in cells if cell]
    if texts and all(cell[0] == "[" and cell[-1] == "]" for cell in texts):
        return "["
    if any("|" in cell.strip("|") for cell in texts):
        return "|"
    for mark in ";,":
        several = [[part.strip() for part in cell.split(mark)] for cell in texts if mark in cell]
        if several and all(map(all, several)):
            alone = {cell for cell in texts if mark not in cell}
            prose = any(f"{mark} " in cell for cell in texts)
            if (plural and not prose) or all(alone.intersection(parts) for parts in several):
                return mark
    return None


def _row(path: str, label: str) -> Row:
    """Make a row of a video and its label's cell: a name, a number, or several numbers."""
    parts = [part for part in re.split(r"[\s,;|]+", label.strip("[]")) if part]
    if parts and all(map(tables.is_integer, parts)):
        return Row(path, int(parts[0]), None, tuple(map(int, parts[1:])))
    return Row(path, label)


def divided(rows: list[Row], *, plural: bool = False) -> list[Row]:
    """Divide the labels of rows that have several names in one cell."""
    cells = [row.label for row in rows if isinstance(row.label, str) and not row.others]
    mark = _mark_of_several(cells, plural)
    if mark is None:
        return rows
    found = [(row, _names(row.label, mark) if isinstance(row.label, str) else ()) for row in rows]
    return [
        replace(row, label=names[0], others=tuple(dict.fromkeys(names[1:]))) if names else row
        for row, names in found
    ]


@lru_cache(maxsize=10_000)  # cells repeat, and YAML is slow
def _names(cell: str, mark: str) -> tuple[str, ...]:
    if mark != "[":
        return tuple(name.strip() for name in cell.split(mark) if name.strip())
    if len(cell) > _LONGEST_CELL:
        return ()
    with suppress(yaml.YAMLError, ValueError, RecursionError):  # JSON, and what Python prints of plain texts
        found = yaml.load(cell, Loader=yaml.BaseLoader)
        return tuple(name for name in found if isinstance(name, str) and name.strip())
    return ()


def cells_of(lines: Sequence[str], mark: str) -> list[list[str]] | None:
    """Split each line into cells; None where quotes do not fit, or a line has none or another count of them."""
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=True)
        ]
    except csv.Error:
        return None
    if len(rows) != len(lines) or len({*map(len, rows)}) != 1:
        return None
    while rows[0] and not any(row[-1] for row in rows):  # a separator at the end of each line
        rows = [row[:-1] for row in rows]
    return rows if len(rows[0]) > 1 else None
