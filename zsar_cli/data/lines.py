"""Lists of a video and its label a line, with any separator, in any order of columns.

Which column is the path and which the label is decided from all rows: by a header, by what is a video, by what is a
number everywhere. Where that leaves more than one column, the list is refused and ``label_column`` decides.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zsar_cli.data.columns import LABEL_WORDS, PATH_WORDS, SPLIT_WORDS, Table, cells_of, divided, only_label
from zsar_cli.data.rows import AFTER_VIDEO, BARE_VIDEO, LOOKED_AT, NUMBER, Kind, Row, has_video, unquote
from zsar_cli.encodings import lines_of
from zsar_cli.errors import UsageError
from zsar_cli.text import tables

_INTEGER_END = re.compile(r"^(.*?\S)\s*(?:[,;|]\s*|\s)(-?\d{1,18})$")
_FEWEST_FRAMES = 8  # that a number before the label must reach to be taken for a count of frames


def parse_lines(text: str, *, frames: bool | None = None, kind: Kind = lambda path: None) -> list[Row]:
    """Read the rows of a list, as :func:`read_lines` finds them."""
    return read_lines(text, frames=frames, kind=kind)[0]


def read_lines(
    text: str,
    *,
    frames: bool | None = None,
    kind: Kind = lambda path: None,
    split: str = "all",
    label_column: str | None = None,
) -> tuple[list[Row], list[str]]:
    """Read the rows of a list, with notes of what was ignored.

    A line ends in numbers, in the name that follows a path to a video, or holds a path and no more. Two numbers
    at the end are a count of frames and a label where ``frames`` says so, or, without it, where every line has
    them and the path leads to a folder (``kind`` gives "folder", "file" or None for a path), or at least the
    counts are plausible. Else several numbers after a video's name are several labels, and after any other
    path only the last is a label. ``# `` starts a comment, but ``#20_clap.avi`` is a video.

    Raises:
        UsageError: more than one column may be the label, or ``label_column`` is none.
    """
    said, text = tables.said_mark(text)
    lines = [_without_comment(line) for line in lines_of(text) if line.strip()]
    lines = _without_comments(lines, kind)
    if not lines:
        return [], []
    while all(len(line) > 1 and line[-1] == lines[0][-1] in ",;|" for line in lines):  # an empty column
        lines = [line[:-1].rstrip() for line in lines]
    header, body = _header(lines)
    whole = [_split_line(line).path for line in body[:LOOKED_AT]]
    table = Table.of(header, body, whole, said, kind, spaced=label_column is not None)
    if table is not None:
        found = table.rows(split, label_column)
        if found is not None:
            return found
    if label_column is not None:
        raise UsageError(
            "The lines of the list have different numbers of columns, so --label-column cannot be used."
        )
    parsed = [_split_line(line) for line in body]
    named = _named_columns(parsed) or _label_first(body, kind) or _times_behind(body)
    if named is not None:
        return named
    notes: list[str] = []
    if frames is not False:
        parsed, notes = _without_offsets(parsed, kind)
    if frames is None:
        frames = _counts_frames(parsed, kind)
    return divided([line.row(frames) for line in parsed]), notes


def _without_comment(line: str) -> str:
    """Cut a comment off a line: what follows a "#" that stands alone."""
    before = re.split(r"\s#\s", line, maxsplit=1)[0].strip()
    return before if has_video(before) else line.strip()


def _without_comments(lines: list[str], kind: Kind) -> list[str]:
    marked = [line for line in lines if line[0] == "#"]
    if not marked:
        return lines
    videos = all(map(has_video, (line for line in lines if line[0] != "#")))

    def is_comment(line: str) -> bool:
        if line[0] != "#" or kind(_split_line(line).path) is not None:
            return False
        return line[1:2] in ("", " ", "\t", "#") or (videos and not has_video(line))

    return [line for line in lines if not is_comment(line)]


def _header(lines: list[str]) -> tuple[list[str], list[str]]:
    """Split lines into the header's cells, if there is one, and the others."""
    first = lines[0]
    if len(lines) < 2 or has_video(first):
        return [], lines
    mark = next((mark for mark in tables.MARKS if mark in first), None)
    cells = (cells_of([first], mark) or [[first]])[0] if mark else first.split()
    words = [tables.word(cell) for cell in cells]
    if any(map(tables.is_integer, cells)):
        return [], lines
    known = set(words) & {*LABEL_WORDS} or (words[-1:] and set(words) <= {*PATH_WORDS, *SPLIT_WORDS})
    # A first line without a video, where all others have one, is a header in words that are not known
    if known or all(map(has_video, lines[1:])):
        return cells, lines[1:]
    return [], lines


