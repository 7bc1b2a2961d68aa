"""Lists of a video and its label a line, with any separator, in any order of columns.

Which column is the path and which the label is decided from all rows: by a header, by what is a video, by what is a
number everywhere. Where that leaves more than one column, the list is refused and ``label_column`` decides.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zsar_cli import tables
from zsar_cli.encodings import lines_of
from zsar_cli.errors import UsageError
from zsar_cli.video.find import VIDEO_ENDINGS

Kind = Callable[[str], str | None]

_SUFFIX = "|".join(sorted(VIDEO_ENDINGS))
_AFTER_VIDEO = re.compile(rf'^(.*\.(?:{_SUFFIX})"?)([\s,;|]+)(\S.*)$', re.IGNORECASE)
_BARE_VIDEO = re.compile(rf"^.*\.(?:{_SUFFIX})$", re.IGNORECASE)
_INTEGER_END = re.compile(r"^(.*?\S)\s*(?:[,;|]\s*|\s)(-?\d{1,18})$")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d*)?")
_FEWEST_FRAMES = 8  # that a number before the label must reach to be taken for a count of frames
_LOOKED_AT = 200  # rows that are looked for on the disk
# Headers of columns, the surest first
_PATH_WORDS = (
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
_LABEL_WORDS = (
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
_SPLIT_WORDS = ("split", "subset", "partition", "set", "fold")
_TIME_WORDS = ("start", "end", "timestart", "timeend", "starttime", "endtime", "startframe", "endframe")
SPLITS = {
    "test": ("test", "testing", "val", "validate", "validation", "valid"),
    "train": ("train", "training"),
}


@dataclass(frozen=True)
class Row:
    """One listed video. ``label`` is a number or a name as the list writes it, None where it gives none."""

    path: str
    label: int | str | None
    frame_count: int | None = None  # of a folder of frames
    others: tuple[int | str, ...] = ()  # labels beyond the first


def of_split(split: str, names: Iterable[str]) -> str | None:
    """Which of the splits that a list holds is wanted; None where it holds but one."""
    known = {name.lower(): name for name in names}
    if len(known) < 2:
        return None
    return next((known[name] for name in SPLITS.get(split, (split,)) if name in known), "")


def parse_lines(text: str, *, frames: bool | None = None, kind: Kind = lambda path: None) -> list[Row]:
    """Rows of a list, as :func:`read_lines` finds them."""
    return read_lines(text, frames=frames, kind=kind)[0]


def read_lines(
    text: str,
    *,
    frames: bool | None = None,
    kind: Kind = lambda path: None,
    split: str = "all",
    label_column: str | None = None,
) -> tuple[list[Row], list[str]]:
    """Rows of a list, and notes of what was left aside.

    A line ends in numbers, in the name that follows a path to a video, or holds a path and no more. Two numbers
    at the end are a count of frames and a label where ``frames`` says so, or, without it, where every line has
    them and the path leads to a folder (``kind`` gives "folder", "file" or None for a path), or at least the
    counts are plausible. Else several numbers after a video's name are several labels, and after any other
    path only the last is a label. ``# `` starts a comment, but ``#20_clap.avi`` is a video.

    Raises:
        UsageError: more than one column may be the label, or ``label_column`` is none.
    """
    said, text = tables.said_mark(text)
    lines = _without_comments([line.strip() for line in lines_of(text) if line.strip()], kind)
    if not lines:
        return [], []
    header, body = _header(lines)
    table = _Table.of(header, body, said, kind, spaced=label_column is not None)
    if table is not None:
        found = table.rows(split, label_column)
        if found is not None:
            return found
    if label_column is not None:
        raise UsageError("The list has no columns to take the label from; its lines differ.")
    parsed = [_split_line(line) for line in body]
    named = _named_columns(parsed)
    if named is not None:
        return named
    if frames is None:
        frames = _counts_frames(parsed, kind)
    return [line.row(frames) for line in parsed], []


def _without_comments(lines: list[str], kind: Kind) -> list[str]:
    marked = [line for line in lines if line[0] == "#"]
    if not marked:
        return lines
    videos = all(map(_has_video, (line for line in lines if line[0] != "#")))

    def is_comment(line: str) -> bool:
        if line[0] != "#" or kind(_split_line(line).path) is not None:
            return False
        return line[1:2] in ("", " ", "\t", "#") or (videos and not _has_video(line))

    return [line for line in lines if not is_comment(line)]


def _has_video(line: str) -> bool:
    return bool(_BARE_VIDEO.match(unquote(line)) or _AFTER_VIDEO.match(line))


def _header(lines: list[str]) -> tuple[list[str], list[str]]:
    """The header's cells, or none; and the other lines."""
    first = lines[0]
    if len(lines) < 2 or _has_video(first):
        return [], lines
    mark = next((mark for mark in tables.MARKS if mark in first), None)
    cells = (_cells([first], mark) or [[first]])[0] if mark else first.split()
    words = [tables.word(cell) for cell in cells]
    if any(map(tables.is_integer, cells)):
        return [], lines
    known = set(words) & {*_LABEL_WORDS} or (words[-1:] and set(words) <= {*_PATH_WORDS, *_SPLIT_WORDS})
    # A first line without a video, where all others have one, is a header in words that are not known
    if known or all(map(_has_video, lines[1:])):
        return cells, lines[1:]
    return [], lines


