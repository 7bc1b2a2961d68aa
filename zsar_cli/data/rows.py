"""One listed video, and how the text of a list tells videos from labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zsar_cli.video.find import VIDEO_ENDINGS

Kind = Callable[[str], str | None]  # whether a listed path leads to a "file", a "folder" or nowhere (None)
LOOKED_AT = 200  # rows that are looked for on the disk

_SUFFIX = "|".join(sorted(VIDEO_ENDINGS))
AFTER_VIDEO = re.compile(rf'^(.*\.(?:{_SUFFIX})"?)([\s,;|:]+)(\S.*)$', re.IGNORECASE)
BARE_VIDEO = re.compile(rf"^.*\.(?:{_SUFFIX})$", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d*)?")
SPLITS = {
    "test": ("test", "testing", "val", "validate", "validation", "valid"),
    "train": ("train", "training"),
}


@dataclass(frozen=True)
class Row:
    """One listed video. ``label`` is a number or a name as the list writes it, None where it gives none."""

    path: str
    label: int | str | None
    frame_count: int | None = None  # of a folder of frames
    others: tuple[int | str, ...] = ()  # labels beyond the first


def of_split(split: str, names: Iterable[str]) -> str | None:
    """Choose which of a list's splits is wanted; None where it holds but one."""
    known = {name.lower(): name for name in names}
    if len(known) < 2:
        return None
    return next((known[name] for name in SPLITS.get(split, (split,)) if name in known), "")


def has_video(line: str) -> bool:
    """Tell whether a line is a video's path, or begins with one."""
    return bool(BARE_VIDEO.match(unquote(line)) or AFTER_VIDEO.match(line))


def unquote(text: str) -> str:
    """Strip the quotes around a cell."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text
