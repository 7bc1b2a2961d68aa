"""``zsar embed-prompts --onnx``, and its run.py, which answers as ``zsar predict``."""

from __future__ import annotations

import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.close import assert_close
from tests.video_files import write_video

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LABELS = ("--label", "waving", "--label", "drinking", "--label", "grün")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Landscape; odd and wide pixels; variable frame rate; and what is no video."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40)
    with av.open(folder / "b.mkv", "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 70, 98, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for number, pts in enumerate([0, 1, 2, 9, 10, 30, 31, 32, 80, 81, 82]):
            picture = np.random.default_rng(number).integers(0, 256, (98, 70, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    (folder / "c.mp4").write_text("no video")
    return [folder / "a.mp4", folder / "b.mkv", folder / "c.mp4"]


def run(folder: Path, arguments: list[str]) -> int:
    spec = importlib.util.spec_from_file_location("run", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(arguments)


def test_run_py_answers_as_predict(zsar, tiny_clip_dir, tmp_path, videos, capsys):
    about = ("--model", tiny_clip_dir, *LABELS)
    asked = ("--onnx", tmp_path / "out", "--min-confidence", "0.6", "--labels-as-input")
    done = zsar("embed-prompts", *about, *asked)
    assert (done.code, done.out) == (0, "")
    assert "differ" in done.err
    assert not (tmp_path / "prompts.safetensors").exists()
    expected = zsar("predict", *videos, *about, "--min-confidence", "0.6", "--format", "jsonl").records
    assert run(tmp_path / "out", [str(video) for video in videos]) == 1
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert len(found) == 2
    for ours, theirs in zip(found, expected, strict=False):
        assert_close(ours, {key: theirs[key] for key in ours}, 1e-4)
    assert f"{videos[2]}: cannot be read as a video" in told.err

    other = ("--label", "one", "--label", "two")
    assert zsar("embed-prompts", "--model", tiny_clip_dir, *other, "-o", tmp_path / "other.npz").code == 0
    assert run(tmp_path / "out", ["--labels", str(tmp_path / "other.npz"), str(videos[0])]) == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    (expected,) = zsar("predict", videos[0], "--model", tiny_clip_dir, *other, "--format", "jsonl").records
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


def test_turned_videos_are_upright(shared, tmp_path):
    pytest.importorskip("PIL")
    from jinja2 import Template

    from zsar_cli.files import ASSETS
    from zsar_cli.video.decode import read_frames

    source = Template((ASSETS / "onnx" / "run.py.j2").read_text()).render(
        choose="    chosen = i", labels_as_input=False
    )
    (tmp_path / "run.py").write_text(source)
    (tmp_path / "labels.json").write_text('{"frames": 3}')
    spec = importlib.util.spec_from_file_location("run", tmp_path / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    video = str(shared / "videos" / "corner" / "nasa_13013_rotated.mp4")
    assert np.array_equal(module.read(video)[0], read_frames(video, lambda count: range(3)).frames)
