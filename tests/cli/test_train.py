"""``zsar train``, driven as people drive it: flags, files, interruption, and errors that say what to do."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import few_shapes
from tests.tiny_models import VIT
from tests.video_files import write_video
from zsar_cli.errors import UsageError
from zsar_cli.training.checkpoint import told

pytestmark = pytest.mark.usefixtures("few_shapes")
TINY = {
    "data": "motion-shapes",
    "model": "tiny",
    "frames": 2,
    "steps": 4,
    "batch_size": 4,
    "lr": 1e-3,
    "module_lr": 1e-3,
    "holdout": 0.001,
    "validate_every": 5,
    "templates": "plain",  # four texts a class
    "architecture": {
        **VIT,
        "vision_cfg": {**VIT["vision_cfg"], "patch_size": 16},
        "text_cfg": {**VIT["text_cfg"], "width": 8},  # the embeddings of 49,408 tokens fill the checkpoints
    },
    "parts": {"width": 16, "queries": 2, "layers": 1, "heads": 2},
}
TIMES = ("seconds", "data_wait", "clips_per_second")  # of a row in metrics.jsonl
SMALL = ("--parts-width", 16, "--parts-queries", 2, "--parts-layers", 1, "--parts-heads", 2)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    """A recipe that trains a tiny model from scratch on motion-shapes."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A folder with a folder of videos a class, as people have it."""
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(["clapping", "waving"] * 6):
        (root / name).mkdir(exist_ok=True)
        write_video(root / name / f"{number}.mp4", 4 + number, size=(64, 48))
    return root


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- a whole run


def test_a_run_leaves_models_metrics_and_checkpoints(zsar, recipe, tmp_path):
    run = tmp_path / "run"
    done = zsar("train", "--config", recipe, "--output", run, "--steps", 7, "--tensorboard", "--lr", "2e-3")
    assert (done.code, done.out) == (0, "")
    for said in (
        "step 1/7  loss ",
        " pos ",
        " neg ",
        " dis ",
        "lr 2.0e-03 and 1.0e-03",
        "left",
        "held-out clips",
    ):
        assert said in done.err
    steps = [row for row in rows(run) if "total" in row]
    assert all(0 <= row["data_wait"] <= row["seconds"] for row in steps)
    assert [row["step"] for row in steps] == list(range(1, 8))
    assert steps[0]["lr"] == 2e-3
    assert steps[-1]["lr"] < steps[1]["lr"]
    assert [row["step"] for row in rows(run) if "held_out_top1" in row] == [5, 7]
    assert (run / "checkpoints" / "step-00000007" / "optimizer.safetensors").is_file()
    assert json.loads((run / "recipe.json").read_text())["lr"] == 2e-3
    measured = yaml.safe_load((run / "config.yaml").read_text())["metrics"]
    assert {"seen_top1", "unseen_top1"} <= measured.keys()
    for model in (run, run / "best"):
        predicted = zsar("predict", write_video(tmp_path / "a.mp4"), "--model", model, "--label", "x")
        assert predicted.code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    assert [event.step for event in events.Scalars("total")] == list(range(1, 8))
    assert zsar("--quiet", "train", "-c", recipe, "-o", tmp_path / "quiet", "--steps", 1).err == ""


