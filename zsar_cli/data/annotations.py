"""Annotation files as people have them, read into rows of (path, label). No video is touched here.

The form is recognised by looking at the file, unless a definition names it:

=============  ==============================================================================================
``lines``      ``path label`` with any separator and more columns, with or without a header
``frames``     ``directory count label``: folders of frame images
``kinetics``   CSV with a header that has ``youtube_id`` (and ``label``, times, ``split``)
``ucf101``     ``Class/v_Class_g01_c01.avi``, with or without a 1-based label
``hmdb51``     a folder of ``CLASS_test_splitN.txt``: ``NAME.avi 1`` is training, 2 is test, 0 unused
``ssv2``       JSON list of ``{"id", "label", "template"}``
``json``       JSON or JSON Lines of ``{"filename" or "video_dir" or "video" or "path" ..., "label"}``
``folders``    a directory with one folder a class
=============  ==============================================================================================
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zsar_cli.data.lines import parse_lines, read_lines
from zsar_cli.data.rows import Kind, Row, of_split
from zsar_cli.data.video_records import clip_name, is_json, load_records, read_records
from zsar_cli.errors import UsageError
from zsar_cli.files import read_text
from zsar_cli.text import tables
from zsar_cli.text.labels import clean
from zsar_cli.video.find import image_names, videos_below

logger = logging.getLogger(__name__)

FORMATS = ("lines", "frames", "kinetics", "ucf101", "hmdb51", "ssv2", "json", "folders")
_LONGEST = 1_000_000_000  # bytes of a list: 10 million rows
_HMDB_FILE = re.compile(r"^(.+)_test_split([123])\.txt$")


@dataclass(frozen=True)
class Listing:
    """A list as read: its rows, which form it had, and what identifies it in a result."""

    name: str
    format: str
    rows: tuple[Row, ...]
    hash: str  # first 16 hex digits of SHA-256 over the rows
    folder: str = ""  # that the list lies in: in some data sets it names the split
    notes: tuple[str, ...] = ()  # what was ignored


def read_listing(
    path: str | Path,
    *,
    format: str = "auto",
    split: str = "test",
    fold: int = 1,
    kind: Kind = lambda path: None,
    label_column: str | None = None,
) -> Listing:
    """Read an annotation file or folder.

    Args:
        path: the file; a folder of HMDB51 split files; or a folder with one folder a class.
        format: one of :data:`FORMATS`, or "auto" to recognise it.
        split: "train" or "test", for forms that hold both (hmdb51, and tables with a ``split`` column).
        fold: which of HMDB51's three splits.
        kind: tells whether a listed path leads to a "file", a "folder" or (None) nowhere.
        label_column: name or number (from 1) of the column with the label, where a list has several; in JSON, a key.

    Raises:
        UsageError: nothing can be read there, the form is none of those above, or the label may be in several columns.
    """
    path = Path(path)
    if format not in ("auto", *FORMATS):
        raise UsageError(f"Unknown list format {format!r}. Choose from: auto, {', '.join(FORMATS)}.")
    notes: list[str] = []
    if path.is_dir():
        hmdb = format == "hmdb51" or (format == "auto" and any(map(_hmdb_file, path.iterdir())))
        found = "hmdb51" if hmdb else "folders"
        rows = _read_hmdb(path, split, fold) if hmdb else read_folders(path)
    else:
        text = read_text(path, limit=_LONGEST, keep_bytes=True)
        found = _recognise(path, text) if format == "auto" else format
        try:
            rows, notes = _read_text(path, text, found, split, kind, label_column)
        except UsageError as error:
            raise error if str(path.name) in str(error) else UsageError(f"{path}: {error}") from error
    if not rows:
        raise UsageError(f"{path} lists no video (read as {found!r}). Check the file, or give its format.")
    rows = _with_clean_labels(rows, path)
    return Listing(path.name, found, tuple(rows), rows_hash(rows), path.resolve().parent.name, tuple(notes))


def _with_clean_labels(rows: list[Row], path: Path) -> list[Row]:
    """Clean names as they are shown and embedded; an empty one stays, and names no class."""
    names = {x for row in rows for x in (row.label, *row.others) if isinstance(x, str) and x.strip()}
    cleaned = {name: clean(name, str(path)) for name in names}
    if all(name == other for name, other in cleaned.items()):
        return rows

    def of(label: int | str | None) -> Any:
        return cleaned.get(label, label) if isinstance(label, str) else label

    return [replace(row, label=of(row.label), others=tuple(map(of, row.others))) for row in rows]


def rows_hash(rows: Iterable[Row]) -> str:
    """Hash a list by its rows: line ends and separators make no difference."""
    digest = hashlib.sha256()
    for row in rows:
        label = "\t".join(map(str, (row.label, *row.others)))
        digest.update(f"{row.path}\t{label}\n".encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _recognise(path: Path, text: str) -> str:
    start = text.lstrip()[:1]
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or (start in ("[", "{") and is_json(text)):
        records = load_records(path, text)
        return "ssv2" if "id" in records[0] and "template" in records[0] else "json"
    if re.search(r"(?i)\byoutube_id\b", text.lstrip().split("\n", 1)[0]):
        return "kinetics"
    if _HMDB_FILE.match(path.name):
        return "hmdb51"
    if re.match(r"(test|train)list\d+\.txt$", path.name):
        return "ucf101"
    return "lines"


def _read_text(
    path: Path, text: str, format: str, split: str, kind: Kind, label_column: str | None
) -> tuple[list[Row], list[str]]:
    if format == "kinetics":
        try:
            return _read_kinetics(text, split, label_column), []
        except (csv.Error, ValueError, OverflowError) as error:
            raise UsageError(f"{path} is not a CSV in the Kinetics format ({error}).") from error
    if format in ("ssv2", "json"):
        return read_records(path, load_records(path, text), format, split, label_column)
    if format == "hmdb51":
        match = _HMDB_FILE.match(path.name)
        if match is None:
            raise UsageError(f"{path.name} is not named CLASS_test_splitN.txt, as HMDB51's lists are.")
        return _read_hmdb_file(text, match[1], split), []
    frames = {"frames": True, "ucf101": False}.get(format)
    rows, notes = read_lines(text, frames=frames, kind=kind, split=split, label_column=label_column)
    if format == "ucf101":  # the folder names the class; the number beside it is only a check
        rows = [
            Row(row.path, row.path.replace("\\", "/").rsplit("/", 2)[-2]) if "/" in row.path else row
            for row in rows
        ]
    return rows, notes


# --- the benchmarks' own forms ------------------------------------------------------------------------------


def _read_kinetics(text: str, split: str, label_column: str | None) -> list[Row]:
    """Read the official CSV: clips are named ``ID_START_END`` on disk; some test files lack the label column."""
    said, text = tables.said_mark(text)
    text = text.lstrip()
    mark = said or max(tables.MARKS, key=text.split("\n", 1)[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=mark)
    records = [{(k or "").strip().lower(): (v or "").strip() for k, v in r.items() if k} for r in reader]
    wanted = of_split(split, {record.get("split", "") for record in records})
    if wanted is not None:
        records = [record for record in records if record.get("split", "") == wanted]
    column = (label_column or "label").lower()
    if label_column and records and column not in records[0]:
        raise UsageError(
            f"--label-column {label_column!r} is not a column of the list; it has {', '.join(records[0])}."
        )
    paths = [
        (clip_name(r.get("youtube_id", ""), r.get("time_start"), r.get("time_end")), r.get(column))
        for r in records
    ]
    return [Row(path, label or None) for path, label in paths if path]


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


def read_folders(folder: Path) -> list[Row]:
    """List ``folder/CLASS/**/video``: what ``zsar predict`` would find there, by the folder of its class, sorted."""
    rows = []
    loose = 0
    for path in videos_below(os.fspath(folder)):
        name = Path(os.path.relpath(path, folder)).as_posix()
        if name == "." or ("/" not in name and not os.path.isdir(path)):
            loose += 1
            continue
        frames = None
        if os.path.isdir(path):
            with suppress(OSError):  # what cannot be listed is said of the clip
                frames = len(image_names(path))
        rows.append(Row(name, name.split("/")[0], frames))
    if loose:
        logger.warning("%s: %d videos are in no class folder and are skipped.", folder, loose)
    return sorted(rows, key=lambda row: row.path.split("/"))
