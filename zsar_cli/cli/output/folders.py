"""Folders with one file per video: subtitles, and the sheets of ``--explain``."""

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
    """A folder with one file per video; existing files are not replaced.

    Args:
        videos: all videos if they are known, for unique names and to notice existing files before any work.
        own: tells whether an existing file was written for this video by an earlier run and may be replaced.
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
                raise UsageError(f"{path} is a file; give a folder with {option}.")
        self._refuse_taken(v for v in videos or () if not own(self.path(v), v))

    def _refuse_taken(self, videos: Iterable[str]) -> None:
        names = (str(self.path(video).relative_to(self.folder)) for video in videos)
        refuse_taken_inside(self.folder, names, overwrite=self.overwrite, option=self.option)

    def path(self, video: str) -> Path:
        """Return the path of a video's file."""
        return self.folder / f"{self._names.of(video)}.{self.ending}"

    def write(self, video: str, content: bytes) -> Path:
        """Write one video's file atomically and return its path. UsageError if it cannot be written."""
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
    """Create a folder and lock it for this run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{folder} cannot be created: {reason}. Choose another folder for {option}."
        ) from error
    return Lock(folder)


def write_subtitles(folder: VideoFolder, record: dict[str, Any]) -> None:
    """Write one video's subtitles, named after the video so that players find them; a failed video has none."""
    if "error" not in record:
        text = subtitles(record, folder.ending)
        folder.write(record["video"], text.encode("utf-8", "backslashreplace"))
