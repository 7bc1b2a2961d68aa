"""What a file is that is no video, or that nobody here can play, told by its bytes."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

LOOKED_AT = 4096  # bytes of the start
MOST_BOXES = 100_000

# What downloads that went wrong leave, and what is named like a video by mistake
STARTS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the video itself; fetch it with `git lfs pull`"),
    (rb"%PDF-", "a PDF document, not a video"),
    (rb"%!PS", "a PostScript file, not a video"),
    (rb"PK\x03\x04", "a ZIP archive (or an Office document), not a video; unpack it first"),
    (rb"Rar!\x1a\x07", "a RAR archive, not a video; unpack it first"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive, not a video; unpack it first"),
    (rb"\x1f\x8b", "a gzip archive, not a video; unpack it first"),
    (rb"BZh[1-9]", "a bzip2 archive, not a video; unpack it first"),
    (rb"\xfd7zXZ\0", "an xz archive, not a video; unpack it first"),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive, not a video; unpack it first"),
    (rb"bplist00", "a property list (perhaps of a file that is still in iCloud), not a video"),
    (rb"d\d+:\w+.*:(?:announce|pieces)", "a torrent file, not a video"),
    (rb"\x89HDF\r\n", "an HDF5 file, not a video"),
    (rb"SQLite format 3\0", "a database, not a video"),
    (rb"\x7fELF|MZ", "a program, not a video"),
)
TEXTS = (
    (
        r"(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b",
        "a web page (HTML), not a video; the download went wrong",
    ),
    (r"<\?xml[^>]*>\s*<Error>|<Error>", "an error message (XML), not a video; the download went wrong"),
    (r"<\?xml|<[A-Za-z][\w:.-]*[\s>/]", "an XML file, not a video"),
    (r"""\{\s*["'}]|\[\s*[\[{"\d\]]""", "a JSON file, not a video; the download may have gone wrong"),
)
ENCRYPTED_ENTRIES = {b"encv", b"drmi"}  # MPEG's common encryption, iTunes
VISUAL_ENTRY = 78  # bytes of a visual sample entry before the boxes inside it


def what_it_is(path: str) -> str | None:
    """Half a sentence about a file that is no video; None for whatever this does not know."""
    try:
        with open(path, "rb") as file:
            start = file.read(LOOKED_AT)
    except OSError:
        return None
    if not start:
        return None
    for pattern, what in STARTS:
        if re.match(pattern, start, re.DOTALL):
            return what
    if not start.strip(b"\0"):
        return "empty inside (nothing but zeros); the download may not have ended" if _zeros(path) else None
    text = _as_text(start)
    if text is None:
        return None
    for form, what in TEXTS:
        if re.match(form, text.lstrip(), re.IGNORECASE | re.DOTALL):
            return what
    return "a text file, not a video"


def _zeros(path: str) -> bool:
    """Whether the middle and the end of a file are zeros, too."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        for place in (size // 2, max(size - LOOKED_AT, 0)):
            file.seek(place)
            if file.read(LOOKED_AT).strip(b"\0"):
                return False
    return True


def _as_text(start: bytes) -> str | None:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if start.startswith(mark):
            return start.decode(encoding, "ignore")
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4 or len(start) < LOOKED_AT:
            return None
        text = start[: error.start].decode("utf-8")  # a character that was cut in two
    odd = sum(character < " " and character not in "\t\n\r\f\x1b" for character in text)
    return text if not odd else None


# --- encryption in MP4 ----------------------------------------------------------------------------------------


def is_encrypted(path: str) -> bool:
    """Whether the picture of an MP4 or MOV file is encrypted, by the entries that describe its samples."""
    try:
        with open(path, "rb") as file:
            return any(_entry_encrypted(kind, body) for kind, body in _visual_entries(file))
    except (OSError, struct.error):
        return False


def has_licence_data(path: str) -> bool:
    """Whether an MP4 or MOV file carries data of a licence (``pssh``), as protected videos do."""
    try:
        with open(path, "rb") as file:
            whole = (0, os.fstat(file.fileno()).st_size)
            paths = ((b"pssh",), (b"moov", b"pssh"), (b"moof", b"pssh"))
            return any(True for names in paths for _ in _find(file, whole, *names))
    except (OSError, struct.error):
        return False


def _visual_entries(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of every sample entry of the tracks that show something."""
    whole = (0, os.fstat(file.fileno()).st_size)
    for movie in _find(file, whole, b"moov"):
        for media in _find(file, movie, b"trak", b"mdia"):
            for start, _ in _find(file, media, b"hdlr"):
                file.seek(start + 8)
                if file.read(4) not in (b"vide", b"pict", b"auxv"):
                    break
            else:
                for start, end in _find(file, media, b"minf", b"stbl", b"stsd"):
                    for kind, first, last in _boxes(file, start + 8, end):
                        file.seek(first)
                        yield kind, file.read(min(last - first, 2**16))
        return


def _find(file: BinaryIO, part: tuple[int, int], *names: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of the content of every box that lies under these names, one inside the other."""
    for kind, start, end in _boxes(file, *part):
        if kind == names[0]:
            if len(names) == 1:
                yield start, end
            else:
                yield from _find(file, (start, end), *names[1:])


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of its content, end) of the boxes that lie in a part of the file."""
    for _ in range(MOST_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head = 16
        elif size == 0:
            size = end - start
        if size < head:
            return
        yield kind, start + head, min(start + size, end)
        start += size


def _entry_encrypted(kind: bytes, body: bytes) -> bool:
    if kind in ENCRYPTED_ENTRIES:
        return True
    place = VISUAL_ENTRY
    while place + 8 <= len(body):
        size, inner = struct.unpack_from(">I4s", body, place)
        if inner == b"sinf":  # protection scheme information
            return True
        if size < 8:
            return False
        place += size
    return False
