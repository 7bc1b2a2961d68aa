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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zsar_cli.errors import UsageError

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
_HMDB_FILE = re.compile(r"^(.+)_test_split([123])\.txt$")


@dataclass(frozen=True)
class Row:
    """One listed video. ``label`` is a number or a name as the list writes it, None where it gives none."""

    path: str
    label: int | str | None
    frame_count: int | None = None  # of a folder of frames


@dataclass(frozen=True)
class Listing:
    """A list as read: its rows, which form it had, and what identifies it in a result."""

    name: str
    format: str
    rows: tuple[Row, ...]
    hash: str  # first 16 hex digits of SHA-256 over the rows


def read_listing(path: str | Path, *, format: str = "auto", split: str = "test", fold: int = 1) -> Listing:
    """Read an annotation file or folder.

    Args:
        path: the file; a folder of HMDB51 split files; or a folder with one folder a class.
        format: one of :data:`FORMATS`, or "auto" to recognise it.
        split: "train" or "test", for forms that hold both (hmdb51, and kinetics with a ``split`` column).
        fold: which of HMDB51's three splits.

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
        try:
            text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        except OSError as error:
            message = f"The list {path} cannot be read ({error.strerror}). Check its path."
            raise UsageError(message) from error
        found = _recognise(path, text) if format == "auto" else format
        rows = _read_text(path, text, found, split, fold)
    if not rows:
        raise UsageError(f"{path} lists no video (read as {found!r}). Check the file, or name its format.")
    return Listing(path.name, found, tuple(rows), rows_hash(rows))


def rows_hash(rows: Iterable[Row]) -> str:
    """Identifies a list by what it says: line ends and separators make no difference."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.path}\t{row.label}\n".encode("utf-8", errors="surrogateescape"))
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
    except ValueError:
        return False
    return True


def _read_text(path: Path, text: str, format: str, split: str, fold: int) -> list[Row]:
    if format == "kinetics":
        return _read_kinetics(text, split)
    if format in ("ssv2", "json"):
        return _read_json(path, _load_json(path, text), format)
    if format == "hmdb51":
        match = _HMDB_FILE.match(path.name)
        if match is None:
            raise UsageError(f"{path.name} is not named CLASS_test_splitN.txt, as HMDB51's lists are.")
        return _read_hmdb_file(text, match[1], split)
    rows = parse_lines(text)
    if format == "ucf101":  # the folder names the class; the number beside it is only a check
        return [
            Row(row.path, row.path.replace("\\", "/").rsplit("/", 2)[-2]) if "/" in row.path else row
            for row in rows
        ]
    return rows


# --- path label ---------------------------------------------------------------------------------------------


def parse_lines(text: str, *, frames: bool | None = None) -> list[Row]:
    """Rows of a ``path label`` list.

    The file as a whole decides: where every line ends in an integer, that is the label; where every line is a
    path to a video and no more, there are no labels; else the label is the name that follows the path. Where
    a second integer precedes the label on every line, it counts frames (unless ``frames`` is False). A header
    line is left out. ``#`` starts file names, not comments.
    """
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text)]
    lines = [line for line in lines if line]
    if len(lines) > 1 and _is_header(lines[0]):
        lines = lines[1:]
    integers = [_INTEGER_END.match(line) for line in lines]
    if lines and all(integers):
        rows = [Row(_unquote(match[1]), int(match[2])) for match in integers if match]
        return _with_frame_counts(rows, frames)
    if all(_BARE_VIDEO.match(line) and not _AFTER_VIDEO.match(line) for line in lines):
        return [Row(_unquote(line), None) for line in lines]
    return [_named(line) for line in lines]


def _is_header(line: str) -> bool:
    if _BARE_VIDEO.match(line.strip('"')):
        return False
    return re.split(r"[\s,;]+", line)[-1].strip('"').lower() in _HEADER_LABELS


def _with_frame_counts(rows: list[Row], frames: bool | None) -> list[Row]:
    matches = [_INTEGER_END.match(row.path) for row in rows]
    if not all(matches) or frames is False:
        return rows
    counted = [Row(_unquote(m[1]), row.label, int(m[2])) for row, m in zip(rows, matches, strict=True) if m]
    return counted


def _named(line: str) -> Row:
    match = _AFTER_VIDEO.match(line)
    if match:
        label = _unquote(match[2])
        return Row(_unquote(match[1]), int(label) if re.fullmatch(r"-?\d+", label) else label)
    for separator in ("\t", ",", ";"):
        if separator in line:
            path, label = line.rsplit(separator, 1)
            return Row(_unquote(path), _unquote(label))
    path, _, label = line.rpartition(" ")
    return Row(_unquote(path), _unquote(label)) if path else Row(_unquote(line), None)


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
            rows += _read_hmdb_file(
                path.read_text(encoding="utf-8", errors="surrogateescape"), match[1], split
            )
    return rows


def _read_hmdb_file(text: str, name: str, split: str) -> list[Row]:
    wanted = {"train": (1,), "test": (2,), "all": (0, 1, 2)}.get(split, (2,))
    return [Row(f"{name}/{row.path}", name) for row in parse_lines(text, frames=False) if row.label in wanted]


def _load_json(path: Path, text: str) -> list:
    try:
        records = json.loads(text)
    except ValueError as error:
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
        if isinstance(label, list):
            label = label[0] if label else None
        frames = record.get("total_frames")
        label = label if isinstance(label, int) or label is None else str(label)
        rows.append(Row(str(video), label, int(frames) if frames is not None else None))
    return rows


def read_folders(folder: Path) -> list[Row]:
    """``folder/CLASS/**/video``: every video below a folder of its class's name, sorted."""
    rows = []
    for directory in sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."):
        for path in sorted(directory.rglob("*")):
            if path.suffix[1:].lower() in VIDEO_SUFFIXES and path.is_file():
                rows.append(Row(path.relative_to(folder).as_posix(), directory.name))
    return rows


# --- class maps ---------------------------------------------------------------------------------------------


def read_class_map(path: Path) -> tuple[str, ...]:
    """Class names in order: ``classInd.txt``, ``id,name`` CSV, SSv2 ``labels.json``, index maps, or lines.

    The number beside a name gives its place (from 0 or 1); rows without numbers keep their order.
    """
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        raw = json.loads(text)
        if isinstance(raw, list):
            return tuple(map(str, raw))
        pairs = [(int(k), str(v)) if str(k).isdigit() else (int(v), str(k)) for k, v in raw.items()]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines and re.fullmatch(
            r'"?(id|index)"?\s*[,;\t]\s*"?(name|class|label)"?', lines[0], re.IGNORECASE
        ):
            lines = lines[1:]
        matches = [re.match(r"^(\d+)\s*[,;:\s]\s*(.+)$", line) for line in lines]
        if not all(matches):
            return tuple(_unquote(line) for line in lines)
        pairs = [(int(m[1]), _unquote(m[2])) for m in matches if m]
    return tuple(name.replace("[", "").replace("]", "") for _, name in sorted(pairs))