def _cells(lines: Sequence[str], mark: str) -> list[list[str]] | None:
    """Each line's cells; None where quotes do not fit, or a line has none or another count of them."""
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=True)
        ]
    except csv.Error:
        return None
    return rows if len(rows) == len(lines) and len({*map(len, rows)}) == 1 and len(rows[0]) > 1 else None


# --- tables -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """A list whose lines have the same columns; ``path`` is the column of the videos."""

    header: list[str]
    body: list[list[str]]
    path: int

    @classmethod
    def of(
        cls, header: list[str], lines: list[str], said: str | None, kind: Kind, *, spaced: bool
    ) -> _Table | None:
        for mark in [said] if said else [mark for mark in tables.MARKS if mark in lines[0]]:
            body = _cells(lines, mark)
            if body is None or (header and len(header) != len(body[0])):
                continue
            path = _path_column(header, body, lines, kind)
            if path is not None:
                return cls(header, body, path)
        if spaced:
            body = [
                [unquote(m[1]), *m[3].split()] if (m := _AFTER_VIDEO.match(x)) else x.split() for x in lines
            ]
            if len({*map(len, body)}) == 1 or min(map(len, body)) > 1:
                return cls(header if len(header) == len(body[0]) else [], body, 0)
        return None

    def rows(self, split: str, label_column: str | None) -> tuple[list[Row], list[str]] | None:
        """Its videos of a split, and notes; None where it is no more than a path and a label."""
        count = min(map(len, self.body))
        words = [tables.word(cell) for cell in self.header] or [""] * count
        body, notes = self.body, []
        splits = _first_of(_SPLIT_WORDS, words)
        if splits is not None and (wanted := of_split(split, {row[splits] for row in body})) is not None:
            body = [row for row in body if row[splits] == wanted]
            notes.append(f"{len(body)} of {len(self.body)} rows are of the split {wanted!r}")
        rest = [i for i in range(count) if i not in (self.path, splits)]
        if label_column is not None:
            label: int | None = self._named(label_column, count)
        else:
            label = self._label(words, body, rest)
            if label is None and rest:
                return None
        left = [self.header[i] if self.header else f"column {i + 1}" for i in rest if i != label]
        if left:
            notes.append(f"left aside: {', '.join(left)[:200]}")
        if any(word in _TIME_WORDS for word in words):
            notes.append("the times in the list are not used: each video is taken whole")
        if label is None:
            return [Row(row[self.path], None) for row in body], notes
        return [_row(row[self.path], row[label]) for row in body], notes

    def _named(self, column: str, count: int) -> int:
        if column.isdecimal() and 1 <= int(column[:9]) <= count:
            return int(column) - 1
        words = [tables.word(cell) for cell in self.header]
        if tables.word(column) in words:
            return words.index(tables.word(column))
        has = ", ".join(self.header) or f"1 to {count}"
        raise UsageError(f"--label-column {column!r} is no column of the list; it has {has}.")

    def _label(self, words: list[str], body: list[list[str]], rest: list[int]) -> int | None:
        """The label's column; None where the line's own reader decides as well. UsageError where two may be it."""
        texts = [i for i in rest if not all(_NUMBER.fullmatch(row[i]) for row in body)]
        for choice in (texts, rest):  # names before numbers
            named = _first_of(_LABEL_WORDS, words, choice)
            if named is not None:
                return named
        if not self.header and self.path == 0 and (not texts or _BARE_VIDEO.match(body[0][0])):
            return None
        return _only_label([[row[i] for i in rest] for row in body], rest, self.header)