def test_every_field_of_a_recipe_has_a_flag(zsar, recipe, tmp_path, tiny_clip_dir):
    values = {
        "model": str(tiny_clip_dir),
        "templates": "kinetics",
        "frames": 3,
        "clip_seconds": 2.5,
        "steps": 1,
        "epochs": 2,
        "least_steps": 3,
        "patience": 4,
        "batch_size": 2,
        "accumulate": 2,
        "lr": 1e-4,
        "module_lr": 2e-4,
        "negative_lr": 3e-4,
        "weight_decay": 0.01,
        "layer_decay": 0.9,
        "warmup": 0.2,
        "final_lr": 0.1,
        "clip_norm": 0.5,
        "smoothing": 0.1,
        "w_neg": 0.1,
        "w_dis": 0.2,
        "w_opp": 0.3,
        "w_keep": 0.4,
        "beta": 0.5,
        "pretrained_weight": 0.6,
        "swa": 1,
        "shots": 2,
        "holdout": 0.0,
        "validate_every": 9,
        "flip": False,
        "augment": True,
        "crop": "multiscale",
        "crop_scale": 0.7,
        "mixup": 0.3,
        "cutmix": 0.4,
        "foreign": 3,
        "twins": True,
        "colour_jitter": 0.1,
        "grey": 0.2,
        "precision": "bf16",
        "gradient_checkpointing": True,
        "half": True,
        "seed": 5,
        "tune": "full",
        "data": "motion-shapes",
        "labels": "ucf101",
        "label_column": "2",
    }
    parts = {"aggregation": True, "gated": False, "negatives": "fixed", "separation": True}
    parts |= {"width": 8, "queries": 1, "layers": 2, "heads": 1, "residual": True, "damped": False}
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    flags = []
    for name, value in [*values.items(), *((f"parts_{name}", value) for name, value in parts.items())]:
        name = name.replace("_", "-")
        flags += (
            [f"--{name}" if value else f"--no-{name}"] if isinstance(value, bool) else [f"--{name}", value]
        )
    done = zsar("train", "--config", empty, "--output", tmp_path / "run", *flags)
    assert done.code == 0, done.err
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert written == {**values, "architecture": None, "parts": parts}
    architecture = tmp_path / "open_clip_config.json"
    architecture.write_text(json.dumps({"model_cfg": TINY["architecture"]}))
    less = {k: v for k, v in TINY.items() if k != "architecture"}
    empty.write_text(yaml.safe_dump(less))
    done = zsar(
        "train", "-c", empty, "-o", tmp_path / "scratch", "--architecture", architecture, "--steps", 1
    )
    assert done.code == 0, done.err
    assert (
        json.loads((tmp_path / "scratch" / "recipe.json").read_text())["architecture"] == TINY["architecture"]
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "fast"], "--lr must be a number, not 'fast'"),
        (["--lr", "-1"], "lr must be at least 0, not -1.0"),
        (["--lr", "nan"], "lr must be a number"),
        (["--tune", "half"], "tune must be full or modules, not 'half'"),
        (["--parts-negatives", "all"], "parts.negatives must be learned, fixed or none"),
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--templates", "nothing"], "neither a template file"),
        (["--architecture", "/nowhere.json"], "/nowhere.json cannot be read"),
        (["--data", "nothing"], "neither a built-in data set"),
        (["--config", "nothing"], "no recipe 'nothing'"),
        (["--swa", "2"], "swa needs pretrained weights"),
        (["--device", "abacus"], "Unknown device"),
    ],
)
def test_wrong_values_take_one_line(zsar, recipe, tmp_path, flags, said):
    done = zsar("train", "--config", recipe, "--output", tmp_path / "run", *flags)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


# --- data


def test_kinetics_with_a_root_trains_and_without_says_what_is_missing(zsar, tiny_clip_dir, tmp_path):
    lacking = zsar("train", "--output", tmp_path / "run", "--model", tiny_clip_dir)
    assert lacking.code == 2
    assert "kinetics400" in lacking.err
    assert "--data-root" in lacking.err
    for number, name in enumerate(["abseiling", "zumba", "abseiling"]):
        folder = tmp_path / "k400" / "train" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number:011d}_000001_000011.mp4", 6, size=(64, 48))
    options = ("--data", "kinetics400", "--data-root", tmp_path / "k400", "--model", tiny_clip_dir)
    done = zsar(
        *(
            "train",
            *options,
            "--output",
            tmp_path / "run",
            "--steps",
            1,
            "--batch-size",
            2,
            "--accumulate",
            1,
        ),
        *("--workers", 0, "--frames", 2, *SMALL),
    )
    assert done.code == 0, done.err
    assert len(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["classes"]) == 400


def test_one_class_teaches_nothing(zsar, tmp_path, tiny_clip_dir):
    (tmp_path / "data" / "waving").mkdir(parents=True)
    write_video(tmp_path / "data" / "waving" / "a.mp4", 4, size=(64, 48))
    done = zsar("train", "--data", tmp_path / "data", "--model", tiny_clip_dir, "--output", tmp_path / "run")
    assert done.code == 2
    assert "has only one class" in done.err
    assert not (tmp_path / "run").exists()


