"""Damaged videos through the whole of prediction: each must end in its record, in order, in time."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.damage import damage_bytes
from tests.video_files import write_video

FRAMES = 40
TIMEOUT = 20.0  # s that one video may take
KINDS = {
    *(
        "not_found",
        "permission",
        "not_a_file",
        "no_video",
        "encrypted",
        "unreadable",
        "timeout",
        "crashed",
        "memory",
    ),
    "not_finite",
}
# name, codec, container's own options, whether its length is written in it
CORPUS: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("h264.mp4", {"options": {"g": "10"}}, True),
    ("faststart.mp4", {"options": {"g": "10"}, "container_options": {"movflags": "+faststart"}}, True),
    ("fragmented.mp4", {"container_options": {"movflags": "+frag_keyframe+empty_moov"}}, False),
    ("h264.mkv", {"options": {"g": "10"}}, True),
    ("mpeg4.avi", {"codec": "mpeg4"}, True),
    ("mjpeg.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, True),
    ("vp8.webm", {"codec": "libvpx"}, True),
    ("vp9.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}}, True),
    ("h264.ts", {"container": "mpegts"}, False),
    ("mpeg2.mpg", {"codec": "mpeg2video", "rate": 25}, False),
    ("h264.flv", {}, False),
    ("anim.gif", {"codec": "gif", "pixel_format": "rgb8"}, False),
    ("prores.mov", {"codec": "prores_ks", "pixel_format": "yuv422p10le"}, True),
)


@dataclass
class Findings:
    """What a run of many cases came to."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def make_corpus(folder: Path) -> dict[str, bytes]:
    """Sound videos of many containers and codecs, some 20 kB each."""
    found = {}
    for name, options, _ in CORPUS:
        path = folder / name
        write_video(path, FRAMES, size=(64, 48), **options)
        found[name] = path.read_bytes()
        path.unlink()
    return found


