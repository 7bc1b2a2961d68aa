"""Expansion of arguments to videos: a file, a folder, a pattern, or a list; on this disk or in a storage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from glob import has_magic
from typing import IO, TypeAlias

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.prediction.lists import entries, kind_of_list, read_list
from zsar_cli.seen import SeenTexts
from zsar_cli.video.address import is_remote, public, scheme_of
from zsar_cli.video.find import local_path, matches, videos_below, why_unread

StrPath: TypeAlias = "str | os.PathLike[str]"


def find_videos(
    inputs: StrPath | Iterable[StrPath],
    stdin: IO[bytes] | None = None,
    *,
    null: bool = False,
    column: str | None = None,
) -> Iterator[str]:
    """Yield the videos of ``inputs``, lazily, in order, and without duplicates.

    An input is a file, a directory (searched recursively by :func:`zsar_cli.video.find.videos_below`), a pattern such
    as ``clips/**/*.mp4``, a list (:func:`zsar_cli.prediction.lists.read_list`), or ``-``: a list on ``stdin`` with one
    path per line, or terminated by NUL with ``null``. Each but the last may be an address in a storage, such as
    ``s3://bucket/clips/``. What a list names is taken literally, except folders; a folder in a storage ends with ``/``.
    A ``file://`` URL is the path of its file. Paths that do not exist or cannot be read are yielded too, so that they
    get a record with an error. However long a list is, it takes no more memory.

    Args:
        inputs: what people name.
        stdin: the list that ``-`` stands for.
        null: its paths end with NUL.
        column: of lists that are tables, the column that holds the videos.

    Raises:
        UsageError: a directory without videos, a pattern without matches, or a list that is none.
    """
    seen = SeenTexts()
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    try:
        for given in (os.fspath(one) for one in several):
            if given == "-":
                if stdin is None:
                    raise UsageError(
                        "'-' reads a list of videos from standard input, but standard input is closed."
                    )
                found: Iterable[str] = (
                    p for line in entries(stdin, null) for p in _expand(line, listed=True)
                )
            elif kind_of_list(given := local_path(given)) is not None:
                lines = read_list(given, column, null=null)
                found = (p for line in lines for p in _expand(line, listed=True))
            else:
                found = _expand(given, listed=False)
            yield from (path for path in found if seen.add(same_input(path)))
    finally:
        seen.close()


def is_list(given: str) -> bool:
    """Tell whether an argument stands for a list, which is read as it is needed: its videos are not known before."""
    return given == "-" or kind_of_list(local_path(given)) is not None


def same_input(path: str) -> str:
    """Normalise a path: ``./a.mp4`` and ``a.mp4`` are one; links and ``..`` are left alone. Of an address: its name."""
    if scheme_of(path) is not None:
        return public(path)
    return path if ".." in path else os.path.normpath(path)


def _expand(given: str, *, listed: bool) -> Iterator[str]:
    given = local_path(given)
    if is_remote(given):
        found = _in_storage(given, listed)
    elif os.path.isdir(given):
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
            f"No videos in {public(given)}; videos are recognised by their extension, such as .mp4 or .mkv."
        )
    if empty:
        yield given


def _in_storage(url: str, listed: bool) -> Iterator[str]:
    """Yield the videos that an address stands for. In a list it is an object, unless it ends with a stroke."""
    if listed and not url.endswith("/"):
        yield url
        return
    from zsar_cli.video import storage

    try:
        storage.file_system(url)
        folder = storage.is_pattern(url) or storage.is_folder(url)
        yield from storage.videos_below(url) if folder else (url,)
    except VideoError as error:
        if not listed:
            raise UsageError(f"{public(url)}: {error.message}.") from None
        yield url  # its record says so
    except UsageError:
        if not listed:
            raise
        yield url


def _matches(pattern: str) -> list[str]:
    found = matches(pattern)
    if not found:
        raise UsageError(f"Nothing matches {pattern!r}; check the pattern.")
    return found
