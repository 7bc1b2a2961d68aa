"""Which files are videos, and which lie in a folder: one list of endings and one walk for every command.

A file counts as a video by its ending. A folder of images is a video, frame by frame, where nothing below the folder
that is searched ends like a video. Left out are hidden names and what systems leave behind (``__MACOSX``, ``@eaDir``).
A link to a folder is followed where it leads outside, not back up or to what is searched anyway; no folder is entered
twice.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from functools import cache
from glob import has_magic
from urllib.parse import unquote_to_bytes

from zsar_cli.run_log import NOTE
from zsar_cli.video.address import is_remote, scheme_of, suggestion
from zsar_cli.video.live_source import SCHEMES

logger = logging.getLogger(__name__)

# fmt: off
VIDEO_ENDINGS = frozenset((
    "3g2", "3gp", "3gpp", "264", "265", "amv", "apng", "asf", "avc", "avi", "avif", "avs2", "dav", "dif", "divx", "dv",
    "f4v", "flv", "gif", "gxf", "h264", "h265", "hevc", "ismv", "ivf", "m1v", "m2t", "m2ts", "m2v", "m4v", "mj2",
    "mjpeg", "mjpg", "mk3d", "mkv", "mov", "mp4", "mp4v", "mpe", "mpeg", "mpg", "mpv", "mts", "mxf", "nut", "obu",
    "ogm", "ogv", "qt", "rm", "rmvb", "tod", "trp", "ts", "vob", "vro", "webm", "webp", "wmv", "wtv", "xvid", "y4m",
))
# fmt: on
IMAGE_ENDINGS = frozenset(("bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"))
# What systems and tools leave beside people's files
# fmt: off
_LEFT_BEHIND = frozenset((
    "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information", "@recycle",
    "@__thumb", "@tmp", "network trash folder", "temporary items", "lost+found", "thumbs.db", "ehthumbs.db",
    "desktop.ini", "icon\r",
))
# fmt: on
_ADDRESS = re.compile(  # a path has but one of an address's two strokes
    r"([a-z][a-z0-9+.-]+)://|(https?|ftp|s3|gs|blob|data|magnet|pipe|rtsps?|rtmps?|rtp|udp|srt|concat):"
    r"|(www\.|youtu\.?be)",
    re.I,
)
_LOCAL = ("file", "data")  # schemes without a storage
_CAMERA = re.compile(r"\d{1,2}|(/dev/)?video\d+|v4l2:.*|(web)?cam(era)?\d*|screen|desktop", re.I)


def ending(name: str) -> str:
    """Find what follows the last dot, in small letters. Dots and blanks at the very end do not count."""
    return os.path.splitext(name.rstrip(". "))[1][1:].lower()


def left_out(name: str) -> bool:
    """Tell whether a file or folder of that name is nobody's: hidden, or left behind by a system."""
    return name.startswith((".", "~$")) or name.lower() in _LEFT_BEHIND


def is_video(folder: str, name: str) -> bool:
    """Tell whether a file counts as a video. Of the formats that hold stills too, it is looked at."""
    end = ending(name)
    return end in VIDEO_ENDINGS and (end not in ("webp", "avif") or _is_animated(os.path.join(folder, name)))


def _is_animated(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would never answer
            return False
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return False
    if head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2)
    return head[4:8] == b"ftyp" and b"avis" in head[8 : int.from_bytes(head[:4], "big")]


def image_names(folder: str) -> list[str]:
    """List the images that lie in a folder, unsorted.

    Raises:
        OSError: the folder cannot be read.
    """
    return [name for name in os.listdir(folder) if is_image(name)]


def is_image(name: str) -> bool:
    """Tell whether a file counts as a frame in a folder of them."""
    return ending(name) in IMAGE_ENDINGS and not left_out(name)


# --- folders ----------------------------------------------------------------------------------------------------


def walk(root: str, refused: list[str] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, names of its folders, names of its files), each sorted, from the top: ``os.walk`` without loops.

    Folders that cannot be entered are appended to ``refused``.
    """
    entered: set[tuple[int, int]] = set()
    top = os.path.realpath(root)
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            with os.scandir(folder) as entries:
                found = sorted((entry for entry in entries if not left_out(entry.name)), key=_name)
        except (OSError, ValueError):
            if refused is not None:
                refused.append(folder)
            continue
        entered.add((status.st_dev, status.st_ino))
        kinds = {entry.name: _kind(entry, top) for entry in found}
        folders = [name for name, kind in kinds.items() if kind == "folder"]
        yield folder, folders, [name for name, kind in kinds.items() if kind == "file"]
        waiting += [os.path.join(folder, name) for name in reversed(folders)]


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _kind(entry: os.DirEntry[str], top: str) -> str:
    try:
        if not entry.is_symlink():
            return "folder" if entry.is_dir() else "file"
        if not entry.is_dir():
            return "file"  # or leads nowhere, which its record says
        real = os.path.realpath(entry.path)
        inside = real == top or _is_below(real, top)
        hidden = inside and any(map(left_out, os.path.relpath(real, top).split(os.sep)))
        above = _is_below(os.path.realpath(os.path.dirname(entry.path)), real)
        return "folder" if not above and (hidden or not inside) else "other"
    except OSError:
        return "file"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def folders_in(folder: str | os.PathLike[str]) -> list[str]:
    """List the names of a folder's folders, sorted."""
    return next((folders for _, folders, _ in walk(os.fspath(folder))), [])