def damaged_videos(corpus: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(name, kind of damage, bytes); what the n-th is depends on ``seed`` and n alone."""
    names = sorted(corpus)
    for number in range(count):
        rng = random.Random(f"{seed}-video-{number}")
        base = rng.choice(names)
        kind, data = damage_bytes(corpus[base], rng)
        if rng.random() < 0.2:
            second, data = damage_bytes(data, rng) if data else ("", data)
            kind = f"{kind}+{second}"
        stem, suffix = os.path.splitext(base)
        if rng.random() < 0.05:
            suffix = rng.choice((".mp4", ".avi", ".mkv", ".ts", ".gif", ".webm", ""))
        yield f"{number:06d}-{stem}-{kind}{suffix}", kind, data


def fuzz_videos(
    model: Path, folder: Path, count: int, seed: int, *, workers: int = 2, timeout: float = TIMEOUT
) -> Findings:
    """``count`` damaged videos through a model; the files that led to a defect stay in ``folder``/kept."""
    from zsar_cli import Recognizer
    from zsar_cli.prediction.clips import ClipOptions
    from zsar_cli.text.labels import load_labels
    from zsar_cli.video.pool import DecodePool

    recognizer = Recognizer.load(str(model), device="cpu", precision="fp32")
    text = recognizer.embed_labels(load_labels(None, ["waving", "running"]))
    corpus = make_corpus(folder)
    findings = Findings()
    given: deque[tuple[str, str]] = deque()

    def paths() -> Iterator[str]:
        for name, kind, data in damaged_videos(corpus, count, seed):
            path = folder / name
            path.write_bytes(data)
            given.append((str(path), kind))
            yield str(path)

    last = time.monotonic()
    with DecodePool(workers, timeout=timeout) as pool:
        for result in recognizer.run(paths(), text, pool, ClipOptions(decoder="auto")):
            record = result.to_record()
            path, kind = given.popleft()
            took, last = time.monotonic() - last, time.monotonic()
            findings.slowest = max(findings.slowest, (took, path))
            wrong = _judge(record, path, kind)
            findings.cases += 1
            outcome = record["error"]["kind"] if "error" in record else "answered"
            findings.outcomes[outcome + (", with a warning" if "warning" in record else "")] += 1
            if wrong:
                findings.defects.append(f"{os.path.basename(path)}: {wrong}")
                (folder / "kept").mkdir(exist_ok=True)
                shutil.copy(path, folder / "kept")
            os.unlink(path)
    if findings.cases != count:
        findings.defects.append(f"{count} videos went in and {findings.cases} records came out")
    return findings


def _judge(record: dict[str, Any], path: str, kind: str) -> str | None:
    """What is wrong with a record; None if nothing is."""
    if record["video"] != path:
        return f"the record is of {record['video']}"
    if "error" in record:
        error = record["error"]
        if error["kind"] not in KINDS:
            return f"unknown kind of error {error['kind']!r}"
        if "\n" in error["message"] or "Traceback" in error["message"] or not error["message"]:
            return f"message {error['message']!r}"
        if error["kind"] in ("timeout", "memory"):
            return f"{error['kind']}: a file of a few kB"
        return None
    numbers = [p["score"] for p in record["predictions"]] + [record["unknown"], record["duration"]]
    if not np.isfinite(numbers).all() or min(numbers) < 0:
        return f"numbers {numbers}"
    if record["duration"] > 3600:
        return f"{record['duration']} s in a file of a few kB"
    stem = os.path.basename(path).split("-", 1)[1]
    known = next(
        (
            sure
            for name, _, sure in CORPUS
            if stem == f"{os.path.splitext(name)[0]}-{kind}{Path(name).suffix}"
        ),
        False,
    )
    if kind == "cut" and known and record["duration"] < 0.75 * FRAMES / 20 and "warning" not in record:
        return f"only {record['duration']} s of {FRAMES / 20} s were read, and nothing says so"
    return None


# --- what needs no chance: odd files, names and claims ---------------------------------------------------------


def make_oddities(folder: Path) -> dict[str, str | None]:
    """Path -> the kind of error that its record must have; None where it can be answered."""
    sound = write_video(folder / "sound.mp4", 8, size=(64, 48)).read_bytes()
    found: dict[str, str | None] = {str(folder / "sound.mp4"): None}

    def put(name: str, data: bytes = sound, expected: str | None = None) -> None:
        path = os.fsencode(folder) + b"/" + os.fsencode(name)
        with open(path, "wb") as file:
            file.write(data)
        found[os.fsdecode(path)] = expected

    put("zero bytes.mp4", b"", "unreadable")
    put("text.mp4", b"This is not a video.\n" * 50, "no_video")
    put("two\nlines.mp4")
    put("quotes ' \" `.mp4")
    put("not-utf8-\udcff\udcfe.mp4")
    put("n" * 251 + ".mp4")
    put("-starts-with-a-dash.mp4")
    put("%d pattern %s {}.mp4")
    put("no ending")
    put("concat:a|b.mp4")
    put("playlist.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/a.ts\n#EXT-X-ENDLIST\n", "no_video")
    put("concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "no_video")
    (folder / "folder.mp4").mkdir()
    found[str(folder / "folder.mp4")] = "not_a_file"
    os.mkfifo(folder / "pipe.mp4")
    found[str(folder / "pipe.mp4")] = "not_a_file"
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    found[str(folder / "loop.mp4")] = "not_a_file"
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    found[str(folder / "dangling.mp4")] = "not_found"
    found[str(folder / "sound.mp4" / "below a file.mp4")] = "not_found"
    found["/dev/zero"] = "not_a_file"
    found[str(folder / ("n" * 300 + ".mp4"))] = "not_a_file"
    put("forbidden.mp4")
    os.chmod(folder / "forbidden.mp4", 0)
    if not os.access(folder / "forbidden.mp4", os.R_OK):  # root may read everything
        found[str(folder / "forbidden.mp4")] = "permission"
    _write_sound(folder / "audio only.m4a")
    found[str(folder / "audio only.m4a")] = "no_video"
    write_video(folder / "8k.mp4", 2, size=(7680, 4320), options={"preset": "ultrafast"})
    found[str(folder / "8k.mp4")] = None
    write_video(folder / "pixel.mkv", 3, size=(1, 1), codec="ffv1", pixel_format="bgr0")
    found[str(folder / "pixel.mkv")] = None
    put("no frame rate.avi", _patched(write_video(folder / "x.avi", 8, codec="mpeg4"), b"avih", 8, 0))
    put("ten hours.mp4", _patched(write_video(folder / "x.mp4", 8), b"mvhd", 20, 36_000_000))
    put("ten hours of video.mp4", _patched(write_video(folder / "x.mp4", 8), b"mdhd", 20, 2**31))
    images = folder / "frames"
    images.mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(images / f"{number}.png")
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:40])
    found[str(images)] = "unreadable"
    for name in ("x.avi", "x.mp4"):
        (folder / name).unlink()
    return found


def _patched(path: Path, box: bytes, offset: int, value: int) -> bytes:
    """The file with a number of four bytes behind the name of a box or chunk set to ``value``."""
    data = bytearray(path.read_bytes())
    place = data.index(box) + offset
    order = "little" if path.suffix == ".avi" else "big"
    data[place : place + 4] = value.to_bytes(4, order)  # type: ignore[arg-type]
    return bytes(data)


def _write_sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        for number in range(8):
            frame.pts = number * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