def test_few_shots_and_a_dry_run(zsar, videos, tmp_path, tiny_clip_dir):
    options = ("train", "--data", videos, "--model", tiny_clip_dir, "--output", tmp_path / "run", "--dry-run")
    whole = zsar(*options)
    assert "10 clips of 2 classes" in whole.out
    assert "held out   2 clips" in whole.out
    few = zsar(*options, "--shots", 3)
    assert "6 clips of 2 classes" in few.out
    assert "held out   2 clips" in few.out  # of those that were not drawn
    assert not (tmp_path / "run").exists()


def test_a_list_of_numbers_is_trained_on_with_the_names_of_its_classes(zsar, videos, tmp_path, tiny_clip_dir):
    listed = sorted(videos.rglob("*.mp4"))
    (tmp_path / "list.txt").write_text(
        "".join(f"{path} {int(path.parent.name == 'waving')}\n" for path in listed)
    )
    (tmp_path / "names.txt").write_text("clapping hands\nwaving\n")
    options = ("--data", tmp_path / "list.txt", "--model", tiny_clip_dir, "-c", "modules", *SMALL)
    options += ("--output", tmp_path / "run", "--steps", 1, "--batch-size", 2, "--frames", 2, "--workers", 0)
    unnamed = zsar("train", *options)
    assert unnamed.code == 2
    assert "--labels" in unnamed.err
    done = zsar("train", *options, "--labels", tmp_path / "names.txt")
    assert done.code == 0, done.err
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["classes"] == [
        "clapping hands",
        "waving",
    ]
    (tmp_path / "names.txt").unlink()  # the run has the names
    evaluated = zsar("eval", "--model", tmp_path / "run", "--format", "json")
    assert evaluated.code == 0, evaluated.err
    assert json.loads(evaluated.out)["parts"]["test"]["videos"] == 12


def test_the_column_of_the_label_is_named_once(zsar, videos, tmp_path, tiny_clip_dir):
    lines = [f"{path},who {int(path.stem) % 3},{path.parent.name}" for path in sorted(videos.rglob("*.mp4"))]
    (tmp_path / "columns.csv").write_text("\n".join(["video,who,what", *lines]) + "\n")
    options = ("--data", tmp_path / "columns.csv", "--model", tiny_clip_dir, "-c", "modules", *SMALL)
    options += ("--output", tmp_path / "run", "--steps", 1, "--batch-size", 2, "--frames", 2, "--workers", 0)
    unclear = zsar("train", *options)
    assert unclear.code == 2
    assert "--label-column" in unclear.err
    clear = zsar("train", *options, "--label-column", "what")
    assert clear.code == 0, clear.err
    evaluated = zsar("eval", "--model", tmp_path / "run", "--format", "json")
    assert evaluated.code == 0, evaluated.err
    assert json.loads(evaluated.out)["parts"]["test"]["classes"] == 2


def test_clips_of_a_folder_val_choose_the_best_model(zsar, videos, tmp_path, tiny_clip_dir):
    for path in videos.rglob("*.mp4"):
        purpose = ("train", "val", "test")[int(path.stem) % 3 if int(path.stem) < 4 else 0]
        (tmp_path / "data" / purpose / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / purpose / path.parent.name / path.name).symlink_to(path)
    options = ("train", "-c", "modules", "--data", tmp_path / "data", "--model", tiny_clip_dir, *SMALL)
    options += ("--output", tmp_path / "run", "--steps", 1, "--batch-size", 2, "--frames", 2, "--workers", 0)
    dry = zsar(*options, "--dry-run")
    assert "10 clips of 2 classes" in dry.out  # none is held out of them
    assert "held out   1 clips (val)" in dry.out
    done = zsar(*options)
    assert done.code == 0, done.err
    assert [row["step"] for row in rows(tmp_path / "run") if "held_out_top1" in row] == [1]
    assert "held out   0 clips" in zsar(*options, "--holdout", 0, "--dry-run").out
    (tmp_path / "data" / "val" / "jumping").mkdir()
    (tmp_path / "data" / "val" / "jumping" / "x.mp4").symlink_to(next(videos.rglob("*.mp4")))
    other = zsar(*options, "--dry-run")
    assert "held out   1 clips (val)" in other.out
    assert "their classes are not trained, such as 'jumping'" in other.err


