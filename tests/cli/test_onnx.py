"""``zsar embed-prompts --onnx``, and its run.py, which answers as ``zsar predict``."""

from __future__ import annotations

import json
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.close import assert_close
from tests.video_files import patched, write_video

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LABELS = ("--label", "waving", "--label", "drinking", "--label", "grün")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Ordinary; wide pixels at a variable rate; turned; miscounted by its header; damaged; and what is no video."""
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0).integers(0, 256, (11, 98, 70, 3), dtype=np.uint8)
    ticks = [0, 1, 2, 9, 10, 30, 31, 32, 80, 81, 82]
    quarter = np.array([0, 1 << 16, 0, -1 << 16, 0], ">i4").tobytes()
    more = (99).to_bytes(4, "little")
    found = [
        write_video(folder / "a.mp4", 40),
        write_video(folder / "b.mkv", rate=25, ticks=ticks, picture=random, aspect=Fraction(4, 3)),
        patched(write_video(folder / "c.mp4", picture=random[0]), (b"tkhd", 44, quarter)),
        patched(write_video(folder / "d.avi", 23, codec="mpeg4"), (b"avih", 24, more), (b"strh", 40, more)),
        write_video(folder / "e.mp4", 40, container_options={"movflags": "faststart"}),
        folder / "f.mp4",
    ]
    damaged = found[-2].read_bytes()
    found[-2].write_bytes(damaged[: len(damaged) * 9 // 10])
    found[-1].write_text("no video")
    return found


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a folder's run.py in this process: its records, and what it ends with (a text is exit code 1)."""

    def run(folder: Path, *arguments: object) -> tuple[list[dict], int | str]:
        monkeypatch.setattr("sys.argv", ["run.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(folder / "run.py"), run_name="__main__")
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()], exit.value.code

    return run


def test_run_py_answers_as_predict(zsar, tiny_clip_dir, tmp_path, videos, run):
    about = ("--model", tiny_clip_dir, *LABELS)
    asked = ("--onnx", tmp_path / "out", "--min-confidence", "0.6", "--labels-as-input")
    done = zsar("embed-prompts", *about, *asked)
    assert (done.code, done.out) == (0, "")
    assert "differ" in done.err
    assert not (tmp_path / "prompts.safetensors").exists()
    expected = zsar("predict", *videos, *about, "--min-confidence", "0.6", "--format", "jsonl").records
    found, end = run(tmp_path / "out", *videos[:2], videos[-1], *videos[2:-1])
    assert len(found) == len(videos) - 1
    for ours, theirs in zip(found, expected, strict=False):
        assert_close(ours, {key: theirs[key] for key in ours}, 1e-4)
    (line,) = end.splitlines()
    assert line.startswith(f"{videos[-1]}: cannot be read as a video")

    other = ("--label", "one", "--label", "two")
    assert zsar("embed-prompts", "--model", tiny_clip_dir, *other, "-o", tmp_path / "other.npz").code == 0
    (record,), end = run(tmp_path / "out", "--labels", tmp_path / "other.npz", videos[0])
    (expected,) = zsar("predict", videos[0], "--model", tiny_clip_dir, *other, "--format", "jsonl").records
    assert end == 0
    assert_close(record["predictions"], expected["predictions"], 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels-as-input"], "--labels-as-input is about an ONNX file"),
        (["--onnx", "{}/out", "--precision", "bf16"], "fp32 or int8, not in bf16"),
        (["--onnx", "{}/no/such/out"], "does not exist"),
        (["--onnx", "{}/file"], "is a file"),
    ],
)
def test_what_cannot_be_had_is_said_before_any_work(zsar, tiny_clip_dir, tmp_path, options, message):
    (tmp_path / "file").write_text("mine")
    given = [option.format(tmp_path) for option in options]
    done = zsar("embed-prompts", "--model", tiny_clip_dir, *LABELS, *given)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
