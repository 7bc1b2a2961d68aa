"""Classes out of JSON and YAML: lists and maps, from or to numbers, or a part of something larger."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsar_cli import yaml_files
from zsar_cli.encodings import lines_of
from zsar_cli.errors import UsageError, shown
from zsar_cli.text import tables

# Keys that hold the classes inside something larger, and those of one class's record
_HOLDERS = (
    *("id2label", "label2id", "names", "class_names", "classes", "categories", "labels", "class_to_idx"),
    *("idx_to_class", "label_map", "labelmap"),
)
_RECORD_NAMES = (
    "name",
    "label",
    "class_name",
    "class",
    "display_name",
    "title",
    "action",
    "category",
    "value",
)
_RECORD_NUMBERS = ("id", "index", "class_id", "label_id", "number", "value", "label", "class")
_NUMBER = re.compile(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?")
_CODE = re.compile(r"[A-Za-z]\d{3,}")
_RECORD_PHRASES = ("descriptions", "description", "phrases", "prompts")
_SETS = ("spatial", "temporal")  # of descriptors, in this order


@dataclass(frozen=True)
class Entry:
    """A class as its file has it, not cleaned yet."""

    name: str
    phrases: tuple[str, ...]
    where: str
    number: int | None = None


def json_or_lines(text: str, path: Path) -> Any:
    """Read a JSON document, or one a line."""
    lines = [line for line in lines_of(text) if line.strip()]
    if len(lines) > 1 and all(
        line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines
    ):
        return [yaml_files.read_json(line, path) for line in lines]
    return yaml_files.read_json(text, path)


def entries_of(content: Any, path: Path) -> list[Entry]:
    """Read a list of labels, or a map from label to description(s), from or to numbers."""
    if content is None:
        return []
    if isinstance(content, list):
        return _of_list(content, path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds neither a list of labels nor a map of label to description.")
    if (inner := _held(content)) is not None:
        return entries_of(inner, path)
    return _of_map(content, path)


def _held(content: dict[str, Any]) -> Any:
    """Find the list or map of classes inside something larger; None where this map is one itself."""
    known = {key.casefold(): value for key, value in content.items()}
    for key in _HOLDERS:
        if isinstance(known.get(key), (list, dict)) and known[key]:
            return known[key]
    if any(isinstance(value, dict) for value in content.values()) and not _all_records(content.values()):
        for value in content.values():
            if isinstance(value, dict) and (found := _held(value)) is not None:
                return found
    return None


def _all_records(values: Iterable[Any]) -> bool:
    return all(map(_is_record, values))


def _of_map(content: dict[str, Any], path: Path) -> list[Entry]:
    values = list(content.values())
    keyed = all(map(tables.is_integer, content))
    if keyed and values and _all_records(values):
        return _of_list([{"id": key, **value} for key, value in content.items()], path)
    if values and all(
        isinstance(value, list) and len(value) == 1 and _is_number(value[0]) for value in values
    ):
        content = {name: number for name, (number,) in content.items()}
        values = list(content.values())
    numbers = bool(values) and all(map(_is_number, values))
    if numbers and keyed:
        counted = sorted(map(int, values))
        keyed = counted not in (list(range(len(values))), list(range(1, len(values) + 1)))
    if numbers and not keyed:
        return by_number([_numbered_entry(name, value, path) for name, value in content.items()])
    if keyed and all(isinstance(value, str) for value in values):
        pairs = [(key, *value.partition(": ")) for key, value in content.items()]
        entries = [_numbered_entry(name, key, path, text) for key, name, _, text in pairs]
        return by_number(entries)
    if keyed and values and (named := _of_coded_pairs(content, path)):
        return named
    if len(values) > 1:
        if _are_codes(content) and not _are_codes(values):
            return [Entry(_text(value, path), (), f"{path}, {code!r}") for code, value in content.items()]
        if _are_codes(values):
            return [Entry(name, (), f"{path}, {name!r}") for name in content]
    return _of_descriptions(content, keyed, path)


def _of_descriptions(content: dict[str, Any], keyed: bool, path: Path) -> list[Entry]:
    """Read names with their descriptions: a text, a list of texts, or a map of a class's own."""
    values = list(content.values())
    if keyed and any(isinstance(value, list) for value in values):
        raise UsageError(f"{path}: numbers have descriptions but no names; replace the numbers by names.")
    mixed = next((v for v in values if isinstance(v, str) and _NUMBER.fullmatch(v)), None)
    if mixed is not None:
        raise UsageError(
            f"{path}: some labels have a number ({shown(mixed)}) instead of a description; "
            "number all of them or none."
        )
    if values and all(isinstance(value, dict) for value in values):
        return by_number([_of_inner(name, value, path) for name, value in content.items()])
    found = []
    for label, value in content.items():
        texts = value if isinstance(value, list) else [] if value is None else [value]
        found.append(Entry(label, tuple(_text(item, path) for item in texts), f"{path}, {label!r}"))
    return found


def _of_coded_pairs(content: dict[str, Any], path: Path) -> list[Entry]:
    """Read ImageNet's ``{"0": ["n01440764", "tench"]}``; none where the values are no such pairs."""
    values = content.values()
    if not all(isinstance(v, list) and len(v) == 2 and all(isinstance(x, str) for x in v) for v in values):
        return []
    if not _are_codes(code for code, _ in values):
        return []
    return by_number([_numbered_entry(name, key, path) for key, (_, name) in content.items()])