def test_on_a_cpu_the_recipes_train_in_fp32(zsar, videos, tmp_path, tiny_clip_dir):
    for name in ("kinetics", "modules"):
        run = tmp_path / name
        done = zsar(
            *("train", "-c", name, "--data", videos, "--model", tiny_clip_dir, "--output", run, *SMALL),
            *("--steps", 1, "--batch-size", 2, "--accumulate", 1, "--frames", 2, "--workers", 0),
            *("--device", "cpu"),
        )
        assert done.code == 0, done.err
        assert json.loads((run / "recipe.json").read_text())["precision"] == "fp32"


def test_a_model_that_is_named_is_not_trained_from_scratch(zsar, recipe, tmp_path):
    """A recipe's architecture is for training from scratch; --model has the last word."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert zsar("train", "-c", recipe, "-o", first).code == 0
    done = zsar(
        "train", "-c", recipe, "-o", second, "--model", first, "--steps", 1, "--lr", 0, "--module-lr", 0
    )
    assert done.code == 0, done.err
    assert same_weights(first, second)


def test_a_model_of_zsars_own_is_trained_further(zsar, recipe, videos, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert zsar("train", "-c", recipe, "-o", first).code == 0
    options = ("train", "-c", "modules", "--data", videos, "--model", first, "-o", second, "--workers", 0)
    options += ("--steps", 2, "--batch-size", 2, "--frames", 2, "--precision", "fp32")
    done = zsar(*options)  # it has parts of its own, whatever the recipe's
    assert done.code == 0, done.err
    before, after = (load_file(run / "model.safetensors") for run in (first, second))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)


# --- interruption


def wait_for_step(process: Any, run: Path, step: int) -> None:
    deadline = time.monotonic() + 500
    while not any(row["step"] >= step for row in whole_rows(run)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def checkpoint(run: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*")), default=0)


def whole_rows(run: Path) -> list[dict[str, Any]]:
    """Without a line that is being written."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(zsar_process, recipe, tmp_path):
    options = (few_shapes.__file__, "train", "--config", recipe)
    options += ("--steps", 50, "--checkpoint-every", 2, "--validate-every", 20)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert zsar_process(*options, "--output", whole).wait(600) == 0
    chance = random.Random(0)
    ended = []
    for turn in range(20):
        resume = ["--resume"] if turn else []
        process = zsar_process(
            *options, "--output", killed, *resume, signal_at=(chance.randint(1, 80), tmp_path, signal.SIGKILL)
        )
        ended.append(process.wait(200))
    assert ended == [-signal.SIGKILL] * 20
    assert 0 < checkpoint(killed) < 50
    assert zsar_process(*options, "--output", killed, "--resume").wait(600) == 0
    assert same_weights(whole, killed)
    assert same_weights(whole / "best", killed / "best")

    def without_time(run: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows(run)]

    assert without_time(whole) == without_time(killed)


@pytest.mark.timeout(3000)
def test_videos_and_signals(zsar_process, videos, tiny_clip_dir, tmp_path):
    """SIGTERM ends a run that the command it prints continues; killed after that, it still ends in the same weights."""
    options = ("--data", videos, "--model", tiny_clip_dir, "--config", "kinetics", *SMALL, "--workers", 1)
    options += ("--steps", 24, "--batch-size", 3, "--accumulate", 2, "--frames", 2, "--checkpoint-every", 2)
    options += ("--precision", "fp32", "--lr", "1e-3", "--swa", 3, "--validate-every", 7)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert zsar_process("train", *options, "--output", whole).wait(600) == 0
    process = zsar_process("train", *options, "--output", stopped, signal_at=(40, stopped, signal.SIGTERM))
    assert process.wait(100) == 130
    assert 3 <= rows(stopped)[-1]["step"] <= 20
    said = process.read("stderr")
    command = shlex.split(said[said.index("zsar train --resume") :].splitlines()[0])
    process = zsar_process("train", *command[2:], signal_at=(20, stopped, signal.SIGKILL))
    assert process.wait(100) == -signal.SIGKILL
    done = zsar_process("train", *command[2:])
    assert done.wait(600) == 0, done.read("stderr")
    assert same_weights(whole, stopped)
    assert [row["step"] for row in rows(stopped) if "total" in row] == list(range(1, 25))


