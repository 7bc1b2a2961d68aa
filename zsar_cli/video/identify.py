"""What a file is that is no video, told by its bytes."""

from __future__ import annotations

import os
import re

LOOKED_AT = 4096  # bytes of the start

# What downloads that went wrong leave, and what is named like a video by mistake
PLAYLIST = "a playlist, not a video; name the files that it lists"
STARTS = (
    (rb"#EXTM3U|ffconcat version|\[playlist\]", PLAYLIST),
    (rb"version https://git-lfs", "a Git LFS pointer, not the video itself; fetch it with `git lfs pull`"),
    (
        rb"\.?[\w./-]*annex/objects/",
        "a git-annex pointer, not the video itself; fetch it with `git annex get`",
    ),
    (rb"outs:\s+- md5:", "a DVC pointer, not the video itself; fetch it with `dvc pull`"),
    (rb".{4}ftyp(?:heic|heix|heim|heis|mif1)", "a picture (HEIF), not a video"),
    (rb"ID3[\2-\4]", "a sound file (MP3), not a video"),
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


def what_it_is(path: str) -> str | None:
    """Say in half a sentence what a file is that is no video. None for whatever this does not know."""
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
    """Tell whether the middle and the end of a file are zeros, too."""
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