def _first_of(wanted: Sequence[str], words: list[str], among: Sequence[int] | None = None) -> int | None:
    places = range(len(words)) if among is None else among
    found = {words[i]: i for i in reversed(places)}
    return next((found[name] for name in wanted if name in found), None)


def _path_column(header: list[str], body: list[list[str]], lines: list[str], kind: Kind) -> int | None:
    """The column of the videos; None where it cannot be told or is the left one of a list without a header."""
    videos = [i for i in range(len(body[0])) if all(_BARE_VIDEO.match(row[i]) for row in body)]
    if header:
        words = [tables.word(cell) for cell in header]
        if len(videos) == 1:
            return videos[0]
        return _first_of(_PATH_WORDS, words, videos or None)
    if len(videos) != 1:
        return 0 if not videos and not any(map(_has_video, lines)) else None
    (column,) = videos
    if column == 0:
        return 0
    whole = [_split_line(line).path for line in lines[:_LOOKED_AT]]
    if any(kind(path) is not None for path in whole):
        return None  # a path with commas in it
    there = any(kind(row[column]) is not None for row in body[:_LOOKED_AT])
    return column if there or (len(body[0]) == 2 and len(body) > 1) else None


def _only_label(columns: list[list[str]], places: Sequence[int], header: list[str]) -> int:
    """Which of some columns holds labels: the only one of words that are neither a split's nor all the same."""
    by_column = [{row[i] for row in columns} for i in range(len(places))]
    words = [i for i, cells in enumerate(by_column) if not all(map(_NUMBER.fullmatch, cells))]
    splits = {name for names in SPLITS.values() for name in names}
    likely = [i for i in words if not {cell.lower() for cell in by_column[i]} <= splits]
    if len(likely) > 1:
        likely = [i for i in likely if len(by_column[i]) > 1] or likely
    if not words and len(places) == 1:
        likely = [0]
    if len(likely) == 1:
        return places[likely[0]]
    names = ", ".join(
        header[place] if header else f"{place + 1} ({columns[0][i][:40]!r})" for i, place in enumerate(places)
    )
    raise UsageError(
        f"The label may be in more than one column of the list: {names}. Say which with --label-column."
    )


def _row(path: str, label: str) -> Row:
    """A video with what its label's cell holds: a name, a number, or several numbers."""
    parts = [part for part in re.split(r"[\s,;|]+", label) if part]
    if parts and all(map(tables.is_integer, parts)):
        return Row(path, int(parts[0]), None, tuple(map(int, parts[1:])))
    return Row(path, label)


# --- path label ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    path: str
    numbers: tuple[int, ...] = ()  # at the end of the line, where it has no name
    name: str | None = None
    longer: str = ""  # the path with all numbers but the last, as they are written
    mark: str | None = None  # between a video and what follows it
    rest: str = ""

    @property
    def is_video(self) -> bool:
        return _BARE_VIDEO.match(self.path) is not None

    def row(self, frames: bool) -> Row:
        if not self.numbers:
            return Row(self.path, self.name)
        if frames and len(self.numbers) == 2:
            return Row(self.path, self.numbers[1], self.numbers[0])
        if len(self.numbers) > 1 and not self.is_video:  # a name that ends in a number: "clip 2"
            return Row(self.longer, self.numbers[-1])
        return Row(self.path, self.numbers[0], None, self.numbers[1:])


