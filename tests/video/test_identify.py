"""What a file is that is no video, or that nobody can play without a key."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video_files import patched, write_video
from zsar_cli.errors import VideoError
from zsar_cli.video.boxes import avi_ticks, has_licence_data, is_encrypted
from zsar_cli.video.decode import DECODERS, iter_frames, planned_info, read_frames
from zsar_cli.video.identify import what_it_is

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
NO_VIDEOS = {
    "Git LFS": [LFS],
    "web page": [HTML, b"\n\n  <html lang=en><head>" + b" " * 5000, b"<!-- c --> <HTML>", b"\xef\xbb\xbf" + HTML],
    "JSON": [b'{"error": {"code": 403}}', b'[\n  {"a": 1}]', b"{}", '{"error"'.encode("utf-16")],
    "XML": [b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', b"<Error>", b"<svg width='3'></svg>"],
    "text file": [b"Not Found\n", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n", "Ünï".encode() * 3000, b"a"],
    "playlist": [b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:1/a.ts\n", b"ffconcat version 1.0\nfile a.mp4\n"],
    "PDF": [b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"],
    "PostScript": [b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    "ZIP": [b"PK\x03\x04" + bytes(range(256))],
    "gzip": [b"\x1f\x8b\x08" + bytes(range(256))],
    "zeros": [bytes(5000)],
}  # fmt: skip


@pytest.mark.parametrize("word", NO_VIDEOS)
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts", ".gif"])
def test_what_is_named_like_a_video_is_said_to_be_what_it_is(word: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    for data in NO_VIDEOS[word]:
        path.write_bytes(data)
        for read in (read_frames, lambda p, c: list(iter_frames(p, c)), lambda p, c: planned_info(p)):
            with pytest.raises(VideoError) as caught:
                read(path, range)
            assert word in caught.value.message, data
            assert caught.value.kind == "no_video"
            assert "damaged" not in caught.value.message


def test_what_is_neither_text_nor_known_may_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(range(128, 256)) * 20)
    with pytest.raises(VideoError, match="cut short or damaged") as caught:
        read_frames(path, range)
    assert caught.value.kind == "unreadable"


@given(st.binary(max_size=200))
def test_any_bytes_can_be_looked_at(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = str(tmp_path_factory.getbasetemp() / "any")
    Path(path).write_bytes(data)
    assert what_it_is(path) is None or isinstance(what_it_is(path), str)
    assert is_encrypted(path) in (True, False)
    assert has_licence_data(path) in (True, False)
    Path(path).write_bytes(b"RIFF\0\0\0\0AVI " + data)
    assert avi_ticks(path, 0) in (None, *range(200))


# --- encryption -----------------------------------------------------------------------------------------------


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", len(data) + 8, kind) + data


SCHEME = box(
    b"sinf",
    box(b"frma", b"avc1"),
    box(b"schm", bytes(4), b"cenc", struct.pack(">I", 0x10000)),
    box(b"schi", box(b"tenc", bytes(4), b"\0\0\1\x08", bytes(16))),
)


def insert(path: Path, inside: tuple[bytes, ...], content: bytes, at: int | None = None) -> Path:
    """Put a box at the end of a box (or at a place) inside others, whose sizes grow along; the index lies last."""
    data = bytearray(path.read_bytes())
    place, end, holders = 0, len(data), []
    for name in inside:
        while True:
            size, kind = struct.unpack_from(">I4s", data, place)
            if kind == name:
                break
            place += size
            assert place < end, name
        holders.append(place)
        end = place + size
        place += {b"stsd": 16, b"avc1": 86}.get(name, 8)
    for holder in holders:
        (size,) = struct.unpack_from(">I", data, holder)
        struct.pack_into(">I", data, holder, size + len(content))
    data[end:end] = content
    path.write_bytes(data)
    return path


ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")


def encrypted(path: Path, how: str) -> Path:
    if how == "scheme":
        return insert(path, ENTRY, SCHEME)
    if how == "scheme and entry":
        insert(path, ENTRY, SCHEME)
    return patched(path, (b"avc1\0\0\0\0", 0, b"drmi" if how == "iTunes" else b"encv"))


@pytest.mark.parametrize("how", ["entry", "scheme", "scheme and entry", "iTunes"])
@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_an_encrypted_video_is_said_to_be_encrypted(how: str, ending: str, tmp_path: Path) -> None:
    path = encrypted(write_video(tmp_path / f"a.{ending}"), how)
    for decoder in DECODERS:
        with pytest.raises(VideoError, match="encrypted") as caught:
            read_frames(path, range, decoder=decoder)
        assert caught.value.kind == "encrypted"
    with pytest.raises(VideoError, match="encrypted"):
        list(iter_frames(path, range))


def test_licence_data_alone_do_not_keep_a_clear_video_from_being_read(tmp_path: Path) -> None:
    licence = box(b"pssh", bytes(4), bytes(16), bytes(4))
    path = insert(write_video(tmp_path / "a.mp4"), (b"moov",), licence)
    assert has_licence_data(str(path))
    assert read_frames(path, range).info.frame_count == 40
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = b"\xa5" * (data.index(b"moov") - 4 - start)
    path.write_bytes(data)  # samples that no decoder understands
    with pytest.raises(VideoError, match="encrypted"):
        read_frames(path, range)


def test_reference_files_are_said_to_be_what_they_are(shared: Path) -> None:
    folder = shared / "cases/video"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    for name, word in (("lfs_pointer.mp4", "Git LFS"), ("html_page.mp4", "web page")):
        with pytest.raises(VideoError, match=word):
            read_frames(folder / name, range)
