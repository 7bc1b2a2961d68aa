"""Which videos an argument stands for: a file, a directory, a pattern, or a list on standard input."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections.abc import Iterable, Iterator
from typing import IO

from zsar_cli.encodings import MARKS, encoding_of
from zsar_cli.errors import UsageError

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("3gp", "avi", "divx", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
_LINE_END = re.compile(rb"[\r\n]")


def find_videos(
    inputs: Iterable[str], stdin: IO[bytes] | None = None, *, null: bool = False
) -> Iterator[str]:
    """The videos that ``inputs`` stand for, lazily and in order; a path that came before does not come again.

    An input is a file, a directory (searched with its subdirectories for files that end like a video, in sorted
    order, hidden ones and links to other directories left out), a pattern such as ``clips/**/*.mp4``, or ``-``: a
    list on ``stdin`` with one path a line, or ended by NUL with ``null``. In a list, a path is taken literally. A
    directory that holds no video but images is passed on as one video, frame by frame. So is whatever does not
    exist or cannot be read, for its record to say so.

    Raises:
        UsageError: a named directory without videos, a pattern that matches nothing, or a list that is none.
    """
    seen: set[str] = set()
    for given in inputs:
        if given == "-":
            if stdin is None:
                raise UsageError("'-' reads a list of videos from standard input, and there is none.")
            found: Iterable[str] = (p for line in _entries(stdin, null) for p in _expand(line, listed=True))
        else:
            found = _expand(given, listed=False)
        for path in found:
            key = same_input(path)
            if key not in seen:
                seen.add(key)
                yield path


def same_input(path: str) -> str:
    """Equal for two spellings of one path, as ``./a.mp4`` and ``a.mp4``; links and ``..`` are left alone."""
    return path if ".." in path else os.path.normpath(path)


def _expand(given: str, *, listed: bool) -> Iterator[str]:
    if os.path.isdir(given):
        empty = True
        for path in _search(given):
            empty = False
            yield path
        if not empty:
            return
        if not listed and not _holds_images(given):
            raise UsageError(
                f"No videos in {given}; files count as videos by their ending, such as .mp4 or .mkv."
            )
        yield given
    elif not listed and glob.has_magic(given) and not os.path.lexists(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise UsageError(f"Nothing matches {given!r}; check the pattern.")
        for match in matches:
            yield from _search(match) if os.path.isdir(match) else (match,)
    else:
        yield given


def _search(directory: str) -> Iterator[str]:
    refused: list[str] = []
    for folder, folders, files in os.walk(directory, onerror=lambda error: refused.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                yield os.path.join(folder, name)
    yield from refused  # a directory that may not be entered: its record says so, rather than silence


def _holds_images(directory: str) -> bool:
    with os.scandir(directory) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in entries)


def _entries(stream: IO[bytes], null: bool) -> Iterator[str]:
    """Paths as soon as each is complete; bytes that are not UTF-8 survive.

    Raises:
        UsageError: what comes is no list of paths.
    """
    rest = b""
    for chunk in _pieces(stream, null):
        *complete, rest = (rest + chunk).split(b"\0") if null else _LINE_END.split(rest + chunk)
        for entry in complete:
            yield from _entry(entry, null)
    yield from _entry(rest, null)


def _pieces(stream: IO[bytes], null: bool) -> Iterator[bytes]:
    """The list as UTF-8, or as the bytes it has; PowerShell writes UTF-16."""
    # Unbuffered: a thread that waits inside a buffered reader's lock would stop the interpreter from ending
    source = getattr(stream, "raw", stream)
    chunk = source.read(65536)
    while (
        len(chunk) < 4 and any(mark.startswith(chunk) for mark, _ in MARKS) and (more := source.read(65536))
    ):
        chunk += more
    name, length = ("utf-8", 0) if null else encoding_of(chunk)
    decoder = codecs.getincrementaldecoder(name)() if name != "utf-8" else None
    chunk = chunk[length:]
    while chunk:
        if decoder is not None:
            try:
                chunk = decoder.decode(chunk).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"The list on standard input does not stay {name[:6].upper()} text."
                ) from error
        if (b"\0\0\0" if null else b"\0") in chunk:
            raise UsageError(
                "Standard input is no list of paths, one a line. To read a video, name its file; a list that "
                "find -print0 wrote needs --null."
            )
        yield chunk
        chunk = source.read(65536)


def _entry(entry: bytes, null: bool) -> Iterator[str]:
    if not null:
        entry = entry.removeprefix(codecs.BOM_UTF8)
        bare = entry.strip()
        if len(bare) > 2 and bare[:1] == bare[-1:] == b'"' and not os.path.lexists(entry):
            entry = bare[1:-1]  # as Windows copies a path
    if entry.strip():
        yield os.fsdecode(entry)
