"""One question has one answer: predict, --explain, windows, embed-prompts, eval and Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.close import assert_close
from tests.tiny_models import VIT, make_tiny_clip
from tests.video_files import write_video
from zsar_cli import Recognizer
from zsar_cli.model.alignment import average_views
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.load import load_model
from zsar_cli.model.zsar import Parts, RecognizerModel, TrainingRecord
from zsar_cli.prediction.explain import HeatMaps

NAMES = ["arm wrestling", "shooting a basketball", "tai chi"]
DESCRIPTIONS = {"arm wrestling": ["two people push hands at a table"], "tai chi": ["slow moves", "old art"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder a class, one video in each; and descriptions, and templates of the user's own."""
    folder = tmp_path_factory.mktemp("one-answer")
    for number, name in enumerate(NAMES):
        (folder / "videos" / name).mkdir(parents=True)
        write_video(folder / "videos" / name / "clip.mp4", 12 + 7 * number, size=(96, 64))
    (folder / "descriptions.json").write_text(json.dumps(DESCRIPTIONS | {"shooting a basketball": []}))
    (folder / "own.yaml").write_text('name: own\npositive: ["see {} now", "{}!"]\nnegative: ["not {}"]\n')
    return folder


@pytest.fixture(scope="module")
def motion_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the whole method that was trained with 3 frames and the templates ``plain``."""
    torch.manual_seed(0)
    parts = Parts(width=16, queries=2, layers=1, heads=2)
    record = TrainingRecord(templates="plain", frames=3, data="somewhere", classes=NAMES)
    model = RecognizerModel(Backbone.from_config(dict(VIT)), parts, record)
    assert model.project is not None
    torch.nn.init.normal_(model.project.weight)
    folder = tmp_path_factory.mktemp("motion")
    model.save(folder)
    return folder


def close(value: Any) -> Any:
    return pytest.approx(value, abs=2e-5)


WAYS = {
    "default": ([], [], {}),
    "templates": (["--templates", "ssv2"], ["--templates", "ssv2"], {"templates": "ssv2"}),
    "own templates": (["--templates", "own.yaml"], ["--templates", "own.yaml"], {"templates": "own.yaml"}),
    "descriptions": (["--labels", "descriptions.json"], ["--descriptions", "descriptions.json"], {}),
    "views": (["--views", 2, "--crops", 3], ["--views", 2, "--crops", 3], {"views": 2, "crops": 3}),
    "frames": (["--frames", 5], ["--frames", 5], {"frames": 5}),
}


@pytest.mark.parametrize("kind", ["plain", "motion"])
@pytest.mark.parametrize("way", WAYS)
def test_predict_explain_eval_windows_and_python_agree(
    zsar, data, tiny_clip_dir, motion_dir, tmp_path, monkeypatch, way, kind
):
    monkeypatch.chdir(data)
    model = tiny_clip_dir if kind == "plain" else motion_dir
    asked, evaluated, python = WAYS[way]
    common = ("--model", model, "--workers", 0, "--precision", "fp32")
    labels = asked if way == "descriptions" else [*asked, *(f"--label={name}" for name in sorted(NAMES))]
    found = zsar("predict", "videos", *common, *labels, "-k", 3).records
    explained = found
    if way == "default":
        explained = zsar("predict", "videos", *common, *labels, "-k", 3, "--explain", tmp_path / "s").records
    done = zsar("eval", "--data", "videos", *common, *evaluated, "--output", tmp_path / "eval")
    assert done.code == 0, done.err
    lines = (tmp_path / "eval" / "predictions.jsonl").read_text().splitlines()
    records = {r["video"]: r for r in map(json.loads, lines) if "rank" in r}
    assert len(records) == len(found) == 3
    recognizer = Recognizer.load(str(model), precision="fp32")
    wanted = "descriptions.json" if way == "descriptions" else sorted(NAMES)
    for record, other in zip(found, explained, strict=True):
        own = next(r for video, r in records.items() if record["video"].endswith(video))
        result = recognizer.predict(record["video"], wanted, **python)
        seen = recognizer.explain(record["video"], wanted, **python)
        scores = {p["label"]: p["score"] for p in record["predictions"]}
        yes = {p["label"]: p["yes"] for p in record["predictions"]}
        assert record["frames"] == other["frames"] == result.frames
        for labelled in (other["predictions"], result.to_record()["predictions"]):
            assert {p["label"]: p["score"] for p in labelled} == close(scores)
            assert {p["label"]: p["yes"] for p in labelled} == close(yes)
        assert {p.label: p.score for p in seen.labels} == close(scores)
        assert dict(own["top"]) == close(scores)
        kind_of_unknown = "bank" if kind == "plain" else "yes"
        for unknown in (other["unknown"], result.unknown, seen.unknown, own["unknown"][kind_of_unknown]):
            assert unknown == close(record["unknown"])
        if "views" not in python:
            window = recognizer.segments(record["video"], wanted, window=100, min_confidence=0, **python)
            (segment,) = window.segments
            assert segment.unknown == pytest.approx(record["unknown"], abs=0.02)  # its grid is of times


@pytest.mark.parametrize("kind", ["plain", "motion"])
def test_a_file_of_embeddings_answers_as_its_labels_do(zsar, data, tiny_clip_dir, motion_dir, tmp_path, kind):
    model = tiny_clip_dir if kind == "plain" else motion_dir
    common = ("--model", model, "--precision", "fp32")
    labels = ("--labels", data / "descriptions.json", "--templates", data / "own.yaml")
    assert zsar("embed-prompts", *common, *labels, "-o", tmp_path / "p.safetensors").code == 0
    asked = ("predict", data / "videos", *common, "--workers", 0)
    direct = zsar(*asked, *labels).records
    filed = zsar(*asked, "--prompts", tmp_path / "p.safetensors").records
    assert len(direct) == 3
    for one, other in zip(direct, filed, strict=True):
        assert one["unknown"] == close(other["unknown"])
        assert [p["label"] for p in one["predictions"]] == [p["label"] for p in other["predictions"]]
        assert [p["score"] for p in one["predictions"]] == close([p["score"] for p in other["predictions"]])


def test_embeddings_without_a_bank_are_refused_for_a_plain_clip(tiny_clip_dir):
    from dataclasses import replace

    from zsar_cli.errors import UsageError

    recognizer = Recognizer.load(str(tiny_clip_dir))
    prompts = replace(recognizer.embed_labels(NAMES), bank=None)
    with pytest.raises(UsageError, match="needs a phrase bank"):
        recognizer.embed_labels(prompts)


def test_a_phrase_of_the_bank_as_a_label_has_the_bank_s_embedding(tiny_clip_dir):
    from zsar_cli.text.templates import phrase_bank

    recognizer = Recognizer.load(str(tiny_clip_dir), precision="fp32")
    for templates in (None, "ssv2"):
        prompts = recognizer.embed_labels(phrase_bank()[:3], templates)
        torch.testing.assert_close(prompts.positive, prompts.bank[:3], atol=1e-6, rtol=0)


def test_a_run_is_shown_the_frames_it_was_trained_with(zsar, data, motion_dir, tmp_path):
    video = data / "videos" / NAMES[0] / "clip.mp4"
    asked = ("predict", video, "--model", motion_dir, *(f"--label={name}" for name in NAMES), "--workers", 0)
    assert zsar(*asked).records[0]["frames"] == 3
    assert zsar(*asked, "--frames", 8).records[0]["frames"] == 8
    assert zsar(*asked, "--explain", tmp_path / "sheets").records[0]["frames"] == 3
    assert zsar(*asked, "--window", 100).records[0]["frames"] == 3
    recognizer = Recognizer.load(motion_dir)
    assert recognizer.predict(video, NAMES).frames == 3
    assert next(recognizer.predict_many([video], NAMES, workers=0)).frames == 3
    assert len(recognizer.explain(video, NAMES).frames) == 3
    assert recognizer.segments(video, NAMES, window=100).frames == 3
    zsar("eval", "--data", data / "videos", "--model", motion_dir, "--workers", 0, "-o", tmp_path / "eval")
    assert json.loads((tmp_path / "eval" / "results.json").read_text())["options"]["frames"] == 3


def test_views_are_averaged_to_unit_length():
    views = F.normalize(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    mean = average_views(views)
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(mean, F.normalize(views.mean(dim=1), dim=-1))


def test_videos_of_all_sizes_and_lengths_answer_alike_alone_and_together(tmp_path, motion_dir, monkeypatch):
    for number, (frames, size) in enumerate([(1, (64, 64)), (2, (160, 64)), (9, (34, 18)), (12, (64, 160))]):
        (tmp_path / str(number)).mkdir()
        write_video(tmp_path / str(number) / "same-name.mp4", frames, size=size)
    videos = sorted(tmp_path.rglob("*.mp4"))
    recognizer = Recognizer.load(motion_dir, precision="fp32")
    for options in ({}, {"views": 2, "crops": 3}):
        alone = [recognizer.predict(video, NAMES, **options) for video in videos]
        with monkeypatch.context() as patch:
            patch.setattr(
                "zsar_cli.prediction.clips.ready_batches", lambda items, size, stop: iter([list(items)])
            )
            together = list(recognizer.predict_many(videos, NAMES, workers=0, **options))
        for video, one, other in zip(videos, alone, together, strict=True):
            assert one.video == other.video == str(video)
            assert one.unknown == pytest.approx(other.unknown, abs=1e-5)
            scores = {found.label: found.score for found in one.predictions}
            assert {p.label: p.score for p in other.predictions} == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("beta", [0.0, 30.0])
def test_held_out_clips_are_judged_as_predict_answers(data, motion_dir, beta):
    from zsar_cli.data.dataset import Item
    from zsar_cli.text.embeddings import embed_labels
    from zsar_cli.training.holdout import top1
    from zsar_cli.video.pool import DecodePool

    recognizer = Recognizer.load(motion_dir, precision="fp32")
    recognizer.model.beta = beta
    videos = sorted((data / "videos").rglob("*.mp4"))
    answers = [recognizer.predict(video, NAMES).predictions[0].label for video in videos]
    for right in range(len(NAMES)):  # of so many clips the list says what predict answers
        labels = [
            NAMES.index(answer) if number < right else (NAMES.index(answer) + 1) % len(NAMES)
            for number, answer in enumerate(answers)
        ]
        items = [Item(str(video), label) for video, label in zip(videos, labels, strict=True)]
        text = embed_labels(recognizer.model, NAMES)
        found = top1(recognizer.model, items, text, frames=3, pool=DecodePool(0), batch_size=2)
        assert found == pytest.approx(right / len(videos))


# --- --explain is the loop of predict ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "motion"])
def test_explain_reads_and_fills_the_cache(
    zsar, data, tiny_clip_dir, motion_dir, tmp_path, monkeypatch, kind
):
    model = tiny_clip_dir if kind == "plain" else motion_dir
    asked = ("predict", data / "videos", "--model", model, *(f"--label={name}" for name in NAMES))
    asked = (*asked, "--workers", 0, "--precision", "fp32", "--cache", tmp_path / "cache")
    plain = zsar(*asked)
    assert "3 added" in plain.err
    encoded = []
    encode = Backbone._encode_frames
    monkeypatch.setattr(Backbone, "_encode_frames", lambda self, x: encoded.append(len(x)) or encode(self, x))
    explained = zsar(*asked, "--explain", tmp_path / "sheets")
    assert "3 videos read" in explained.err
    answers = [{key: value for key, value in r.items() if key != "written"} for r in explained.records]
    assert_close(answers, plain.records)
    # What only the tower can tell of a plain CLIP's patches is asked for the frames on show, and no others
    assert [count for count in encoded if count > 1] == ([] if kind == "motion" else [8, 8, 8])
    assert len(list((tmp_path / "sheets").rglob("*.png"))) == 3


def test_explain_takes_several_videos_through_the_model_together(data, motion_dir, monkeypatch):
    from zsar_cli.prediction.clips import AnswerOptions, ClipOptions
    from zsar_cli.video.pool import DecodePool

    recognizer = Recognizer.load(motion_dir, precision="fp32")
    videos = sorted(map(str, (data / "videos").rglob("*.mp4")))
    text = recognizer.embed_labels(NAMES)
    together = []
    embed = HeatMaps.embed
    monkeypatch.setattr(HeatMaps, "embed", lambda *a: together.append(len(set(a[2]))) or embed(*a))
    monkeypatch.setattr(
        "zsar_cli.prediction.clips.ready_batches", lambda items, size, stop: iter([list(items)])
    )
    options = ClipOptions(views=2, crops=3)
    with DecodePool(0) as pool:
        found = list(recognizer.answers(videos, text, pool, options, AnswerOptions(evidence=True)))
    assert together == [3]
    for video, (result, evidence) in zip(videos, found, strict=True):
        alone = recognizer.explain(video, NAMES, views=2, crops=3)
        assert result.unknown == close(alone.unknown)
        assert np.array_equal(evidence.frames, alone.frames)
        assert evidence.heat == pytest.approx(alone.heat, abs=1e-5)


def test_a_full_gpu_is_a_sentence_for_predict_and_explain(data, tiny_clip_dir, monkeypatch):
    from zsar_cli.errors import UsageError

    recognizer = Recognizer.load(tiny_clip_dir)
    video = next((data / "videos").rglob("*.mp4"))

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    recognizer.embed_labels(NAMES)
    monkeypatch.setattr(Backbone, "encode_frames", full)
    for ask in (recognizer.predict, recognizer.explain, recognizer.segments):
        with pytest.raises(UsageError, match="out of memory"):
            ask(video, NAMES)


# --- the tower's own grid of patches -----------------------------------------------------------------------------


def test_the_patch_grid_is_the_tower_s_own_where_it_is_no_square(tmp_path, motion_dir):
    config = {**VIT, "vision_cfg": {**VIT["vision_cfg"], "image_size": [16, 64]}}
    torch.manual_seed(0)
    backbone = Backbone.from_config(config)
    assert backbone.patch_grid == (2, 8)
    model = RecognizerModel(backbone, Parts(width=16, queries=1, layers=1, heads=2)).eval()
    pixels = torch.zeros(1, 4, 3, 16, 64)
    pixels[:, 2:, :, 8:, 24:32] = 3.0  # the lower row, the fourth column
    with torch.no_grad():
        heat = model(pixels).motion_map[0]
    seen = heat.reshape(4, *backbone.patch_grid)[2]
    assert divmod(int(seen.argmax()), 8) == (1, 3)
    assert load_model(str(motion_dir)).backbone.patch_grid == (4, 4)
    for layout in ("siglip", "convolutional"):
        tower = load_model(str(make_tiny_clip(tmp_path / layout, layout))).backbone
        rows, columns = tower.patch_grid
        assert (
            rows * columns == tower.encode_frames(torch.zeros(1, 3, *tower.preprocess.size)).tokens.shape[1]
        )
