"""Checks of what people ask for, the same for the command line and for Python; each raises a UsageError."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from zsar_cli.errors import UsageError

DECODERS = ("auto", "decord", "pyav")
# The least and the most of what is asked for; the options of the command line show them
FRAMES = (1, 512)  # of a view
VIEWS = (1, 64)
BATCH_SIZE = (1, 4096)
TOP_K = (1, 1_000_000)
WORKERS = (0, 256)
TIMEOUT = (0.1, 86400.0)  # s
WINDOW = (0.01, 86400.0)  # s
SHARE = (0.0, 1.0)
SEED = (0, 2**63 - 1)
FPS = (0.001, 10_000.0)  # of a folder of frames


def whole(name: str, value: Any, limits: tuple[int, int]) -> int:
    """Check a whole number against its limits."""
    least, most = limits
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, not {brief(value)}.")
    return number


def number(name: str, value: Any, limits: tuple[float, float]) -> float:
    """Check a number against its limits; NaN is within none."""
    least, most = limits
    try:
        found = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not least <= found <= most:
        raise UsageError(f"{name} must be a number from {least:g} to {most:g}, not {brief(value)}.")
    return found


def byte_count(name: str, value: str) -> int:
    """Read a number of bytes, such as 500M, 2G or 1.5 GB; the letters count in thousands."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", value, re.I)
    count = int(float(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " ")) if found else 0
    if not 0 < count < 2**63:
        raise UsageError(f"{name} must be a number of bytes, such as 500M or 2G, not {brief(value)}.")
    return count


def truth(name: str, value: Any) -> bool:
    """Check for True or False, and nothing that Python would take for one."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {brief(value)}.")
    return value


def choice(name: str, value: Any, known: Sequence[Any]) -> Any:
    """Check for one of the values that there are."""
    if isinstance(value, bool) or not any(type(value) is type(k) and value == k for k in known):
        raise UsageError(f"{name} must be {' or '.join(map(str, known))}, not {brief(value)}.")
    return value


def text(name: str, value: Any) -> str:
    """Check a text, or a path as a text."""
    try:
        found = os.fspath(value)
    except TypeError:
        found = None
    if not isinstance(found, str) or not found:
        raise UsageError(f"{name} must be a name or a path, not {brief(value)}.")
    return found


def optional_text(name: str, value: Any) -> str | None:
    """Check a text or a path as :func:`text` does, where one is given."""
    return None if value is None else text(name, value)


def optional_path(name: str, value: Any) -> Path | None:
    """Check a path, where one is given."""
    return None if value is None else Path(text(name, value))


def video_path(value: Any) -> str:
    """Check the path of a video: a text, a path object or bytes."""
    try:
        path = os.fsdecode(value)
    except TypeError:
        path = ""
    if not path:
        raise UsageError(
            "A video is a path, frames (an array, a tensor or a list of PIL images), or a file open for reading bytes, "
            f"not {brief(value)}."
        )
    return path


def label_texts(labels: Any) -> list[str]:
    """Check labels that Python gives one by one: an ordered collection of texts."""
    unordered = isinstance(labels, (AbstractSet, Mapping, bytes, bytearray))
    if unordered or not isinstance(labels, Iterable):
        raise UsageError(
            f"labels must be a list of texts, or the name of a file or a built-in list, not {brief(labels)}."
        )
    found = list(labels)
    for label in found:
        if not isinstance(label, str):
            raise UsageError(f"Each label must be a text, not {brief(label)}.")
    if not found:
        raise UsageError("labels must hold at least one label.")
    return found


def brief(value: Any) -> str:
    """Format a value for an error: short, and by its kind where it is more than a number or a text."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        # Python refuses to spell out a number of thousands of digits
        shown = repr(value) if not isinstance(value, int) or abs(value) < 10**60 else "so large a number"
        return shown if len(shown) <= 60 else f"{shown[:60]}..."
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