def _are_codes(texts: Iterable[Any]) -> bool:
    """Tell whether all are codes such as "c001" and "n01440764", of one letter."""
    letters = {_CODE.fullmatch(text) and text[0] if isinstance(text, str) else None for text in texts}
    return len(letters) == 1 and None not in letters


def _of_inner(name: str, record: dict[str, Any], path: Path) -> Entry:
    """Read ``run: {id: 0}``, ``run: {description: ...}`` or ``run: {spatial: [...], temporal: [...]}``."""
    number = next((record[key] for key in _RECORD_NUMBERS if _is_number(record.get(key))), None)
    phrases: Any = _descriptors(record, f"{path}, {name!r}") or next(
        (record[key] for key in (*_RECORD_PHRASES, "label") if record.get(key)), []
    )
    if number is not None and phrases == number:
        phrases = []
    if number is None and not phrases:
        _text(record, path)  # says that it is none
    texts = phrases if isinstance(phrases, list) else [phrases]
    return Entry(
        name,
        tuple(_text(item, path) for item in texts),
        f"{path}, {name!r}",
        None if number is None else int(number),
    )


def _descriptors(record: dict[str, Any], where: str) -> list[Any]:
    """List the spatial descriptors of a class and then as many temporal ones; none where it has no such sets."""
    sets = [record.get(kind) for kind in _SETS]
    if not any(isinstance(one, list) for one in sets):
        return []
    if not all(isinstance(one, list) and one for one in sets) or len(sets[0]) != len(sets[1]):  # type: ignore[arg-type]
        raise UsageError(
            f"{where}: there must be a list of spatial and one of temporal descriptors, equally long."
        )
    return [text for one in sets for text in one or ()]


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and tables.is_integer(value)


def _numbered_entry(name: str, number: str, path: Path, text: str = "") -> Entry:
    phrases = (text,) if text.strip() else ()
    return Entry(without_brackets(name), phrases, f"{path}, {name!r}", int(number))


def _of_list(content: list[Any], path: Path) -> list[Entry]:
    if content and all(isinstance(item, dict) for item in content):
        if all(len(item) == 1 and not {*item} & {*_RECORD_NAMES, *_RECORD_NUMBERS} for item in content):
            return _of_map({key: value for item in content for key, value in item.items()}, path)
        return by_number([_of_record(item, i, path) for i, item in enumerate(content, start=1)])
    pairs = [item for item in content if isinstance(item, list) and len(item) == 2]
    if content and len(pairs) == len(content):
        for name, number in ((0, 1), (1, 0)):
            if all(_is_number(p[number]) for p in pairs):
                return by_number([_numbered_entry(_text(p[name], path), p[number], path) for p in pairs])
    return [Entry(_text(item, path), (), f"{path}, entry {i}") for i, item in enumerate(content, start=1)]


def _of_record(record: dict[str, Any], place: int, path: Path) -> Entry:
    names = [record[key] for key in _RECORD_NAMES if record.get(key) is not None]
    if not names:
        raise UsageError(f"{path}, entry {place}: a class needs a name.")
    name = next((name for name in names if isinstance(name, str) and not tables.is_integer(name)), names[0])
    number = next((record[key] for key in _RECORD_NUMBERS if record.get(key) not in (None, name)), None)
    phrases: Any = _descriptors(record, f"{path}, entry {place}") or next(
        (record[key] for key in _RECORD_PHRASES if record.get(key) is not None), []
    )
    return Entry(
        _text(name, path),
        tuple(_text(item, path) for item in (phrases if isinstance(phrases, list) else [phrases])),
        f"{path}, entry {place}",
        int(number) if number is not None and _is_number(number) else None,
    )


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), str) for key in _RECORD_NAMES)


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{path}: labels and descriptions must be strings, not {str(value)[:60]!r}.")
    return value


def entries_of_text_proto(text: str, path: Path) -> list[Entry]:
    """Read TensorFlow's label maps: ``item { id: 1 name: 'run' }``."""
    entries: list[Entry] = []
    for block in re.findall(r"\{([^{}]*)\}", text):
        fields = dict(re.findall(r"(\w+)\s*:\s*(\"[^\"]*\"|'[^']*'|\S+)", block))
        name = fields.get("display_name") or fields.get("name")
        number = fields.get("id") or fields.get("label_id")
        if name is None:
            raise UsageError(f"{path}, entry {len(entries) + 1}: a class needs a name.")
        name = name.strip("\"'")
        integer = int(number) if number is not None and tables.is_integer(number) else None
        entries.append(Entry(name, (), f"{path}, {name!r}", integer))
    return by_number(entries)


def by_number(entries: list[Entry]) -> list[Entry]:
    """Sort classes by their numbers; as they are where one has none."""
    if any(entry.number is None for entry in entries):
        return entries
    return sorted(entries, key=lambda entry: entry.number or 0)


def without_brackets(name: str) -> str:
    """Strip the brackets that Something-Something writes: "Moving [something] up"."""
    return re.sub(r"\[([^\[\]]*)\]", r"\1", name)
