"""Tiny real videos, and data sets in miniature as they lie on people's disks."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CODECS = {".webm": "libvpx", ".avi": "mpeg4", ".mp4": "mpeg4", ".mkv": "mpeg4"}


def write_video(path: Path, seed: int = 0, frames: int = 6) -> Path:
    """A 32 x 32 clip of a moving square in the container that the name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    colour, step = rng.integers(60, 255, 3), int(rng.integers(1, 4))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=6)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(frames):
            pixels = np.full((32, 32, 3), 30, dtype=np.uint8)
            pixels[8:20, number * step : number * step + 10] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


UCF = ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
# The name in the file differs from the folder's in one real class.
UCF_FILES = {"HandstandPushups": "HandStandPushups"}
HMDB = {
    "brush_hair": [
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "Haarek#mmen!_brush_hair_u_cm_np1_fr_med_0.avi",
    ],
    "clap": ["#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "A&B;_(live)_[HD]_clap_u_cm_np1_le_bad_1.avi"],
    "climb_stairs": ["Up+down@home_climb_stairs_f_cm_np1_ba_med_2.avi"],
    "climb": ["wall_climb_f_cm_np1_ba_med_0.avi"],
}


def make_ucf101(root: Path) -> None:
    """UCF101 as its archives unpack: UCF-101/Class/v_*.avi and ucfTrainTestlist/*.txt with CRLF."""
    lists: dict[str, list[str]] = {}
    for number, name in enumerate(UCF):
        for group in (1, 2):
            stem = f"v_{UCF_FILES.get(name, name)}_g{group:02d}_c01"
            write_video(root / "UCF-101" / name / f"{stem}.avi", seed=10 * number + group)
            kind = "testlist01.txt" if group == 1 else "trainlist01.txt"
            label = "" if group == 1 else f" {number + 1}"
            lists.setdefault(kind, []).append(f"{name}/{stem}.avi{label}")
    folder = root / "ucfTrainTestlist"
    folder.mkdir()
    for split in (2, 3):
        lists[f"testlist0{split}.txt"] = lists["testlist01.txt"]
    for kind, lines in lists.items():
        (folder / kind).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    (folder / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(UCF, 1)))


def make_hmdb51(root: Path) -> None:
    """HMDB51: CLASS/NAME.avi, and three lists a class with trailing blanks and an unused video (0)."""
    for name, files in HMDB.items():
        for number, file in enumerate(files):
            write_video(root / name / file, seed=number)
    folder = root / "testTrainMulti_7030_splits"
    folder.mkdir()
    for name, files in HMDB.items():
        lines = [f"{file} {2 if i == 0 else 1} \n" for i, file in enumerate(files)]
        lines.append(f"unused_{name}_u_nm_np1_fr_goo_9.avi 0 \n")
        for split in (1, 2, 3):
            (folder / f"{name}_test_split{split}.txt").write_text("".join(lines))


def make_kinetics(root: Path) -> None:
    """Kinetics: the official CSV; names with and without times; one of six videos is missing."""
    rows = ["label,youtube_id,time_start,time_end,split"]
    clips = [
        ("abseiling", "0wR5jVB-WPk", 417, 427, "val/abseiling/0wR5jVB-WPk_000417_000427.mp4"),
        ("hurling (sport)", "034KeIezQZ8", 0, 10, "val/hurling_sport/034KeIezQZ8.mp4"),
        (
            "massaging person's head",
            "-aNccq2jvUA",
            55,
            65,
            "val/massaging persons head/-aNccq2jvUA_000055_000065.mkv",
        ),
        ("yoga", "3caPS4FHFF8", 36, 46, "val/yoga/3caPS4FHFF8_000036_000046.mp4"),
        ("zumba", "3caPS4FHfF8", 1, 11, "val/zumba/3caPS4FHfF8_000001_000011.mp4"),
        ("zumba", "gone_gone_1", 5, 15, None),
    ]
    for number, (label, video, start, end, path) in enumerate(clips):
        quoted = f'"{label}"' if number == 0 else label
        rows.append(f"{quoted},{video},{start},{end},val")
        if path:
            write_video(root / path, seed=number)
    (root / "val.csv").write_text("\n".join(rows))


def make_ssv2(root: Path) -> None:
    """Something-Something v2: ID.webm, JSON with bracketed templates."""
    (root / "labels").mkdir(parents=True)
    records = [
        ("74225", "Spinning [something] that quickly stops spinning"),
        ("116154", "Throwing [something] in the air and catching it"),
        ("198186", "Lifting up one end of [something], then letting it drop down"),
    ]
    import json

    entries = [
        {
            "id": number,
            "label": template.replace("[something]", "cup"),
            "template": template,
            "placeholders": ["cup"],
        }
        for number, template in records
    ]
    (root / "labels" / "validation.json").write_text(json.dumps(entries))
    for number, _ in records:
        write_video(root / "20bn-something-something-v2" / f"{number}.webm", seed=int(number))
