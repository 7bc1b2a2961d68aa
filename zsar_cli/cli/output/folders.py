"""Folders with a file for each video: subtitles, and the pictures of ``--explain``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zsar_cli.cli.output.own_names import OwnNames
from zsar_cli.cli.output.timelines import subtitles
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write
from zsar_cli.outputs import Lock, may_replace, refuse_taken_inside


class VideoFolder:
    """A folder in which each video has a file of its own; nothing that is there already is replaced.

    Args:
        videos: all of them where they are known, so that their names tell them apart and what is there already is
            noticed before any work.
        own: tells whether a file that is there is what an earlier run said about this video, and may be replaced.
    """

    def __init__(
        self,
        folder: Path,
        ending: str,
        inputs: Sequence[str],
        videos: Sequence[str] | None = None,
        *,
        overwrite: bool = False,
        own: Callable[[Path, str], bool] = lambda path, video: False,
        option: str = "--output",
    ) -> None:
        self.folder, self.ending, self.overwrite, self.option = folder, ending, overwrite, option
        self.count = 0
        self._own = own
        self._names = OwnNames(inputs, videos, folder)
        for path in (folder, *folder.parents):
            if path.exists() and not path.is_dir():
                raise UsageError(f"{path} is a file; name a folder with {option}.")
        self._refuse_taken(v for v in videos or () if not own(self.path(v), v))

    def _refuse_taken(self, videos: Iterable[str]) -> None:
        names = (str(self.path(video).relative_to(self.folder)) for video in videos)
        refuse_taken_inside(self.folder, names, overwrite=self.overwrite, option=self.option)

    def path(self, video: str) -> Path:
        """Locate the file about a video."""
        return self.folder / f"{self._names.of(video)}.{self.ending}"

    def write(self, video: str, content: bytes) -> Path:
        """Write one video's file, whole or not at all, and tell where. UsageError where it cannot be."""
        path = self.path(video)
        own = self._own(path, video)
        if not own:
            self._refuse_taken([video])
        replace = own or may_replace(path, self.overwrite)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, replace=replace) as aside:
                aside.write_bytes(content)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(f"{path} cannot be written: {reason}. Choose another {self.option}.") from error
        self.count += 1
        return path


def lock(folder: Path, option: str) -> Lock:
    """Make a folder and hold it for this run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{folder} cannot be made: {reason}. Choose another folder for {option}.") from error
    return Lock(folder)


def write_subtitles(folder: VideoFolder, record: dict[str, Any]) -> None:
    """Write one video's subtitles, named like the video so that players find them; a failed video has none."""
    if "error" not in record:
        text = subtitles(record, folder.ending)
        folder.write(record["video"], text.encode("utf-8", "backslashreplace"))