# --- path label ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ListLine:
    path: str
    numbers: tuple[int, ...] = ()  # at the end of the line, where it has no name
    name: str | None = None
    longer: str = ""  # the path with all numbers but the last, as they are written
    mark: str | None = None  # between a video and what follows it
    rest: str = ""

    @property
    def is_video(self) -> bool:
        return BARE_VIDEO.match(self.path) is not None

    def row(self, frames: bool) -> Row:
        if not self.numbers:
            return Row(self.path, self.name)
        if frames and len(self.numbers) == 2:
            return Row(self.path, self.numbers[1], self.numbers[0])
        if len(self.numbers) > 1 and not self.is_video:  # a name that ends in a number: "clip 2"
            return Row(self.longer, self.numbers[-1])
        return Row(self.path, self.numbers[0], None, self.numbers[1:])


def _split_line(line: str) -> _ListLine:
    if BARE_VIDEO.match(line):
        return _ListLine(unquote(line))
    if match := AFTER_VIDEO.match(line):
        path, label = unquote(match[1]), unquote(match[3])
        mark = next((mark for mark in tables.MARKS if mark in match[2]), " ")
        parts = [part for part in re.split(r"[\s,;|]+", label) if part]
        if all(map(tables.is_integer, parts)):
            return _ListLine(path, tuple(map(int, parts)), mark=mark, rest=match[3])
        return _ListLine(path, name=label, mark=mark, rest=match[3])
    if last := _INTEGER_END.match(line):
        longer = unquote(last[1])
        if count := _INTEGER_END.match(last[1]):
            return _ListLine(unquote(count[1]), (int(count[2]), int(last[2])), longer=longer)
        return _ListLine(longer, (int(last[2]),))
    separator = next((mark for mark in ("\t", ",", ";") if mark in line), " ")
    path, _, label = line.rpartition(separator)
    return _ListLine(unquote(path), name=unquote(label)) if path else _ListLine(unquote(line))


def _named_columns(lines: Sequence[_ListLine]) -> tuple[list[Row], list[str]] | None:
    """Read ``video name ...`` where more than the name follows; None where nothing does."""
    if any(line.mark != lines[0].mark or line.mark is None for line in lines):
        return None
    if all(line.name is None for line in lines):
        return None
    return _spaced(lines) if lines[0].mark == " " else _delimited(lines, str(lines[0].mark))


def _spaced(lines: Sequence[_ListLine]) -> tuple[list[Row], list[str]] | None:
    """Read numbers that all lines have behind the name, as UCF-Crime's times; or its number in a list of classes."""
    words = [line.rest.split() for line in lines]
    behind = min(map(_numbers_at_end, words))
    names = [" ".join(row[: -_numbers_behind(row, behind)]) for row in words] if behind else []
    if not behind or not all(names):
        return None
    if behind == 1:  # "walking 0" and "running 1", but not "part 1" and "part 2"
        pairs = {(name, row[-1]) for name, row in zip(names, words, strict=True)}
        if not 1 < len(pairs) == len({name for name, _ in pairs}) == len({number for _, number in pairs}):
            return None
    notes = ["ignored: the numbers after each label" if behind > 1 else "left aside: the numbers"]
    return [Row(line.path, name) for line, name in zip(lines, names, strict=True)], notes


