"""Expansion of arguments to videos: a file, a directory, a pattern, or a list on standard input."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from glob import has_magic
from typing import IO, TypeAlias

from zsar_cli.encodings import MARKS, encoding_of
from zsar_cli.errors import UsageError
from zsar_cli.video.find import local_path, matches, videos_below, why_unread

_LINE_END = re.compile(rb"[\r\n]")
StrPath: TypeAlias = "str | os.PathLike[str]"


def find_videos(
    inputs: StrPath | Iterable[StrPath], stdin: IO[bytes] | None = None, *, null: bool = False
) -> Iterator[str]:
    """Yield the videos of ``inputs``, lazily, in order, and without duplicates.

    An input is a file, a directory (searched recursively by :func:`zsar_cli.video.find.videos_below`), a pattern such
    as ``clips/**/*.mp4``, or ``-``: a list on ``stdin`` with one path per line, or terminated by NUL with ``null``.
    Paths in a list are taken literally. A ``file://`` URL is the path of its file. Paths that do not exist or cannot
    be read are yielded too, so that they get a record with an error.

    Raises:
        UsageError: a directory without videos, a pattern without matches, or standard input that is not a list.
    """
    seen: set[str] = set()
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    for given in (os.fspath(one) for one in several):
        if given == "-":
            if stdin is None:
                raise UsageError(
                    "'-' reads a list of videos from standard input, but standard input is closed."
                )
            found: Iterable[str] = (p for line in _entries(stdin, null) for p in _expand(line, listed=True))
        else:
            found = _expand(given, listed=False)
        for path in found:
            key = same_input(path)
            if key not in seen:
                seen.add(key)
                yield path


def same_input(path: str) -> str:
    """Normalise a path: ``./a.mp4`` and ``a.mp4`` are one; links and ``..`` are left alone."""
    return path if ".." in path else os.path.normpath(path)


def _expand(given: str, *, listed: bool) -> Iterator[str]:
    given = local_path(given)
    if os.path.isdir(given):
        found = videos_below(given)
    elif not listed and has_magic(given) and not os.path.lexists(given) and why_unread(given) is None:
        found = (
            path
            for match in _matches(given)
            for path in (videos_below(match) if os.path.isdir(match) else (match,))
        )
    else:
        yield given
        return
    empty = True
    for path in found:
        empty = False
        yield path
    if empty and not listed:
        raise UsageError(
            f"No videos in {given}; videos are recognised by their extension, such as .mp4 or .mkv."
        )
    if empty:
        yield given


def _matches(pattern: str) -> list[str]:
    found = matches(pattern)
    if not found:
        raise UsageError(f"Nothing matches {pattern!r}; check the pattern.")
    return found


def _entries(stream: IO[bytes], null: bool) -> Iterator[str]:
    """Yield paths as soon as each is complete; bytes that are not UTF-8 survive.

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
    """Read the list as UTF-8, or as the bytes it has; PowerShell writes UTF-16."""
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
                "Standard input is not a list with one path per line. Give a video as an argument; a list from "
                "find -print0 needs --null."
            )
        yield chunk
        chunk = source.read(65536)


def _entry(entry: bytes, null: bool) -> Iterator[str]:
    if not null:
        entry = entry.removeprefix(codecs.BOM_UTF8)
        bare = entry.strip()  # PowerShell fills lines up with blanks
        quoted = len(bare) > 2 and bare[:1] == bare[-1:] and bare[:1] in b"\"'"
        if quoted:
            bare = bare[1:-1]  # as Windows copies a path, and shells print one
        if b"\0" not in entry and not os.path.lexists(entry) and (quoted or os.path.lexists(bare)):
            entry = bare
    if entry.strip():
        yield os.fsdecode(entry)
