"""What a file is that is no video, or that nobody can play without a key."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video_files import patched, write_video
from zsar_cli.errors import VideoError
from zsar_cli.video.boxes import avi_ticks, has_licence_data, is_encrypted, is_scrambled
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
    "git-annex": [b"/annex/objects/SHA256E-s1234--4d7a.mp4\n", b"../.git/annex/objects/Xk/a.mp4"],
    "DVC": [b"outs:\n- md5: 4d7a21\n  size: 12\n  path: a.mp4\n"],
    "HEIF": [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)],
    "sound file": [b"ID3\x03\0\0\0\0\0\0" + bytes(100)],
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
        for read in (read_frames, lambda p, c: list(iter_frames(p, rate=1000)), lambda p, c: planned_info(p)):
            with pytest.raises(VideoError) as caught:
                read(path, range)
            assert word in caught.value.message, data
            assert caught.value.kind == "no_video"
            assert "damaged" not in caught.value.message


def test_what_is_neither_text_nor_known_may_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(range(128, 256)) * 20)
    with pytest.raises(VideoError, match="truncated or damaged") as caught:
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
        list(iter_frames(path, rate=1000))


def said_to_be_encrypted(path: Path) -> bool:
    with pytest.raises(VideoError) as caught:
        read_frames(path, range)
    return caught.value.kind == "encrypted"


def test_an_encrypted_stream_of_fragments_is_said_to_be_encrypted(tmp_path: Path) -> None:
    key, name = "76a6c65c5ea762046bd749a2e632ccbb", "a7e61c373e219033c21091fa607bf3b8"
    options = {"movflags": "frag_keyframe+empty_moov", "encryption_scheme": "cenc-aes-ctr"}
    path = write_video(
        tmp_path / "a.mp4", container_options={**options, "encryption_key": key, "encryption_kid": name}
    )
    assert said_to_be_encrypted(path)
    path.write_bytes(path.read_bytes().replace(b"saiz", b"free"))  # FFmpeg will not open it at all
    assert said_to_be_encrypted(path)


def element(name: str, content: bytes) -> bytes:
    """Of Matroska; its size in 8 bytes."""
    return bytes.fromhex(name) + struct.pack(">Q", 1 << 56 | len(content)) + content


def inside(data: bytes, place: int) -> tuple[int, int]:
    """Start and end of what a size of Matroska speaks of."""
    length = 9 - data[place].bit_length()
    size = int.from_bytes(data[place : place + length], "big") & ((1 << 7 * length) - 1)
    return place + length, place + length + size


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "libx264"), ("webm", "libvpx")])
def test_an_encrypted_matroska_file_is_said_to_be_encrypted(ending: str, codec: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"a.{ending}", codec=codec)
    data = path.read_bytes()
    # The tracks; their name is in the list of places, too
    start = data.rindex(bytes.fromhex("1654ae6b"), 0, data.index(b"V_"))
    entry, _ = inside(data, start + 4)
    if data[entry] == 0xBF:  # a checksum
        entry += 6
    first, end = inside(data, entry + 1)
    keys = element("5035", element("47e1", b"\5") + element("47e2", b"0123456789abcdef"))
    encryption = element("6d80", element("6240", element("5032", b"\1") + element("5033", b"\1") + keys))
    tracks = element("1654ae6b", element("ae", data[first:end] + encryption))
    unknown = data.index(bytes.fromhex("18538067")) + 4  # the size of the whole, which grows
    path.write_bytes(data[:unknown] + b"\1" + b"\xff" * 7 + data[unknown + 8 : start] + tracks + data[end:])
    assert said_to_be_encrypted(path)


@pytest.mark.parametrize(("ending", "size", "before"), [("ts", 188, 0), ("m2ts", 192, 4)])
def test_scrambled_television_is_said_to_be_encrypted(
    ending: str, size: int, before: int, tmp_path: Path
) -> None:
    options = {"mpegts_m2ts_mode": str(int(ending == "m2ts"))}
    path = write_video(tmp_path / f"a.{ending}", container="mpegts", container_options=options)
    assert not is_scrambled(str(path))
    data = bytearray(path.read_bytes())
    for start in range(before, len(data), size):
        if (data[start + 1] & 31) << 8 | data[start + 2] in (0x100, 0x1011):  # packets of the picture
            data[start + 3] |= 0x80
            first = start + 4 + (data[start + 3] >> 5 & 1) * (1 + data[start + 4])
            data[first : start + 188] = bytes(7 * i % 251 for i in range(start + 188 - first))
    path.write_bytes(data)
    assert said_to_be_encrypted(path)


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