def _numbers_at_end(words: Sequence[str]) -> int:
    count = 0
    while count < len(words) and NUMBER.fullmatch(words[-1 - count]):
        count += 1
    return count


def _numbers_behind(words: Sequence[str], fewest: int) -> int:
    """Count the numbers behind a name, where all lines have some: one event's times, or several pairs of them."""
    count = _numbers_at_end(words)
    return count if fewest > 1 and (count - fewest) % 2 == 0 else fewest


def _delimited(lines: Sequence[_ListLine], mark: str) -> tuple[list[Row], list[str]] | None:
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
        column = only_label(cells, places, []) - 1
        left = ", ".join(f"column {place + 1}" for place in places if place != column + 1)
        return [Row(line.path, row[column]) for line, row in zip(lines, cells, strict=True)], [
            f"ignored: {left}"
        ]
    alone = {row[0].casefold() for row in cells if len(row) == 1}
    if mark != "\t" and not all(cell.casefold() in alone for row in cells for cell in row):
        return None  # commas of the labels' own
    return [Row(line.path, row[0], None, tuple(row[1:])) for line, row in zip(lines, cells, strict=True)], []


def _label_first(lines: Sequence[str], kind: Kind) -> tuple[list[Row], list[str]] | None:
    """Read ``label video``, where the disk has the video and nothing of the whole line's name."""
    parts = [line.rpartition(" ") for line in lines]
    if not all(label and BARE_VIDEO.match(path) for label, _, path in parts):
        return None
    looked = list(zip(lines, parts, strict=True))[:LOOKED_AT]
    if any(kind(line) for line, _ in looked) or not any(kind(path) for _, (_, _, path) in looked):
        return None
    return [
        Row(path, int(label) if tables.is_integer(label) else unquote(label)) for label, _, path in parts
    ], []


def _times_behind(lines: Sequence[str]) -> tuple[list[Row], list[str]] | None:
    """Read ``name label number number number number``, as UCF-Crime's without the videos' endings."""
    matches = [re.fullmatch(r"(\S+)\s+([^\d\s]\S*)((?:\s+-?[\d.]+){4,})", line) for line in lines]
    if not lines or not all(matches) or len({len(m[3].split()) for m in matches if m}) > 1:
        return None
    return [Row(m[1], m[2]) for m in matches if m], ["ignored: the numbers after each label"]


def _without_offsets(lines: list[_ListLine], kind: Kind) -> tuple[list[_ListLine], list[str]]:
    """Read ``folder offset count label``, where the disk says that the offset is no part of the path."""
    parts = [line.path.rpartition(" ") for line in lines]
    short = [
        path.rstrip() if path and tables.is_integer(last) else line.path
        for line, (path, _, last) in zip(lines, parts, strict=True)
    ]
    looked = list(zip(lines, short, strict=True))[:LOOKED_AT]
    if any(len(line.numbers) != 2 or line.path == path or kind(line.path) for line, path in looked):
        return lines, []
    if not any(kind(path) == "folder" for _, path in looked):
        return lines, []
    note = "ignored: the offsets; each folder is used as a whole"
    return [replace(line, path=path) for line, path in zip(lines, short, strict=True)], [note]


def _counts_frames(lines: Sequence[_ListLine], kind: Kind) -> bool:
    """Tell whether every line is ``folder count label``."""
    if not lines or any(len(line.numbers) != 2 for line in lines):
        return False
    kinds = {kind(line.path) for line in lines[:LOOKED_AT]}
    if "folder" in kinds:
        return True
    if "file" in kinds or all(line.is_video for line in lines):
        return False
    return all(line.numbers[0] >= _FEWEST_FRAMES for line in lines)