def _split_line(line: str) -> _Line:
    if _BARE_VIDEO.match(line):
        return _Line(unquote(line))
    if match := _AFTER_VIDEO.match(line):
        path, label = unquote(match[1]), unquote(match[3])
        mark = next((mark for mark in tables.MARKS if mark in match[2]), " ")
        parts = [part for part in re.split(r"[\s,;|]+", label) if part]
        if all(map(tables.is_integer, parts)):
            return _Line(path, tuple(map(int, parts)), mark=mark, rest=match[3])
        return _Line(path, name=label, mark=mark, rest=match[3])
    if last := _INTEGER_END.match(line):
        longer = unquote(last[1])
        if count := _INTEGER_END.match(last[1]):
            return _Line(unquote(count[1]), (int(count[2]), int(last[2])), longer=longer)
        return _Line(longer, (int(last[2]),))
    separator = next((mark for mark in ("\t", ",", ";") if mark in line), " ")
    path, _, label = line.rpartition(separator)
    return _Line(unquote(path), name=unquote(label)) if path else _Line(unquote(line))


def _named_columns(lines: Sequence[_Line]) -> tuple[list[Row], list[str]] | None:
    """Rows of ``video name ...`` where more than the name follows; None where nothing does."""
    if any(line.mark != lines[0].mark or line.mark is None for line in lines):
        return None
    if all(line.name is None for line in lines):
        return None
    return _spaced(lines) if lines[0].mark == " " else _delimited(lines, str(lines[0].mark))


def _spaced(lines: Sequence[_Line]) -> tuple[list[Row], list[str]] | None:
    """Numbers that all lines have behind the name, as UCF-Crime's times; or its number in a list of classes."""
    words = [line.rest.split() for line in lines]
    behind = min(map(_numbers_at_end, words))
    names = [" ".join(row[:-behind]) for row in words] if behind else []
    if not behind or not all(names):
        return None
    if behind == 1:  # "walking 0" and "running 1", but not "part 1" and "part 2"
        pairs = {(name, row[-1]) for name, row in zip(names, words, strict=True)}
        if not 1 < len(pairs) == len({name for name, _ in pairs}) == len({number for _, number in pairs}):
            return None
    notes = [
        f"left aside: the {behind} numbers after each label" if behind > 1 else "left aside: the numbers"
    ]
    return [Row(line.path, name) for line, name in zip(lines, names, strict=True)], notes


def _numbers_at_end(words: Sequence[str]) -> int:
    count = 0
    while count < len(words) and _NUMBER.fullmatch(words[-1 - count]):
        count += 1
    return count


def _delimited(lines: Sequence[_Line], mark: str) -> tuple[list[Row], list[str]] | None:
    try:
        cells = [
            [c.strip() for c in row]
            for row in csv.reader([x.rest for x in lines], delimiter=mark, strict=True)
        ]
    except csv.Error:
        return None
    if len(cells) != len(lines) or not any(len(row) > 1 for row in cells):
        return None
    if not any(re.search(rf"{re.escape(mark)}\S", line.rest) for line in lines):
        return None  # "lifting it, then letting go": a comma of prose
    if len({*map(len, cells)}) == 1:
        places = [i + 1 for i in range(len(cells[0]))]
        column = _only_label(cells, places, []) - 1
        left = ", ".join(f"column {place + 1}" for place in places if place != column + 1)
        return [Row(line.path, row[column]) for line, row in zip(lines, cells, strict=True)], [
            f"left aside: {left}"
        ]
    alone = {row[0].casefold() for row in cells if len(row) == 1}
    if not all(cell.casefold() in alone for row in cells for cell in row):
        return None  # commas of the labels' own
    return [Row(line.path, row[0], None, tuple(row[1:])) for line, row in zip(lines, cells, strict=True)], []


def _counts_frames(lines: Sequence[_Line], kind: Kind) -> bool:
    """Whether every line is ``folder count label``."""
    if not lines or any(len(line.numbers) != 2 for line in lines):
        return False
    kinds = {kind(line.path) for line in lines[:_LOOKED_AT]}
    if "folder" in kinds:
        return True
    if "file" in kinds or all(line.is_video for line in lines):
        return False
    return all(line.numbers[0] >= _FEWEST_FRAMES for line in lines)


def unquote(text: str) -> str:
    """A cell without the quotes around it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text