def test_resuming_what_is_there_and_what_is_not(zsar, recipe, tmp_path):
    run = tmp_path / "run"
    fresh = zsar("train", "-c", recipe, "-o", run, "--resume")
    assert fresh.code == 0
    assert "no checkpoint to resume from; the run starts at the beginning" in fresh.err
    before = load_file(run / "model.safetensors")
    taken = zsar("train", "-c", recipe, "-o", run)
    assert taken.code == 2
    assert "already holds a run; continue it with --resume" in taken.err
    other = zsar("train", "-o", run, "--resume", "--lr", 0.5)
    assert other.code == 2
    assert "was trained with another lr" in other.err
    assert zsar("train", "-o", run, "--resume").code == 0  # done already: its recipe is in its folder
    after = load_file(run / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


# --- what goes wrong


def test_a_loss_that_is_not_finite_stops_with_a_message(zsar, recipe, tmp_path):
    run = tmp_path / "run"
    done = zsar(
        *("train", "-c", recipe, "-o", run, "--checkpoint-every", 1, "--steps", 60),
        *("--lr", 1e6, "--module-lr", 1e6, "--warmup", 0.5, "--clip-norm", 1e6),
    )
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert "became" in last
    assert "Try a lower --lr" in last
    assert "the last good checkpoint is kept" in last
    assert not (run / "model.safetensors").exists()
    (kept,) = [
        load_file(path / "model.safetensors") for path in sorted((run / "checkpoints").glob("step-*"))
    ][-1:]
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_metrics_are_not_written_through_a_link_and_a_full_disk_is_a_clear_error(zsar, recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").symlink_to("/dev/full")
    done = zsar("train", "-c", recipe, "-o", run)
    assert done.code == 2
    assert f"{run}/metrics.jsonl is a link" in done.err.splitlines()[-1]
    full = pytest.raises(UsageError, match=r"metrics\.jsonl cannot be written: no space left on device")
    with full, told(run / "metrics.jsonl"):
        raise OSError(28, "No space left on device")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk with no room for a model
from zsar_cli.cli.app import main
main(sys.argv[1:])
"""


def test_no_room_for_a_checkpoint_leaves_none_half_written(zsar_process, recipe, tmp_path):
    run, script = tmp_path / "run", tmp_path / "limited.py"
    script.write_text(LIMITED)
    done = zsar_process(script, "train", "-c", recipe, "-o", run, "--holdout", 0)
    assert done.wait(200) == 2, done.read("stderr")
    assert "cannot be written: the disk is full" in done.read("stderr").splitlines()[-1]
    assert list((run / "checkpoints").iterdir()) == []


def test_a_folder_that_cannot_be_written(zsar, recipe, tmp_path):
    (tmp_path / "file").touch()
    done = zsar("train", "-c", recipe, "-o", tmp_path / "file" / "run")
    assert done.code == 2
    assert "cannot be written" in done.err
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        done = zsar("train", "-c", recipe, "-o", tmp_path / "closed" / "run")
        assert done.code == 2
        assert "cannot be written" in done.err


def test_prepared_videos_are_trained_on(zsar, videos, tmp_path, tiny_clip_dir):
    small = tmp_path / "small"
    done = zsar("train", "--data", videos, "--prepare", small, "--workers", 0)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1] == f"Next:  zsar train --data {small}/data.yaml --data-root {small}"
    options = ("--data", small / "data.yaml", "--data-root", small, "--output", tmp_path / "run", *SMALL)
    options += ("--model", tiny_clip_dir, "--steps", 1, "--batch-size", 2, "--frames", 2, "--workers", 0)
    assert zsar("train", *options).code == 0
    assert zsar("train", "--data", videos, "--prepare", videos).code == 2
    described = zsar("train", "--data", videos, "--prepare", tmp_path / "other", "--dry-run")
    assert (described.code, described.out) == (2, "")
    assert "--dry-run describes a training" in described.err
