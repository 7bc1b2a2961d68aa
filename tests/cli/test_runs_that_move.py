"""Runs used from another folder than they were made in, and after their weights or videos have moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.close import assert_close
from tests.tiny_models import make_tiny_clip
from tests.video_files import write_video

SMALL = ("--parts-width", 16, "--parts-queries", 2, "--parts-layers", 1, "--parts-heads", 2)
QUICK = ("--steps", 1, "--batch-size", 2, "--frames", 2, "--workers", 0, *SMALL)
LABELS = ("--label", "clapping", "--label", "waving")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(["clapping", "waving"] * 2):
        (root / name).mkdir(exist_ok=True)
        write_video(root / name / f"{number}.mp4", 4 + number, size=(64, 48))
    return root


@pytest.fixture
def moved(zsar, videos, tmp_path) -> tuple[Path, Path, Path]:
    """A run with ``tune: modules``, where its weights lay, and where they are now."""
    old, new, run = tmp_path / "old" / "clip", tmp_path / "new" / "clip", tmp_path / "run"
    make_tiny_clip(old)
    done = zsar("train", "-c", "modules", "--data", videos, "--model", old, "-o", run, *QUICK)
    assert done.code == 0, done.err
    new.parent.mkdir()
    shutil.move(old, new)
    return run, old, new


def test_a_run_names_itself_and_what_it_needs_when_its_weights_have_moved(zsar, videos, moved):
    run, old, new = moved
    video = next(videos.rglob("*.mp4"))
    fingerprint = yaml.safe_load((run / "config.yaml").read_text())["backbone_fingerprint"]
    for command in (
        ("predict", video, *LABELS),
        ("eval", "--data", videos),
        ("embed-prompts", *LABELS, "-o", run.parent / "prompts.safetensors"),
        ("train", "-c", "modules", "--data", videos, "-o", run.parent / "further", *QUICK),
    ):
        lost = zsar(*command, "--model", run)
        assert lost.code == 2
        assert str(run) in lost.err
        assert str(old) in lost.err
        assert "--backbone" in lost.err
        assert lost.err.count("\n") == 1
        found = zsar(*command, "--model", run, "--backbone", new)
        assert found.code == 0, found.err
    assert len(fingerprint) == 16


def test_other_weights_than_those_of_a_run_are_refused(zsar, videos, moved):
    run, old, new = moved
    other = make_tiny_clip(run.parent / "other", seed=7)
    video = next(videos.rglob("*.mp4"))
    refused = zsar("predict", video, *LABELS, "--model", run, "--backbone", other)
    assert refused.code == 2
    assert all(str(place) in refused.err for place in (run, old, other))
    assert "other weights" in refused.err
    shutil.copytree(other, old)  # at the very place where they were
    refused = zsar("predict", video, *LABELS, "--model", run)
    assert refused.code == 2
    assert "other weights" in refused.err
    missing = zsar("predict", video, *LABELS, "--model", run, "--backbone", run.parent / "nowhere")
    assert missing.code == 2
    assert str(run) in missing.err
    needless = zsar("predict", video, *LABELS, "--model", new, "--backbone", new)
    assert needless.code == 2
    assert "not a folder written by zsar train" in needless.err


def test_a_bare_file_is_read_as_the_architecture_that_it_was(zsar, videos, tmp_path, monkeypatch):
    import open_clip

    from tests.tiny_models import VIT

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "Tiny-Test.json").write_text(json.dumps(VIT))
    open_clip.add_model_config(tmp_path / "configs")
    stored = load_file(make_tiny_clip(tmp_path / "made") / "open_clip_model.safetensors")
    (tmp_path / "old").mkdir()
    save_file(stored, tmp_path / "old" / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    options = ("-c", "modules", "--data", videos, "--model", "Tiny-Test/old/w.safetensors", "-o", run, *QUICK)
    assert zsar("train", *options).code == 0
    (tmp_path / "old").rename(tmp_path / "new")
    for place in ("new/w.safetensors", "new", "Tiny-Test/new/w.safetensors"):
        found = zsar("predict", next(videos.rglob("*.mp4")), *LABELS, "--model", run, "--backbone", place)
        assert found.code == 0, found.err


def test_runs_that_an_older_version_made_still_load(moved):
    from zsar_cli.model.load import load_model

    run, _, new = moved
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key in ("backbone_fingerprint", "data_root"):
        del config[key]
    del config["recipe"]["labels"]
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"backbone": str(new)}))
    model = load_model(str(run))
    assert model.trained_on is not None
    assert_close(model.log_scale.detach(), load_model(str(run), backbone=str(new)).log_scale.detach())


def test_a_run_made_with_relative_paths_is_used_from_anywhere(zsar, videos, tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    make_tiny_clip(here / "clip")
    shutil.copytree(videos, here / "videos")
    (here / "mine.yaml").write_text("name: mine\npositive: ['a video of {}']\nnegative: ['no {}']\n")
    monkeypatch.chdir(here)
    options = ("-c", "modules", "--data", "videos", "--model", "clip", "--templates", "mine.yaml")
    done = zsar("train", *options, "-o", "run", *QUICK, "--checkpoint-every", 1)
    assert done.code == 0, done.err
    monkeypatch.chdir(there)
    run = here / "run"
    assert (
        zsar("predict", next(videos.rglob("*.mp4")), *LABELS, "--model", run, "--templates", "video").code
        == 0
    )
    evaluated = zsar("eval", "--model", run, "--templates", "video", "--format", "json")
    assert evaluated.code == 0, evaluated.err
    again = zsar("train", "--resume", "-o", run)
    assert again.code == 0, again.err
    shutil.move(here / "videos", there / "videos")
    gone = zsar("eval", "--model", run)
    assert gone.code == 2
    assert f"{run} was trained on {here / 'videos'}, which does not exist any more" in gone.err
    followed = zsar("train", "--resume", "-o", run, "--data", there / "videos")  # the same clips, elsewhere
    assert followed.code == 0, followed.err


@pytest.mark.parametrize("name", ["mine", "video"])  # the second is the name of shipped ones, too
def test_a_run_holds_the_templates_that_it_was_trained_with(
    zsar, videos, tmp_path, tiny_clip_dir, monkeypatch, name
):
    from zsar_cli.model.load import load_model
    from zsar_cli.text.templates import default_templates, load_templates

    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"name: {name}\npositive: ['a video of {{}}']\nnegative: ['no {{}}']\n")
    options = ("-c", "modules", "--data", videos, "--model", tiny_clip_dir, "--templates", "mine.yaml")
    done = zsar("train", *options, "-o", "run", *QUICK)
    assert done.code == 0, done.err
    templates = load_templates(mine)
    mine.unlink()
    assert default_templates(load_model("run")) == templates
    for command in (("predict", next(videos.rglob("*.mp4")), *LABELS), ("eval", "--format", "json")):
        found = zsar(*command, "--model", "run")
        assert found.code == 0, found.err
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    del config["template_texts"]  # as older versions wrote it
    Path("run/config.yaml").write_text(yaml.safe_dump(config | {"templates": "mine"}))
    found = zsar("predict", next(videos.rglob("*.mp4")), *LABELS, "--model", "run")
    assert found.code == 2
    assert "run was trained with the prompt templates 'mine'" in found.err
    assert "--templates" in found.err


def test_a_home_folder_is_found_in_a_recipe(zsar, videos, tmp_path, tiny_clip_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(videos.parent))
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"data": f"~/{videos.name}", "model": str(tiny_clip_dir), "tune": "modules"})
    )
    done = zsar("train", "-c", tmp_path / "mine.yaml", "-o", tmp_path / "run", *QUICK)
    assert done.code == 0, done.err
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"] == str(videos)
