"""``python -m benchmarks.camera``: its tables, and optical flow, the baseline."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import camera, cuts, flow
from tests.video_files import write_video


def test_all_tables_are_printed(tmp_path, tiny_clip_dir, capsys):
    for label in ("a static shot", "the camera pans left"):
        (tmp_path / "set" / label).mkdir(parents=True)
        write_video(tmp_path / "set" / label / "a.mp4", 4)
    (tmp_path / "set" / "a static shot" / "broken.mp4").write_bytes(b"no video")
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"words {number}" for number in range(10)))
    options = [
        "--data",
        tmp_path / "set",
        "--model",
        tiny_clip_dir,
        "--averaged",
        tiny_clip_dir,
        "--phrasings",
        words,
    ]
    camera.main([*map(str, options), "--no-flow", "--device", "cpu"])
    said = capsys.readouterr()
    assert said.out.count("**") == 12  # titles of six tables
    assert "backwards: the opposite" in said.out
    assert "broken.mp4 is left out" in said.err
    rows = [line for line in said.out.splitlines() if " of 2;" in line]
    model, averaged = (line.split("|")[2] for line in rows[:2])
    assert model == averaged


def test_cuts_between_joined_clips_are_counted_for_both_methods(tmp_path, capsys):
    pytest.importorskip("cv2")
    (tmp_path / "a static shot").mkdir()
    for number in range(4):
        colours = np.random.default_rng(number).integers(0, 256, (8, 12, 3))
        picture = np.kron(colours, np.ones((8, 8, 1))).astype(np.uint8)
        write_video(tmp_path / "a static shot" / f"{number}.mp4", 12, picture=picture)
    cuts.main(["--data", str(tmp_path), "--count", "1"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[3] == "| as they are | 3 | 0 | 0 | 0 | 0 |"


@pytest.mark.parametrize(
    ("steps", "label"),
    [
        ((3, 0), "the camera pans left"),
        ((-3, 0), "the camera pans right"),
        ((0, -3), "the camera tilts down"),
        ((0, 0), "a static shot"),
    ],
)
def test_optical_flow_names_a_picture_that_moves(steps, label):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (40, 40, 3)), np.ones((5, 5, 1))).astype(np.uint8)
    frames = np.stack(
        [np.roll(picture, (n * steps[1], n * steps[0]), (0, 1))[40:140, 40:140] for n in range(8)]
    )
    assert flow.name(flow.movement(frames)) == label
