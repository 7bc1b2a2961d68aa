"""What FFmpeg does not tell of a container: whether its picture is encrypted, and how long an AVI is."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

MOST_BOXES = 100_000
ENCRYPTED_ENTRIES = {b"encv", b"drmi"}  # MPEG's common encryption, iTunes
LONGEST_INDEX = 2**28  # bytes: some 16 million frames
VISUAL_ENTRY = 78  # bytes of a visual sample entry before the boxes inside it
SYNC = 0x47  # first byte of a packet of MPEG-TS
TS_PACKETS = (
    (188, 0),
    (192, 4),
    (204, 0),
)  # bytes of a packet, and of a time stamp before it (Blu-ray, AVCHD)
TS_LOOKED_AT = 2**20  # bytes


# --- MP4 ------------------------------------------------------------------------------------------------------


def is_encrypted(path: str) -> bool:
    """Tell whether the picture of an MP4 or MOV file is encrypted, by the entries that describe its samples."""
    try:
        with open(path, "rb") as file:
            return any(_entry_encrypted(kind, body) for kind, body in _visual_entries(file))
    except (OSError, struct.error):
        return False


def has_licence_data(path: str) -> bool:
    """Tell whether an MP4 or MOV file carries data of a licence (``pssh``), as protected videos do."""
    try:
        with open(path, "rb") as file:
            whole = (0, os.fstat(file.fileno()).st_size)
            paths = ((b"pssh",), (b"moov", b"pssh"), (b"moof", b"pssh"))
            return any(True for names in paths for _ in _find(file, whole, *names))
    except (OSError, struct.error):
        return False


def _visual_entries(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of every sample entry of the tracks that show something."""
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
    """Yield (start, end) of the content of every box that lies under these names, one inside the other."""
    for kind, start, end in _boxes(file, *part):
        if kind == names[0]:
            if len(names) == 1:
                yield start, end
            else:
                yield from _find(file, (start, end), *names[1:])


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start of its content, end) of the boxes that lie in a part of the file."""
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


# --- MPEG-TS --------------------------------------------------------------------------------------------------


def is_scrambled(path: str) -> bool:
    """Tell whether most packets of an MPEG-TS are scrambled, as pay TV is recorded: each packet says so itself."""
    try:
        with open(path, "rb") as file:
            start = file.read(TS_LOOKED_AT)
    except OSError:
        return False
    for size, before in TS_PACKETS:
        packets = np.frombuffer(start[: len(start) // size * size], np.uint8).reshape(-1, size)[:, before:]
        if len(packets) and (packets[:, 0] == SYNC).all():
            return bool(np.median(packets[:, 3] >> 7))  # 2 and 3: with the even or the odd key
    return False


# --- AVI ------------------------------------------------------------------------------------------------------


def avi_ticks(path: str, stream: int) -> int | None:
    """Count the ticks of its frame rate that a video stream lasts, frames that were dropped included.

    A dropped frame is an entry of the index without content, which FFmpeg passes over.

    Returns:
        None where there is no index, as in files that were cut short.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            place = 12
            for _ in range(MOST_BOXES):
                file.seek(place)
                head = file.read(8)
                if len(head) < 8 or head[:4] == b"RIFF":  # the rest of a large file has another kind of index
                    return None
                kind, length = struct.unpack("<4sI", head)
                if kind == b"idx1" and place + 8 + length <= size and length < LONGEST_INDEX:
                    return _entries(file.read(length), stream)
                place += 8 + length + length % 2
    except (OSError, struct.error):
        pass
    return None


def _entries(index: bytes, stream: int) -> int:
    names = np.frombuffer(index[: len(index) // 16 * 16], "S4")[::4]
    return int(np.isin(names, [f"{stream:02}{kind}".encode() for kind in ("dc", "db")]).sum())
