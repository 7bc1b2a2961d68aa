"""Annotation files as people have them, read into rows of (path, label). No video is touched here.

The form is recognised by looking at the file, unless a definition names it:

=============  ==============================================================================================
``lines``      ``path label``: blank, tab, comma or semicolon; the label comes off the right end of the line
``frames``     ``directory count label``: folders of frame images
``kinetics``   CSV with a header that has ``youtube_id`` (and ``label``, times, ``split``)
``ucf101``     ``Class/v_Class_g01_c01.avi``, with or without a 1-based label
``hmdb51``     a folder of ``CLASS_test_splitN.txt``: ``NAME.avi 1`` is training, 2 is test, 0 unused
``ssv2``       JSON list of ``{"id", "label", "template"}``
``json``       JSON list of ``{"filename" or "video_dir" or "video" or "path", "label"}``
``folders``    a directory with one folder a class
=============  ==============================================================================================
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zsar_cli.errors import UsageError
from zsar_cli.files import read_text

FORMATS = ("lines", "frames", "kinetics", "ucf101", "hmdb51", "ssv2", "json", "folders")
# fmt: off
VIDEO_SUFFIXES = frozenset({
    "mp4", "avi", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "ts", "mts", "m2ts", "wmv", "flv", "gif", "3gp",
    "ogv", "mp4v", "vob", "asf", "divx",
})
# fmt: on
_SUFFIX = "|".join(sorted(VIDEO_SUFFIXES))
_AFTER_VIDEO = re.compile(rf'^(.*\.(?:{_SUFFIX})"?)[\s,;]+(\S.*)$', re.IGNORECASE)
_BARE_VIDEO = re.compile(rf"^.*\.(?:{_SUFFIX})$", re.IGNORECASE)
_INTEGER_END = re.compile(r"^(.*?\S)\s*(?:[,;]\s*|\s)(-?\d+)$")
_HEADER_LABELS = frozenset({"label", "labels", "class", "class_id", "label_id", "category", "target"})
_LONGEST = 1_000_000_000  # bytes of a list: 10 million rows
_HMDB_FILE = re.compile(r"^(.+)_test_split([123])\.txt$")


@dataclass(frozen=True)
class Row:
    """One listed video. ``label`` is a number or a name as the list writes it, None where it gives none."""

    path: str
    label: int | str | None
    frame_count: int | None = None  # of a folder of frames
    others: tuple[int | str, ...] = ()  # labels beyond the first


@dataclass(frozen=True)
class Listing:
    """A list as read: its rows, which form it had, and what identifies it in a result."""

    name: str
    format: str
    rows: tuple[Row, ...]
    hash: str  # first 16 hex digits of SHA-256 over the rows
    folder: str = ""  # that the list lies in: in some data sets it names the split


def read_listing(
    path: str | Path,
    *,
    format: str = "auto",
    split: str = "test",
    fold: int = 1,
    kind: Callable[[str], str | None] = lambda path: None,
) -> Listing:
    """Read an annotation file or folder.

    Args:
        path: the file; a folder of HMDB51 split files; or a folder with one folder a class.
        format: one of :data:`FORMATS`, or "auto" to recognise it.
        split: "train" or "test", for forms that hold both (hmdb51, and kinetics with a ``split`` column).
        fold: which of HMDB51's three splits.
        kind: tells whether a listed path leads to a "file", a "folder" or (None) nowhere.

    Raises:
        UsageError: nothing can be read there, or the form is none of those above.
    """
    path = Path(path)
    if format not in ("auto", *FORMATS):
        raise UsageError(f"Unknown list format {format!r}. Choose from: auto, {', '.join(FORMATS)}.")
    if path.is_dir():
        hmdb = format == "hmdb51" or (format == "auto" and any(map(_hmdb_file, path.iterdir())))
        found = "hmdb51" if hmdb else "folders"
        rows = _read_hmdb(path, split, fold) if hmdb else read_folders(path)
    else:
        text = read_text(path, limit=_LONGEST, keep_bytes=True)
        found = _recognise(path, text) if format == "auto" else format
        rows = _read_text(path, text, found, split, kind)
    if not rows:
        raise UsageError(f"{path} lists no video (read as {found!r}). Check the file, or name its format.")
    return Listing(path.name, found, tuple(rows), rows_hash(rows), path.resolve().parent.name)


def rows_hash(rows: Iterable[Row]) -> str:
    """Identifies a list by what it says: line ends and separators make no difference."""
    digest = hashlib.sha256()
    for row in rows:
        label = "\t".join(map(str, (row.label, *row.others)))
        digest.update(f"{row.path}\t{label}\n".encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _recognise(path: Path, text: str) -> str:
    start = text.lstrip()[:1]
    if path.suffix.lower() == ".json" or (start in ("[", "{") and _is_json(text)):
        records = _load_json(path, text)
        return "ssv2" if isinstance(records[0], dict) and "id" in records[0] else "json"
    if "youtube_id" in text.split("\n", 1)[0].lower():
        return "kinetics"
    if _HMDB_FILE.match(path.name):
        return "hmdb51"
    if re.match(r"(test|train)list\d+\.txt$", path.name):
        return "ucf101"
    return "lines"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _read_text(
    path: Path, text: str, format: str, split: str, kind: Callable[[str], str | None]
) -> list[Row]:
    if format == "kinetics":
        try:
            return _read_kinetics(text, split)
        except (csv.Error, ValueError, OverflowError) as error:
            raise UsageError(f"{path} is not a CSV of the Kinetics form ({error}).") from error
    if format in ("ssv2", "json"):
        return _read_json(path, _load_json(path, text), format)
    if format == "hmdb51":
        match = _HMDB_FILE.match(path.name)
        if match is None:
            raise UsageError(f"{path.name} is not named CLASS_test_splitN.txt, as HMDB51's lists are.")
        return _read_hmdb_file(text, match[1], split)
    rows = parse_lines(text, frames={"frames": True, "ucf101": False}.get(format), kind=kind)
    if format == "ucf101":  # the folder names the class; the number beside it is only a check
        return [
            Row(row.path, row.path.replace("\\", "/").rsplit("/", 2)[-2]) if "/" in row.path else row
            for row in rows
        ]
    return rows


# --- path label ---------------------------------------------------------------------------------------------

_FEWEST_FRAMES = 8  # that a number before the label must reach to be taken for a count of frames


def parse_lines(
    text: str, *, frames: bool | None = None, kind: Callable[[str], str | None] = lambda path: None
) -> list[Row]:
    """Rows of a ``path label`` list.

    A line ends in numbers, in the name that follows a path to a video, or holds a path and no more. Two numbers
    at the end are a count of frames and a label where ``frames`` says so, or, without it, where every line has
    them and the path leads to a folder (``kind`` gives "folder", "file" or None for a path), or at least the
    counts are plausible. Else several numbers after a video's name are several labels, and after any other
    path only the last is a label. A header line is left out; ``#`` starts file names, not comments.
    """
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]
    lines = [line for line in lines if line]
    if len(lines) > 1 and _is_header(lines[0]):
        lines = lines[1:]
    parsed = [_split_line(line) for line in lines]
    if frames is None:
        frames = _counts_frames(parsed, kind)
    return [line.row(frames) for line in parsed]


@dataclass(frozen=True)
class _Line:
    path: str
    numbers: tuple[int, ...] = ()  # at the end of the line, where it has no name
    name: str | None = None
    longer: str = ""  # the path with all numbers but the last, as they are written

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
        return _Line(_unquote(line))
    if match := _AFTER_VIDEO.match(line):
        path, label = _unquote(match[1]), _unquote(match[2])
        parts = [part for part in re.split(r"[\s,;]+", label) if part]
        if all(re.fullmatch(r"-?\d+", part) for part in parts):
            return _Line(path, tuple(map(int, parts)))
        return _Line(path, name=label)
    if last := _INTEGER_END.match(line):
        longer = _unquote(last[1])
        if count := _INTEGER_END.match(last[1]):
            return _Line(_unquote(count[1]), (int(count[2]), int(last[2])), longer=longer)
        return _Line(longer, (int(last[2]),))
    separator = next((mark for mark in ("\t", ",", ";") if mark in line), " ")
    path, _, label = line.rpartition(separator)
    return _Line(_unquote(path), name=_unquote(label)) if path else _Line(_unquote(line))


def _counts_frames(lines: Sequence[_Line], kind: Callable[[str], str | None]) -> bool:
    """Whether every line is ``folder count label``."""
    if not lines or any(len(line.numbers) != 2 for line in lines):
        return False
    kinds = {kind(line.path) for line in lines[:200]}
    if "folder" in kinds:
        return True
    if "file" in kinds or all(line.is_video for line in lines):
        return False
    return all(line.numbers[0] >= _FEWEST_FRAMES for line in lines)


def _is_header(line: str) -> bool:
    if _BARE_VIDEO.match(line.strip('"')):
        return False
    return re.split(r"[\s,;]+", line)[-1].strip('"').lower() in _HEADER_LABELS


def _unquote(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


# --- the benchmarks' own forms ------------------------------------------------------------------------------


def _read_kinetics(text: str, split: str) -> list[Row]:
    """Official CSV: clips are named ``ID_START_END`` on disk; some test files lack the label column."""
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    records = [{(k or "").strip().lower(): (v or "").strip() for k, v in r.items() if k} for r in reader]
    names = {record.get("split", "") for record in records}
    if len(names) > 1:  # one file that holds several splits
        wanted = {"test": ("test", "val", "validate", "validation"), "train": ("train",)}.get(split, (split,))
        chosen = next((name for name in wanted if name in names), None)
        records = [record for record in records if record.get("split", "") == chosen]
    rows = []
    for record in records:
        path = record.get("youtube_id", "")
        if record.get("time_start") and record.get("time_end"):
            start, end = float(record["time_start"]), float(record["time_end"])
            path = f"{path}_{int(start):06d}_{int(end):06d}"
        if path:
            rows.append(Row(path, record.get("label") or None))
    return rows


def _hmdb_file(path: Path) -> bool:
    return _HMDB_FILE.match(path.name) is not None


def _read_hmdb(folder: Path, split: str, fold: int) -> list[Row]:
    rows: list[Row] = []
    for path in sorted(folder.iterdir()):
        match = _HMDB_FILE.match(path.name)
        if match and int(match[2]) == fold:
            rows += _read_hmdb_file(read_text(path, keep_bytes=True), match[1], split)
    return rows


def _read_hmdb_file(text: str, name: str, split: str) -> list[Row]:
    wanted = {"train": (1,), "test": (2,), "all": (0, 1, 2)}.get(split, (2,))
    return [Row(f"{name}/{row.path}", name) for row in parse_lines(text, frames=False) if row.label in wanted]


def _load_json(path: Path, text: str) -> list:
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({error}).") from error
    if isinstance(records, dict):  # {"clip.mp4": "label"} or {"annotations": [...]}
        nested = next((value for value in records.values() if isinstance(value, list)), None)
        records = nested or [{"path": key, "label": value} for key, value in records.items()]
    if not isinstance(records, list) or not records or not all(isinstance(r, dict) for r in records):
        raise UsageError(f"{path} must hold a list of records with a video and a label each.")
    return records


def _read_json(path: Path, records: list, format: str) -> list[Row]:
    rows = []
    for number, record in enumerate(records, 1):
        if format == "ssv2":
            label = record.get("template") or record.get("label")
            video = f"{record['id']}.webm" if "id" in record else None
        else:
            label = record.get("label")
            video = next(
                (record[k] for k in ("filename", "video_dir", "video", "path", "frame_dir") if k in record),
                None,
            )
        if video is None:
            raise UsageError(
                f"Record {number} of {path} names no video (looked for id, filename, video, path)."
            )
        labels = label if isinstance(label, list) else [] if label is None else [label]
        labels = [entry if isinstance(entry, int) else str(entry) for entry in labels]
        frames = record.get("total_frames")
        try:
            count = int(frames) if frames is not None else None
        except (ValueError, TypeError, OverflowError):
            raise UsageError(f"Record {number} of {path} has {frames!r} as total_frames.") from None
        rows.append(Row(str(video), labels[0] if labels else None, count, tuple(labels[1:])))
    return rows


def read_folders(folder: Path) -> list[Row]:
    """``folder/CLASS/**/video``: every video below a folder of its class's name, sorted."""
    rows = []
    for directory in sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."):
        for path in sorted(directory.rglob("*")):
            if path.suffix[1:].lower() in VIDEO_SUFFIXES and path.is_file():
                rows.append(Row(path.relative_to(folder).as_posix(), directory.name))
    return rows
