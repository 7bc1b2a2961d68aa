"""``-q`` says all errors and nothing else; ``-v`` says what runs and how long it takes; alike for every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video_files import write_video

LABELS = ("--label", "waving", "--label", "running")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes with three videos each, one of which is none."""
    folder = tmp_path_factory.mktemp("verbosity")
    for name in ("running", "waving"):
        (folder / name).mkdir()
        for number in range(3):
            write_video(folder / name / f"{number}.mp4", 8)
    (folder / "waving" / "2.mp4").write_bytes(b"no video at all")
    return folder


def train(zsar, folder, tiny_clip_dir, output, *more):
    recipe = {"width": 16, "heads": 2, "layers": 1}
    return zsar(
        *("train", "--model", tiny_clip_dir, "--data", folder, "--output", output, "--steps", 2),
        *("--batch-size", 4, "--frames", 2, "--tune", "modules", "--no-augment", "--workers", 0),
        *("--max-missing", 1, "--holdout", 0, "--swa", 0, "--pretrained-weight", 0, "--precision", "fp32"),
        *(part for name, size in recipe.items() for part in (f"--parts-{name}", size)),
        *more,
    )


@pytest.mark.parametrize("how", ["-q", "--quiet"])
@pytest.mark.parametrize("more", [[], ["--window", "1"], ["--format", "csv"]], ids=str)
def test_quiet_predict_names_every_video_that_fails_and_says_nothing_else(
    zsar, folder, tiny_clip_dir, how, more
):
    names = [folder / "waving" / "2.mp4", folder / "waving" / "0.mp4", folder / "none.mp4"]
    done = zsar("predict", *names, "--model", tiny_clip_dir, *LABELS, "--workers", 0, how, *more)
    assert done.code == 1
    said = done.err.splitlines()
    assert [line.startswith(f"zsar: {name}: ") for line, name in zip(said, names[::2], strict=True)] == [
        True
    ] * 2
    assert zsar("predict", names[1], "--model", tiny_clip_dir, *LABELS, "--workers", 0, how).err == ""


def test_quiet_eval_and_train_name_a_video_that_fails(zsar, folder, tiny_clip_dir, tmp_path):
    bad = str(folder / "waving" / "2.mp4")
    done = zsar("eval", "--data", folder, "--model", tiny_clip_dir, "--workers", 0, "--max-missing", 1, "-q")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert "2.mp4" in line
    done = train(zsar, folder, tiny_clip_dir, tmp_path / "run", "-q")
    assert done.code == 0, done.err
    (line,) = done.err.splitlines()
    assert bad in line


def test_verbose_says_what_runs_and_how_long_it_takes(zsar, folder, tiny_clip_dir, tmp_path):
    common = ("--model", tiny_clip_dir, "-v")
    asked = ("predict", folder / "running", *common, *LABELS, "--workers", 1, "--decoder", "pyav")
    said = zsar(*asked, "--cache", tmp_path / "cache").err
    assert "on cpu in fp32" in said
    assert "threads" in said
    assert "1 decoding processes, decoder pyav" in said
    assert "3 added" in said
    for stage in ("load ", "labels ", "waiting for decoders ", "model "):
        assert stage in said.split("Time: ")[1]
    again = zsar(*asked, "--cache", tmp_path / "cache").err
    assert "3 videos read" in again
    assert "from the cache, 0 to embed" in again
    assert "model " in zsar(*asked, "--window", 1).err.split("Time: ")[1]
    said = zsar("embed-prompts", *common, *LABELS, "--output", tmp_path / "p.safetensors").err
    assert "on cpu in fp32" in said
    assert "labels " in said.split("Time: ")[1]
    said = zsar("eval", "--data", folder, *common, "--workers", 0, "--max-missing", 1).err
    assert "on cpu in fp32" in said
    assert "waiting for decoders " in said.split("Time: ")[1]
    said = train(zsar, folder, tiny_clip_dir, tmp_path / "run", "-v").err
    assert "on cpu in fp32" in said
    assert "waiting for clips" in said


def test_without_either_neither_is_said(zsar, folder, tiny_clip_dir):
    said = zsar("predict", folder / "running", "--model", tiny_clip_dir, *LABELS, "--workers", 0).err
    assert "threads" not in said
    assert "Time" not in said


def test_help_says_what_the_two_do(zsar):
    text = " ".join(zsar("--help").out.split())
    assert "including those of single videos" in text
    assert "time of each stage" in text
