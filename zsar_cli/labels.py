"""Labels: what people call the actions, each with one or more phrases that describe it."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsar_cli import yaml_nodes
from zsar_cli.errors import UsageError
from zsar_cli.files import existing, read_text

FORMS = (".txt", ".csv", ".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Labels:
    """C labels and, for each, the phrases that stand for it in a prompt (the label itself, or descriptions)."""

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _Entry:
    name: str
    phrases: tuple[str, ...]
    where: str


def load_labels(spec: str | None, extra: Sequence[str] = ()) -> Labels:
    """Read labels from a file or a built-in list, and append ``extra``.

    ``spec`` is a text file (one label a line; lines that start with ``#`` and blank ones are skipped), a CSV whose
    column ``name`` holds the labels (``id,name``; the order of rows is what counts), a YAML or JSON list, a YAML or
    JSON map of label to description or descriptions, or the name of a built-in list. A map from numbers to
    ``"label: description"`` is read as that too.

    Raises:
        UsageError: nothing there, not readable as that kind, an empty list, an empty label or a duplicate one.
    """
    entries = _load(spec) if spec is not None else []
    entries += [_entry(label, [], f"--label {label!r}") for label in extra]
    if not entries:
        if spec is None:
            raise UsageError("No labels are given; use --labels FILE or --label TEXT.")
        raise UsageError(f"{spec} has no labels in it.")
    _refuse_duplicates(entries)
    return Labels(tuple(entry.name for entry in entries), tuple(entry.phrases for entry in entries))


def _load(spec: str) -> list[_Entry]:
    path = existing(spec)
    if path is None:
        return [_entry(name, [], spec) for name in _built_in(spec)]
    if path.is_dir():
        raise UsageError(f"{spec} is a directory; name a file of labels ({', '.join(FORMS)}).")
    text = read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(text, path)
    if suffix == ".json":
        return _read_map(yaml_nodes.read_json(text, path), path)
    if suffix in (".yaml", ".yml"):
        node = yaml_nodes.compose(text, path)
        return [] if node is None else _read_map(yaml_nodes.plain(node, path), path)
    return _read_lines(text, path)


def _built_in(spec: str) -> tuple[str, ...]:
    from zsar_cli.data.classes import class_names, list_names

    try:
        return class_names(spec)
    except UsageError as error:
        names = list_names()
        close = difflib.get_close_matches(spec.casefold(), names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"the lists are {', '.join(names)}."
        raise UsageError(f"{spec[:200]} is neither a file of labels nor a built-in list; {hint}") from error


def _read_lines(text: str, path: Path) -> list[_Entry]:
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [_entry(line, [], f"{path}, line {number}") for number, line in lines if line and line[0] != "#"]


def _read_csv(text: str, path: Path) -> list[_Entry]:
    reader = csv.reader(io.StringIO(text), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not cells[0].startswith("#"):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from error
    if not rows:
        return []
    header = [cell.casefold() for cell in rows[0][1]]
    if "name" in header:
        column, width, rows = header.index("name"), len(header), rows[1:]
    elif len(header) == 1:
        column, width = 0, 1
    elif len(header) == 2 and header[0].isdigit():
        column, width = 1, 2
    else:
        raise UsageError(f"{path}, line {rows[0][0]}: a CSV of labels starts with the header id,name.")
    for number, cells in rows:
        if len(cells) != width:
            raise UsageError(
                f"{path}, line {number}: {len(cells)} columns and not {width}; put a label with a comma in quotes."
            )
    return [_entry(cells[column], [], f"{path}, line {number}") for number, cells in rows]


def _read_map(content: Any, path: Path) -> list[_Entry]:
    """Entries of a list of labels, or of a map from label to description(s)."""
    if content is None:
        return []
    if isinstance(content, list):
        return [
            _entry(_text(item, path), [], f"{path}, entry {i}") for i, item in enumerate(content, start=1)
        ]
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds neither a list of labels nor a map of label to description.")
    numbered = all(key.isdigit() and isinstance(value, str) for key, value in content.items())
    if numbered:  # {"0": "label: description"} or {"0": "label"}
        pairs = (value.partition(":") for value in content.values())
        return [
            _entry(label, [text] if text.strip() else [], f"{path}, {label!r}") for label, _, text in pairs
        ]
    found = []
    for label, value in content.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        found.append(_entry(label, [_text(item, path) for item in values], f"{path}, {label!r}"))
    return found


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{path}: labels and descriptions are texts, and {str(value)[:60]!r} is none.")
    return value


def _entry(name: str, phrases: Iterable[str], where: str) -> _Entry:
    name = _clean(name, where)
    return _Entry(name, tuple(_clean(phrase, where) for phrase in phrases) or (name,), where)


def _clean(text: str, where: str) -> str:
    """A text with its blanks evened out; what no tokenizer or file could take is an error."""
    text = " ".join(text.split())
    if not text:
        raise UsageError(f"{where}: a label or description is empty.")
    if not all(letter.isprintable() or letter in "\u200b\u200c\u200d\u2060\ufeff\u00ad" for letter in text):
        raise UsageError(f"{where}: there is a character in it that cannot be printed; is the file damaged?")
    return text


def _refuse_duplicates(entries: Sequence[_Entry]) -> None:
    seen: dict[str, _Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.name.casefold(), entry)  # text towers read lower case
        if first is not entry:
            raise UsageError(f"The label {entry.name!r} is there twice ({first.where}; {entry.where}).")
