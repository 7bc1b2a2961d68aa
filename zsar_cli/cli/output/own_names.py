"""Unique names for one file per video in a folder."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from zsar_cli.files import shortened
from zsar_cli.video.address import public

LONGEST = 255  # bytes of a name on most file systems
SPARE = 16  # of them for an ending


class OwnNames:
    """Unique names for the files of videos, relative to a folder and without extension.

    A video that is an input itself gives its file name. A video in an input folder gives its path with the folder's
    name first: ``cam1`` gives ``cam1/clip``. A video inside ``folder`` gives its path there, so that its file lies
    beside it. Videos that would share a name get the path from the common parent of all inputs (``cam1/clip``,
    ``cam2/clip``), and keep their extension if that is still ambiguous. The order of the videos does not matter.

    If the videos are not known in advance (a list on standard input), all names have the last of these forms.
    """

    def __init__(
        self, inputs: Sequence[str], videos: Sequence[str] | None = None, folder: str | Path | None = None
    ) -> None:
        videos = None if videos is None else list(map(public, videos))  # as records call them
        self._own = None if folder is None else _absolute(os.fspath(folder))
        themselves = set(videos or ())  # a folder of images is a video itself
        folders = (given for given in inputs if given not in themselves and os.path.isdir(given))
        self._folders = {_absolute(folder) for folder in folders}
        self._given: dict[str, str] = {}
        parents = [os.path.dirname(folder) for folder in self._folders] or [os.getcwd()]
        if videos is not None:
            parents = [os.path.dirname(self._root(_absolute(video))) for video in videos] or parents
        try:
            self._common = os.path.commonpath(parents)
        except ValueError:  # on two drives
            self._common = ""
        self._known: dict[str, str] = {}
        forms = (self._by_input, self._by_common, self._with_ending)
        left = list(videos or ())
        used: set[str] = set()
        for form in forms:
            names: dict[str, list[str]] = {}
            for video in left:
                names.setdefault(_same(form(video)), []).append(video)
            alone = {key: same[0] for key, same in names.items() if len(same) == 1 and key not in used}
            self._known |= {video: form(video) for video in alone.values()}
            used |= set(alone)
            left = [video for video in left if video not in self._known]
        self._known |= {video: f"{self._with_ending(video)}-{_digest(video)}" for video in left}

    def of(self, video: str) -> str:
        """Return the name for a video, with ``/`` between folders; valid on any file system."""
        name = self._known.get(video) or self._with_ending(video)
        if self._given.setdefault(_same(name), video) != video:  # that is only told while names come in
            name += f"-{_digest(video)}"
        return "/".join(_safe(part, video) for part in name.split("/"))

    def _root(self, path: str) -> str:
        """Find the input folder that contains the path; the path itself if none does."""
        holding = [folder for folder in self._folders if _inside(path, folder)]
        return max(holding, key=len, default=path)

    def _by_input(self, video: str) -> str:
        path = _absolute(video)
        if self._own is not None and _inside(path, self._own):
            return _without_ending(_relative(path, self._own), video)
        return _without_ending(_relative(path, os.path.dirname(self._root(path))), video)

    def _by_common(self, video: str) -> str:
        return _without_ending(self._with_ending(video), video)

    def _with_ending(self, video: str) -> str:
        return _relative(_absolute(video), self._common)


def _absolute(path: str) -> str:
    return os.path.abspath(path)


def _relative(path: str, folder: str) -> str:
    """Return the path relative to a parent folder, else from the root; never with ``..``."""
    inside = folder and _inside(path, folder)
    relative = os.path.relpath(path, folder) if inside else os.path.splitdrive(path)[1].lstrip(os.sep)
    return relative.replace(os.sep, "/")


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _without_ending(name: str, video: str) -> str:
    folder, _, last = name.rpartition("/")
    stem = last if os.path.isdir(video) else Path(last).stem
    return f"{folder}/{stem}" if folder else stem


def _same(name: str) -> str:
    """Fold case and Unicode composition, which some file systems ignore in names."""
    return unicodedata.normalize("NFC", name).casefold()


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


_WINDOWS = re.compile(r'[<>:"\\|?*]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)', re.IGNORECASE)


def _safe(part: str, video: str) -> str:
    """Make a path component that every file system accepts; one that is too long is cut and gets a hash."""
    if os.name == "nt":
        part = _WINDOWS.sub("_", part)
    if len(os.fsencode(part)) > LONGEST - SPARE:
        part = f"{shortened(part, LONGEST - SPARE - 10)}-{_digest(part)}"
    return part or _digest(video)
