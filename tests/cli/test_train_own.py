"""Classes of one's own: a folder of a few clips a class is all that ``zsar train`` and ``predict`` need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.video_files import write_video
from zsar_cli import Recognizer
from zsar_cli.errors import UsageError
from zsar_cli.model.load import load_model
from zsar_cli.text.embeddings import PromptEmbeddings, embed_labels
from zsar_cli.training import baselines, cost, fit, own

CLASSES = ("blue", "green", "red")
FEW_STEPS = ("--steps", 6, "--validate-every", 3, "--batch-size", 4, "--frames", 2, "--workers", 0)
SMALL = ("--parts-width", 16, "--parts-queries", 2, "--parts-layers", 1, "--parts-heads", 2)


def write_classes(folder: Path, count: int = 6) -> Path:
    """Clips of one colour each, with noise."""
    for channel, name in enumerate(reversed(CLASSES)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = np.random.default_rng([channel, number]).integers(0, 60, (48, 64, 3), dtype=np.uint8)
            picture[..., channel] += 150
            write_video(folder / name / f"{number}.mp4", 4, picture=picture)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return write_classes(tmp_path_factory.mktemp("mine"))


@pytest.fixture(scope="module")
def options(tiny_clip_dir) -> tuple:
    return ("--model", tiny_clip_dir, *FEW_STEPS, *SMALL)


@pytest.fixture
def run(zsar, videos, options, tmp_path) -> Path:
    done = zsar("train", "--data", videos, "--output", tmp_path / "run", *options)
    assert done.code == 0, done.err
    (tmp_path / "said.txt").write_text(done.err)
    return tmp_path / "run"


def test_a_folder_of_a_few_clips_says_what_it_takes_ends_and_says_what_training_brought(run):
    said = (run.parent / "said.txt").read_text()
    expected = next(line for line in said.splitlines() if "training clips" in line)
    for part in ("Recipe own: ", "15 training clips of 3 classes", "3 held out", "6 steps", "s per step"):
        assert part in expected
    assert f"on cpu in fp32, 2 frames, 3 classes; 15 clips and 3 held out, to {run}." in said
    assert "Encoding 18 clips once before the first step." in said
    for row in ("before training (zero-shot)", "linear probe on averaged frames", "trained "):
        assert row in said
    assert f"zsar predict VIDEO --model {run}" in said
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["tune"], recipe["augment"], recipe["parts"]["residual"]) == ("modules", False, True)
    assert not (run / ".features").exists()  # nobody needs to know of it
    assert json.loads((run / "inputs.json").read_text())["held_out"] == 3


def test_the_model_of_the_run_is_the_one_that_did_best(run):
    final, best = (load_file(folder / "model.safetensors") for folder in (run, run / "best"))
    assert all(torch.equal(final[name], best[name]) for name in final)
    assert float(final["residual"].abs().max()) > 0


def test_predict_without_labels_uses_the_classes_of_the_run(zsar, run, videos, tmp_path):
    video = videos / "red" / "0.mp4"
    done = zsar("predict", video, "--model", run, "--workers", 0)
    assert done.code == 0, done.err
    assert "the 3 classes that" in done.err
    assert {x["label"] for x in done.records[0]["predictions"]} == set(CLASSES)
    given = zsar("predict", video, "--model", run, "--workers", 0, "--label", "dog", "--label", "red")
    assert {x["label"] for x in given.records[0]["predictions"]} == {"dog", "red"}
    recognizer = Recognizer.load(run)
    answer = recognizer.predict(video)
    assert answer.predictions[0].score == pytest.approx(done.records[0]["predictions"][0]["score"], abs=1e-4)
    kept = zsar("embed-prompts", "--model", run, "--output", tmp_path / "own.safetensors")
    assert kept.code == 0, kept.err
    embeddings = PromptEmbeddings.load(tmp_path / "own.safetensors")
    assert tuple(embeddings.labels) == CLASSES
    assert torch.allclose(embeddings.positive, recognizer.embed_labels().positive, atol=1e-6)


def test_a_model_that_learned_no_classes_asks_for_labels(zsar, videos, tiny_clip_dir):
    for model in ("motion-tiny", tiny_clip_dir):
        done = zsar("predict", videos, "--model", model)
        assert done.code == 2
        assert "No labels are given" in done.err
    with pytest.raises(UsageError, match="No labels are given"):
        Recognizer.load("motion-tiny").predict(videos / "red" / "0.mp4")


def test_clips_of_a_folder_val_are_what_the_end_table_is_about(zsar, options, tmp_path):
    write_classes(tmp_path / "data" / "train", 2)
    write_classes(tmp_path / "data" / "val", 3)
    done = zsar("train", "--data", tmp_path / "data", "--output", tmp_path / "run", *options)
    assert done.code == 0, done.err
    assert "6 training clips of 3 classes, 9 held out" in done.err
    assert "on 9 held-out clips" in done.err


def test_a_run_that_stops_goes_on_with_its_own_cache_to_the_same_model(
    zsar, videos, run, options, tmp_path, monkeypatch
):
    from zsar_cli.training import run as training_run

    again = tmp_path / "again"
    train = training_run.run_training
    rows = []

    def stopping(*arguments, **named):
        named["stop"] = lambda: len(rows) >= 2
        report = named["report"]
        named["report"] = lambda row, steps: (rows.append(row), report(row, steps))
        return train(*arguments, **named)

    monkeypatch.setattr(training_run, "run_training", stopping)
    stopped = zsar("train", "--data", videos, "--output", again, *options)
    assert stopped.code == 130, stopped.err
    assert (again / ".features").is_dir()
    monkeypatch.setattr(training_run, "run_training", train)
    went_on = zsar("train", "--resume", "--output", again, "--workers", 0)
    assert went_on.code == 0, went_on.err
    assert not (again / ".features").exists()
    one, other = (load_file(folder / "model.safetensors") for folder in (run, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_disk_that_is_too_small_for_the_features_is_left_alone(
    zsar, videos, options, tmp_path, monkeypatch
):
    from types import SimpleNamespace

    monkeypatch.setattr(
        "zsar_cli.training.start.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000)
    )
    done = zsar("train", "--data", videos, "--output", tmp_path / "run", *options)
    assert done.code == 0, done.err
    assert "--cache FOLDER keeps the features elsewhere" in done.err
    assert "linear probe" not in done.err


def test_a_dry_run_names_the_recipe_and_counts_each_clip_once(zsar, videos, options, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "model_cost", lambda recipe: fit.Cost(bytes=1, flop=10**9))
    shown = zsar("train", "--data", videos, "--output", tmp_path / "run", *options, "--dry-run")
    assert "Recipe own" in shown.err
    assert "6 of 4 clips" in shown.out
    assert "cost       18 clips of 0.001 TFLOP" in shown.out  # their features are kept


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, True),
        ({"tune": "full"}, False),
        ({"data": "motion-shapes"}, False),
        ({"data": None}, False),
    ],
)
def test_own_is_for_small_data_of_ones_own(videos, fields, chosen):
    assert own.fits({"data": str(videos), **fields}, None) is chosen


def test_many_clips_a_class_are_no_small_data(videos, monkeypatch):
    monkeypatch.setattr(own, "MOST_A_CLASS", 5)
    assert not own.fits({"data": str(videos)}, None)


# --- what each class learns


def test_a_residual_moves_its_own_class_and_no_other_label(run):
    model = load_model(str(run))
    with_own = embed_labels(model, ["Red", "a red car"], bank=False).positive
    words = embed_labels(model, ["Red", "a red car"], bank=False, learned=False).positive
    assert not torch.allclose(with_own[0], words[0])
    assert torch.allclose(with_own[1], words[1], atol=1e-6)
    assert torch.allclose(with_own.norm(dim=-1), torch.ones(2))


def test_classes_that_a_model_knows_keep_their_residual(run):
    model = load_model(str(run))
    before = dict(zip(model.record.classes, model.residual.detach().clone(), strict=True))
    model.learn_classes(["white", "red"])
    assert torch.equal(model.residual[1], before["red"])
    assert not model.residual[0].any()


def test_a_probe_finds_what_is_linearly_there():
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(30) % 3
    video = torch.nn.functional.one_hot(target, 8) + 0.3 * torch.randn(30, 8, generator=generator)
    held_out = video[15:], target[15:]
    assert baselines.accuracy(baselines.linear_probe((video[:15], target[:15]), held_out, 3), *held_out) > 0.9


def test_a_worse_model_is_called_worse(capsys):
    from zsar_cli.cli.console import _verdict

    table = baselines.Baselines(20, 0.5, 0.9)
    assert "linear probe is 30.0% better" in _verdict(0.6, table)
    assert "did not improve" in _verdict(0.5, table)
    assert "+40.0% over zero-shot" in _verdict(0.9, table)
    assert "probe" not in _verdict(0.9, table)
