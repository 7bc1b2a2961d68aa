"""Where listed videos lie below a root, however its folders are arranged."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath

from zsar_cli.text.class_lists import normalise_name
from zsar_cli.video.find import VIDEO_ENDINGS, ending, local_path, walk

# Kinetics clips are named for their YouTube id, with or without the times they were cut at.
_CUT = re.compile(r"^(.{11})_\d{6}_\d{6}$")


class VideoIndex:
    """Finds videos by the path a list gives; the tree is walked once, when a path does not lead there."""

    def __init__(self, root: Path, base: Path | None = None) -> None:
        self.root = root
        self.base = base or root

    def within(self, base: Path) -> VideoIndex:
        """Give the same tree, for a list whose paths start from ``base``."""
        other = VideoIndex(self.root, base)
        if "_tree" in self.__dict__:
            other.__dict__["_tree"] = self._tree
        return other

    @cached_property
    def _tree(self) -> tuple[list[Path], dict[str, list[Path]], dict[str, list[Path]]]:
        """Every other file (lists); videos by stem, case-folded stem and Kinetics id; folders by name."""
        others: list[Path] = []
        videos: dict[str, list[Path]] = defaultdict(list)
        folders: dict[str, list[Path]] = defaultdict(list)
        for directory, names, files in walk(os.fspath(self.root)):
            here = Path(directory)
            for name in names:
                folders[name].append(here / name)
            for name in files:
                if ending(name) in VIDEO_ENDINGS:
                    stem = name.rpartition(".")[0]
                    cut = _CUT.match(stem)
                    for key in {stem, stem.casefold(), cut[1] if cut else stem}:
                        videos[key].append(here / name)
                elif ending(name) in ("txt", "csv", "json"):
                    others.append(here / name)
        return others, videos, folders

    def find_list(self, pattern: str) -> Path | None:
        """Find the list of that name (``*`` allowed; ``folder/name`` too): the one nearest to the root."""
        direct = self.root / pattern
        if os.path.isfile(direct):
            return direct
        found = [
            p for p in self._tree[0] if fnmatch(p.name, pattern) or fnmatch(p.as_posix(), f"*/{pattern}")
        ]
        return min(found, key=lambda path: (len(path.parts), str(path)), default=None)

    def kind(self, listed: str) -> str | None:
        """Tell whether a list's path leads to a "file" or a "folder"; None where nothing has that name."""
        listed = local_path(listed)
        for start in (self.base, self.root):
            if os.path.exists(
                start / listed
            ):  # os.path, which takes names that cannot be for names of nothing
                return "folder" if os.path.isdir(start / listed) else "file"
        name = PurePosixPath(listed.replace("\\", "/")).name
        _, videos, folders = self._tree
        if name in folders:
            return "folder"
        return "file" if any(path.name == name for path in videos.get(PurePosixPath(name).stem, [])) else None

    def find(self, listed: str, class_name: str, *, frames: bool = False, exact: bool = False) -> Path | None:
        """Find the video (with ``frames``: or folder of frames) that a list's path means; None where it is not there.

        It may lie elsewhere below the root, unless the path is ``exact``.
        """
        listed = local_path(listed)
        for start in (self.base, self.root):
            direct = start / listed
            if os.path.isfile(direct) or (frames and os.path.isdir(direct)):
                return direct
        if exact:
            return None
        wanted = PurePosixPath(listed.replace("\\", "/"))
        _, videos, folders = self._tree
        stem = wanted.stem if wanted.suffix[1:].lower() in VIDEO_ENDINGS else wanted.name
        cut = _CUT.match(stem)
        # An id alone stands for its clip; cut clips of other times do not stand for this one.
        keys = [stem, cut[1]] if cut else [stem, stem.casefold()]
        for key in keys:
            found = videos.get(key, [])
            if cut and key != stem:
                found = [path for path in found if path.stem == key]
            if len(stem) == 11 and key != stem:
                found = []  # YouTube ids differ in case alone
            if found:
                return _nearest(found, wanted, class_name)
        found = folders.get(wanted.name, []) if frames else []
        return _nearest(found, wanted, class_name) if found else None


def _nearest(found: Iterable[Path], wanted: PurePosixPath, class_name: str) -> Path:
    """Choose among files of one name: the folders agree best with the list, then with the class."""

    def agreement(path: Path) -> tuple[int, bool, bool]:
        shared = 0
        for mine, theirs in zip(reversed(path.parts[:-1]), reversed(wanted.parts[:-1]), strict=False):
            if mine != theirs:
                break
            shared += 1
        own_folder = normalise_name(path.parent.name) == normalise_name(class_name)
        return shared, own_folder, path.name == wanted.name

    return max(found, key=agreement)
