"""Class lists: the names that benchmarks give their classes, the phrases a model is shown, and matching by name.

Sources disagree on the order of classes and on blanks, underscores, capitals and punctuation, so a class is
found by its :func:`match_key` and never by its position in somebody else's list.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from zsar_cli.errors import UsageError

LISTS = Path(__file__).parent / "lists"
MOTION_SHAPES = "motion-shapes"


def match_key(name: str) -> str:
    """What two spellings of a class have in common: its letters and digits, in lower case.

    ``ApplyEyeMakeup``, ``apply eye makeup`` and ``apply_eye_makeup`` agree, and so do ``hurling (sport)`` and
    the folder name ``hurling_sport``.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    # Marks (Indic vowel signs, for one) are not alphanumeric but tell words apart.
    return "".join(c for c in text if c.isalnum() or unicodedata.category(c)[0] == "M")


def readable(name: str) -> str:
    """A phrase from an identifier: CamelCase and underscores become words, in lower case.

    A name that has blanks already is a phrase and stays as it is; so does one of capitals only (``DIY``).
    """
    name = name.strip()
    if " " in name:
        return name
    words = re.sub(r"[_\-]+", " ", name)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words).strip()
    return words if words.isupper() else words.lower()


@dataclass(frozen=True)
class ClassList:
    """Classes in one order. ``names`` are the benchmark's own spelling, ``phrases`` what a text tower reads."""

    name: str
    title: str
    names: tuple[str, ...]
    phrases: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # split name -> names
    aliases: Mapping[str, str] = field(default_factory=dict)  # another spelling -> name

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int | None:
        """The place of the class with this name, phrase or alias, however it is spelt; None where there is none."""
        return _index(self).get(match_key(name))

    def indices(self, names: Iterable[str]) -> tuple[int, ...]:
        """The places of several names. Raises UsageError naming those that are no class here."""
        found = [(name, self.index(name)) for name in names]
        unknown = [name for name, place in found if place is None]
        if unknown:
            raise UsageError(
                f"not classes of {self.title}: {', '.join(unknown[:5])}{' ...' * (len(unknown) > 5)}"
            )
        return tuple(place for _, place in found if place is not None)


@cache
def _index_of(
    names: tuple[str, ...], phrases: tuple[str, ...], aliases: tuple[tuple[str, str], ...]
) -> dict[str, int]:
    index: dict[str, int] = {}
    # Names win over phrases: a phrase may by chance read like another class's name.
    for spelling in (names, phrases):
        for place, name in enumerate(spelling):
            index.setdefault(match_key(name), place)
    for other, name in aliases:
        if match_key(name) in index:
            index.setdefault(match_key(other), index[match_key(name)])
    return index


def _index(classes: ClassList) -> dict[str, int]:
    return _index_of(classes.names, classes.phrases, tuple(classes.aliases.items()))


def make_class_list(name: str, names: Sequence[str], *, title: str | None = None) -> ClassList:
    """A class list from names as a user writes them. Raises UsageError for none, an empty name, or two alike."""
    cleaned = tuple(str(n).strip() for n in names)
    if not cleaned or not all(cleaned):
        raise UsageError(f"{name}: a class list needs at least one name, and none may be empty")
    seen: dict[str, str] = {}
    for entry in cleaned:
        other = seen.setdefault(match_key(entry), entry)
        if other is not entry:
            raise UsageError(f"{name}: the classes {other!r} and {entry!r} cannot be told apart; rename one")
    return ClassList(name, title or name, cleaned, tuple(readable(n) for n in cleaned))


def builtin_lists() -> tuple[str, ...]:
    """The names of the class lists that ship with the package."""
    return (*sorted(path.stem for path in LISTS.glob("*.yaml")), MOTION_SHAPES)


