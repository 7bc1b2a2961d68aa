"""Class names as words in prompts, such as ``ApplyEyeMakeup`` and ``brush_hair``."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CAMEL = re.compile(r"(?:[A-Z][a-z]+){2,}")
_PIECE = re.compile(r"[A-Z][a-z]+")


def as_words(name: str) -> str:
    """Split a class name into words; a name that has spaces is unchanged.

    "ApplyEyeMakeup" is "apply eye makeup", "brush_hair" is "brush hair", "Baby_CrawlingFast" is "Baby crawling fast".
    """
    if " " in name:
        return name
    parts = [part for part in name.split("_") if part]
    said = (" ".join(_PIECE.findall(part)).lower() if _CAMEL.fullmatch(part) else part for part in parts)
    return " ".join(said) or name


def unsplit(name: str) -> str:
    """Write a class name in one piece, "apply eye makeup" as "ApplyEyeMakeup": some published models are asked so."""
    return "".join(word[:1].upper() + word[1:] for word in as_words(name).split())


def words_line(names: Sequence[str]) -> str | None:
    """Note that names are split into words, with an example; None if there are no such names."""
    changed = [name for name in names if as_words(name) != name]
    if not changed:
        return None
    return (
        f"{len(changed)} of {len(names)} labels are split into words in prompts, such as {changed[0]!r} into "
        f"{as_words(changed[0])!r}; records keep the original names."
    )
