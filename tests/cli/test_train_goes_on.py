"""``zsar train --resume``: with what the run began with, or refused with the name of what changed and a way out."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests.video_files import write_video
from zsar_cli.errors import UsageError
from zsar_cli.training import inputs as run_inputs
from zsar_cli.training.inputs import RunInputs
from zsar_cli.training.recipe import Recipe

SMALL = ("--parts-width", 16, "--parts-queries", 2, "--parts-layers", 1, "--parts-heads", 2)
CLASSES = ["clapping", "waving", "running"]
INPUTS = RunInputs(CLASSES, 10, "a", 2, "b", "c", "d")


@pytest.fixture
def run(zsar, tmp_path, tiny_clip_dir) -> Path:
    """A run of two steps over ``tmp_path / "videos"``."""
    for number, name in enumerate(["clapping", "waving"] * 2):
        (tmp_path / "videos" / name).mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / name / f"{number}.mp4", 4, size=(64, 48))
    output = tmp_path / "run"
    options = ("--data", tmp_path / "videos", "--model", tiny_clip_dir, "--workers", 0, *SMALL)
    done = zsar(
        "train", "-c", "modules", *options, "-o", output, "--steps", 2, "--frames", 2, "--batch-size", 2
    )
    assert done.code == 0, done.err
    return output


def test_a_class_that_was_added_is_named(zsar, run, tmp_path):
    shutil.copytree(tmp_path / "videos" / "waving", tmp_path / "videos" / "jumping")
    before = (run / "model.safetensors").read_bytes()
    refused = zsar("train", "--resume", "-o", run)
    assert refused.code == 2
    assert "classes added: 'jumping'" in refused.err
    assert "4 training clips then, 6 now" in refused.err
    assert f"--model {run}" in refused.err
    assert refused.err.count("\n") == 1
    assert (run / "model.safetensors").read_bytes() == before
    shutil.rmtree(tmp_path / "videos" / "jumping")
    assert zsar("train", "--resume", "-o", run).code == 0  # put back as it was


def test_what_cannot_begin_replaces_no_run_and_leaves_none(zsar, tmp_path, tiny_clip_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    for name in ("clapping", "waving"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "a.mp4").write_bytes(b"x")
    earlier = {"recipe.json": '{"model": 0, "tune": 0, "steps": 0}', "best/model.safetensors": "the best"}
    for name, content in {**earlier, "checkpoints/step-00000002/state.json": "{}"}.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(content)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    options = ("train", "-c", "modules", "--data", tmp_path / "videos", "--model", tiny_clip_dir)
    for output, flags, said in (
        ("run", ["--overwrite", "--wandb"], "needs the package wandb"),
        ("run", ["--overwrite", "--cache", "/dev/null/cache"], "The cache /dev/null/cache cannot be used"),
        ("new", ["--wandb"], "needs the package wandb"),
        ("new", ["--twins", "--dry-run"], "twins are for clips that are rendered"),
    ):
        refused = zsar(*options, "-o", tmp_path / output, "--workers", 0, *flags)
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err
    assert {path: path.read_bytes() for path in before if path.is_file()} == before
    assert not (tmp_path / "new" / "recipe.json").exists()


def test_a_run_of_an_older_version_is_held_to_the_classes_of_its_checkpoint(zsar, run, tmp_path):
    (run / "inputs.json").unlink()
    shutil.copytree(tmp_path / "videos" / "waving", tmp_path / "videos" / "jumping")
    refused = zsar("train", "--resume", "-o", run)
    assert refused.code == 2
    assert "classes added: 'jumping'" in refused.err


def test_a_run_that_an_older_version_began_with_relative_paths_goes_on(zsar, run, tmp_path, monkeypatch):
    (run / "inputs.json").unlink()
    recipe = json.loads((run / "recipe.json").read_text())
    old = {key: value for key, value in recipe.items() if key not in ("labels", "label_column")}
    (run / "recipe.json").write_text(json.dumps(old | {"data": "videos"}))
    monkeypatch.chdir(tmp_path)
    done = zsar("train", "--resume", "-o", run)
    assert done.code == 0, done.err


def test_a_misspelt_run_is_not_taken_for_the_default_recipe(zsar, tmp_path):
    done = zsar("train", "--resume", "-o", tmp_path / "misspelt")
    assert done.code == 2
    assert f"There is no run in {tmp_path / 'misspelt'} to resume" in done.err


def test_another_pretrained_weight_is_released_unless_the_first_one_chose_the_step(tmp_path):
    for patience in (None, 3):
        recipe = Recipe(patience=patience)
        run_inputs.keep(tmp_path, recipe, INPUTS)
        now = replace(recipe, pretrained_weight=0.5)
        with (
            nullcontext()
            if patience is None
            else pytest.raises(UsageError, match="another pretrained_weight")
        ):
            run_inputs.refuse_other_recipe(tmp_path, now)


def test_more_steps_than_the_run_was_to_have_names_the_way_to_train_on(zsar, run, tmp_path):
    refused = zsar("train", "--resume", "-o", run, "--steps", 8)
    assert refused.code == 2
    assert "another steps (2 then, 8 now)" in refused.err
    assert f"--model {run} and another --output" in refused.err
    further = zsar(
        *("train", "-c", "modules", "--data", tmp_path / "videos", "--model", run, "-o", tmp_path / "on"),
        *("--steps", 1, "--frames", 2, "--batch-size", 2, "--workers", 0),
    )
    assert further.code == 0, further.err


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"classes": ["clapping", "waving"]}, "classes removed: 'running'"),
        (
            {"classes": ["clapping", "waving", "jogging"]},
            "classes added: 'jogging'; classes removed: 'running'",
        ),
        ({"classes": ["waving", "clapping", "running"]}, "the classes are in another order"),
        ({"classes": [*CLASSES, *"abcdefgh"]}, "'a', 'b', 'c', 'd', 'e' and 3 more"),
        ({"clips": 12, "clips_hash": "x"}, "10 training clips then, 12 now"),
        ({"clips_hash": "x"}, "the 10 training clips are others, or labelled otherwise"),
        ({"held_out": 3, "held_out_hash": "x"}, "2 held-out clips then, 3 now"),
        ({"templates": "x"}, "the prompt templates are others"),
        ({"weights": "x"}, "the weights to start from are others (fingerprint d then, x now)"),
    ],
)
def test_what_changed_is_said(tmp_path, now, said):
    run_inputs.keep(tmp_path, Recipe(), INPUTS)
    run_inputs.refuse_other_inputs(tmp_path, INPUTS)
    with pytest.raises(UsageError) as refused:
        run_inputs.refuse_other_inputs(tmp_path, RunInputs(**{**INPUTS.__dict__, **now}))
    assert said in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"classes": 1}', "[" * 5000])
def test_damaged_inputs_are_an_error_with_a_way_out(tmp_path, content):
    run_inputs.keep(tmp_path, Recipe(), INPUTS)
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(UsageError, match=r"inputs\.json is damaged"):
        run_inputs.refuse_other_inputs(tmp_path, INPUTS)


def test_templates_that_were_edited_are_noticed(zsar, run, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\npositive: ['a video of {}']\nnegative: ['no {}']\n")
    refused = zsar("train", "--resume", "-o", run, "--templates", tmp_path / "mine.yaml")
    assert refused.code == 2
    assert "the prompt templates are others" in refused.err


def test_a_run_goes_on_in_the_precision_that_it_began_in(zsar, run, caplog):
    recipe = json.loads((run / "recipe.json").read_text())
    assert recipe["precision"] == "fp32"  # of modules, which says auto, on a CPU
    (run / "recipe.json").write_text(json.dumps(recipe | {"precision": "bf16"}))  # as if begun on a GPU
    done = zsar("train", "--resume", "-o", run, "--precision", "auto")
    assert done.code == 0, done.err
    assert "bf16 makes training 3 to 8 times slower on a CPU" in done.err
    assert json.loads((run / "recipe.json").read_text())["precision"] == "bf16"