def load_yaml(path: Path) -> Any:
    """One YAML document, safely. Raises UsageError with the file and the line."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=loader)  # noqa: S506 (both are safe loaders)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', error)})") from error


@cache
def load_class_list(name: str) -> ClassList:
    """A built-in class list. Raises UsageError naming those there are."""
    if name == MOTION_SHAPES:
        return _motion_shapes()
    path = LISTS / f"{name}.yaml"
    if name not in builtin_lists():
        raise UsageError(f"no class list is called {name!r}; there are {', '.join(builtin_lists())}")
    content = load_yaml(path)
    entries = content["classes"]
    names = tuple(entries)
    phrases = tuple(entries.values()) if isinstance(entries, dict) else names
    splits = {split: tuple(members) for split, members in content["splits"].items()}
    return ClassList(name, content["title"], names, phrases, splits, content.get("aliases") or {})


def _motion_shapes() -> ClassList:
    from zsar_cli.data import motion_shapes

    groups = {group: motion_shapes.class_labels(group) for group in ("seen", "unseen", "neither")}
    offered = groups["seen"] + groups["unseen"]
    ordered = tuple(c.label for c in motion_shapes.classes() if c.needs_order)
    splits = groups | {"ordered": ordered, "unordered": tuple(n for n in offered if n not in ordered)}
    everything = offered + groups["neither"]
    return ClassList(MOTION_SHAPES, "motion-shapes", everything, everything, splits)


def class_names(list_name: str) -> tuple[str, ...]:
    """The readable phrases of a built-in list, in its own order; of motion-shapes, those a model may be asked for."""
    classes = load_class_list(list_name)
    if list_name == MOTION_SHAPES:
        return classes.splits["seen"] + classes.splits["unseen"]
    return classes.phrases


def read_class_file(path: Path) -> tuple[str, ...]:
    """Class names, in the file's order, from any of the forms that class lists come in.

    CSV ``id,name`` (with or without a header; the row order counts, not the id), ``classInd.txt`` (``1 Name``),
    JSON or YAML (a list of names, ``{index: name}`` or ``{name: index}``), or one name a line.
    """
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return _names_of_mapping(path, load_yaml(path))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UsageError(f"cannot read the class list {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file in UTF-8") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if path.suffix.lower() == ".csv":
        rows = [row for row in csv.reader(lines) if len(row) >= 2]
        if rows and not rows[0][0].strip().isdigit():
            rows = rows[1:]  # the header
        return tuple(row[1].strip() for row in rows)
    numbered = [re.match(r"(\d+)\s+(\S.*)$", line) for line in lines]
    if lines and all(numbered):
        return tuple(match.group(2).strip() for match in numbered if match)
    return tuple(lines)


def _names_of_mapping(path: Path, content: Any) -> tuple[str, ...]:
    if isinstance(content, dict) and "classes" in content:
        content = content["classes"]
    if isinstance(content, list):
        return tuple(str(name) for name in content)
    if isinstance(content, dict) and content:
        if all(str(key).isdigit() for key in content):
            return tuple(str(content[key]) for key in sorted(content, key=lambda key: int(key)))
        if all(str(value).isdigit() for value in content.values()):
            return tuple(sorted(content, key=lambda name: int(content[name])))
        return tuple(str(name) for name in content)
    raise UsageError(f"{path}: expected a list of class names, or a map between names and numbers")


def resolve_classes(spec: Any, base: Path) -> ClassList:
    """The class list that a data definition means: a built-in name, a file beside the definition, or names."""
    if isinstance(spec, list):
        return make_class_list("classes", spec)
    if isinstance(spec, str):
        if spec in builtin_lists():
            return load_class_list(spec)
        path = base / Path(spec).expanduser()
        if path.is_file():
            return make_class_list(str(path), read_class_file(path), title=path.name)
        raise UsageError(
            f"classes: {spec!r} is neither a file ({path}) nor one of the built-in lists {', '.join(builtin_lists())}"
        )
    raise UsageError("classes: give a built-in list's name, a file, or a list of names")
