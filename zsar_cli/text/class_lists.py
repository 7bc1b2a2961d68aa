"""Class names: the built-in lists, the named splits of each, matching of names in different spellings."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS
from zsar_cli.yaml_files import parse

LISTS = ASSETS / "lists"


@dataclass(frozen=True)
class ClassList:
    """A data set's classes as readable phrases, other spellings of them, and its named splits."""

    name: str
    names: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)


def normalise_name(name: str) -> str:
    """Reduce a class name to what is left when case, blanks, underscores and punctuation are no difference.

    "ApplyEyeMakeup", "apply_eye_makeup" and "apply eye makeup" become one, as do "hurling (sport)" and
    "hurling_sport". Letters of any script stay, with the marks that belong to them: in many, vowels are marks.
    """
    if name.isascii():
        return "".join(filter(str.isalnum, name.lower()))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(x for x in folded if x.isalnum() or unicodedata.category(x).startswith("M"))


def list_names() -> list[str]:
    """List the built-in class lists."""
    return sorted(path.stem for path in LISTS.glob("*.yaml"))


@cache
def class_list(name: str) -> ClassList:
    """Load the built-in list of that name ("UCF-101" is "ucf101"). UsageError where there is none."""
    known = {normalise_name(known): known for known in list_names()}
    stem = known.get(normalise_name(name))
    if stem is None:
        raise UsageError(
            f"There is no built-in class list {name!r}; the lists are {', '.join(list_names())}."
        )
    raw = parse((LISTS / f"{stem}.yaml").read_text(encoding="utf-8"))
    names: list[str] = []
    aliases: dict[str, tuple[str, ...]] = {}
    for entry in raw["classes"]:
        if isinstance(entry, dict):
            ((entry, others),) = entry.items()
            aliases[entry] = tuple(others)
        names.append(entry)
    splits = {split: tuple(members) for split, members in raw.get("splits", {}).items()}
    return ClassList(stem, tuple(names), aliases, splits)


def class_names(list_name: str) -> tuple[str, ...]:
    """List the readable names of a built-in list, in the order that its integer labels count."""
    return class_list(list_name).names


class NameMatcher:
    """Finds the class that a name means, however it is written.

    Exact spelling wins; then the normalised one, unless two classes share it.
    """

    def __init__(self, names: Sequence[str], aliases: dict[str, tuple[str, ...]] | None = None) -> None:
        self._exact = {name: index for index, name in enumerate(names)}
        self._loose: dict[str, set[int]] = {}
        for index, name in enumerate(names):
            for spelling in (name, *(aliases or {}).get(name, ())):
                self._loose.setdefault(normalise_name(spelling), set()).add(index)

    def find(self, name: str) -> int | None:
        """Index of the class, or None where nothing, or more than one thing, has this name."""
        if name in self._exact:
            return self._exact[name]
        found = self._loose.get(normalise_name(name), set())
        return next(iter(found)) if len(found) == 1 else None