def videos_below(root: str) -> Iterator[str]:
    """Yield every video in a folder and its folders, in sorted order.

    A folder that cannot be entered stands for itself. Where no file ends like a video, each folder that holds images is
    one. What is passed over is logged in a line.
    """
    refused: list[str] = []
    frames: list[str] = []
    passed: Counter[str] = Counter()
    images: Counter[str] = Counter()
    empty = True
    for folder, _, names in walk(root, refused):
        stills = Counter[str]()
        for name in names:
            if is_video(folder, name):
                empty = False
                yield os.path.join(folder, name)
            elif is_image(name):
                stills[ending(name)] += 1
            else:
                passed[ending(name)] += 1
        if stills:
            frames.append(folder)
            images += stills
    if empty:
        yield from frames
    yield from refused
    tell_passed_over(root, passed if empty else passed + images)


def tell_passed_over(root: str, endings: Counter[str]) -> None:
    """Log how many files of a folder do not end like a video."""
    count = sum(endings.values())
    if count:
        kinds = [
            f"{number} .{end[:12]}" if end else f"{number} without extension"
            for end, number in endings.most_common(4)
        ]
        more = ", ..." if len(endings) > 4 else ""
        files = "1 file is" if count == 1 else f"{count} files are"
        _log_once(f"{root}: {files} skipped by extension ({', '.join(kinds)}{more}).")


@cache
def _log_once(message: str) -> None:
    logger.log(NOTE, "%s", message)


# --- what people name -------------------------------------------------------------------------------------------


def local_path(text: str) -> str:
    """Turn a ``file://`` address of this machine into a path. Anything else stays as it is."""
    match = re.match(r"file://(localhost)?(?=/)", text, re.IGNORECASE)
    if match is None:
        return text
    path = text[match.end() :]
    if os.path.lexists(path):
        return path
    return os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))


def why_unread(text: str) -> str | None:
    """Say why what someone names can be no file: an address or a camera. None where it might be one."""
    if os.path.lexists(text):
        return None
    if (scheme := scheme_of(text)) in SCHEMES:
        return "this is a live stream, which zsar predict watches as its only argument, and never from a list"
    if scheme is not None and not is_remote(text) and scheme not in _LOCAL:
        return f"this is a URL, and zsar reads nothing from {scheme}://{suggestion(scheme)}"
    if re.match(r"[a-z][a-z0-9+.-]+:/[^/]", text, re.I) and is_remote(text.replace(":/", "://", 1)):
        return "this is a URL that lost one of its two strokes, as pathlib takes it away; give it as a text"
    if _ADDRESS.match(text):
        return "this is a URL, which is not read here; download the video and give the file"
    if _CAMERA.fullmatch(text):
        return "no such file; a camera is watched by zsar predict as its only argument"
    return None


def matches(pattern: str) -> list[str]:
    """List the paths that a pattern stands for, sorted: ``*``, ``?`` and ``[a-z]`` in a name, ``**`` for any folders.

    The same names are left out as everywhere, unless the pattern writes their dot. Names with brackets in them may be
    written as they are.
    """
    parts = [part for part in pattern.split("/") if part]
    found = ["/" if pattern.startswith("/") else ""]
    refused: list[str] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            if not last:  # at the end: all that is in a folder, which is what the folder itself stands for
                found = list(
                    dict.fromkeys(below for folder in found for below in _folders_below(folder, refused))
                )
        elif has_magic(part):
            found = [path for folder in found for path in _named(folder, part)]
        else:
            found = [
                path for path in (os.path.join(folder, part) for folder in found) if os.path.lexists(path)
            ]
        if not last:
            found = [path for path in found if not path or os.path.isdir(path)]
    return sorted({path or "." for path in (*found, *refused)})


def _folders_below(folder: str, refused: list[str]) -> Iterator[str]:
    for path, _, _ in walk(folder or ".", refused):
        yield path if folder else "" if path == "." else path.removeprefix("./")


def _named(folder: str, part: str) -> list[str]:
    if "*" not in part and "?" not in part and os.path.lexists(os.path.join(folder, part)):
        return [os.path.join(folder, part)]
    try:
        names = fnmatch.filter(os.listdir(folder or "."), part)
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if part.startswith(".") or not left_out(name)]
