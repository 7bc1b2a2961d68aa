"""Evaluating as a model's authors do, and the number that they published beside the measured one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import zsar_cli
from tests import published_files as files
from tests.tiny_models import make_tiny_clip
from tests.video_files import write_video
from zsar_cli import UsageError
from zsar_cli.evaluation.inference import Options
from zsar_cli.evaluation.presets import as_far_as, as_published, follow_published, published_line
from zsar_cli.model import load
from zsar_cli.model.load import load_model
from zsar_cli.model.published.load import mix_with
from zsar_cli.model.published.records import families, published_models
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.text.templates import builtin_templates, default_templates
from zsar_cli.video.sampling import Sampling

CPU: dict[str, Any] = {"workers": 0, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test videos")
    for name in ("ApplyEyeMakeup", "archery"):
        (folder / name).mkdir()
        write_video(folder / name / "0.mp4", 20, size=(48, 32))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MoTE's file, and the CLIP that it lacks parts of, which differs from it."""
    folder = tmp_path_factory.mktemp("published")
    base = {
        name: tensor + 0.1 * torch.ones_like(tensor) if "visual" in name else tensor
        for name, tensor in files.clip().items()
    }
    torch.save(base, folder / "base.pt")
    vectors = torch.nn.functional.normalize(files.draw("labels", (5, 64)), dim=-1)
    files.write(folder, "mote", files.content("mote", vectors))
    return folder


@pytest.fixture
def pe_core(tmp_path: Path) -> RecognizerModel:
    """A tiny model of PE-Core's layout under its name."""
    model = load_model(str(make_tiny_clip(tmp_path / "pe", "pe")))
    model.backbone.spec = "PE-Core-B-16/meta"
    return model


def test_an_evaluation_as_published_says_by_which_protocol(
    videos: Path, weights: Path, tmp_path: Path
) -> None:
    mote = f"mote:{weights / 'mote.pth'}"
    asked: dict[str, Any] = {"backbone": weights / "base.pt", **CPU}
    found = zsar_cli.evaluate(videos, mote, protocol_preset="published", output=tmp_path, **asked)
    said = json.loads((tmp_path / "results.json").read_text())["published"]
    assert (said["method"], said["sampling"], said["mix"]) == ("MoTE", "ticks", 0.01)
    assert said["protocol"] == "as published"
    assert found["templates"]["name"] == "clip28"
    assert (found["options"]["frames"], found["options"]["views"]) == (8, 3)
    with pytest.raises(UsageError):  # what was evaluated otherwise is no part of it
        zsar_cli.evaluate(videos, mote, frames=8, views=3, templates="clip28", output=tmp_path, **asked)


def test_weights_as_published_are_mixed_with_clip_and_have_another_fingerprint(weights: Path) -> None:
    spec, base = f"mote:{weights / 'mote.pth'}", str(weights / "base.pt")
    plain, mixed = (load_model(name, backbone=base) for name in (spec, f"{spec}@published"))
    own, other = (model.backbone.clip.visual.conv1.weight for model in (plain, mixed))
    torch.testing.assert_close(other - own, torch.full_like(own, 0.001), atol=1e-6, rtol=0)
    assert torch.equal(plain.backbone.clip.text_projection, mixed.backbone.clip.text_projection)
    assert plain.fingerprint() != mixed.fingerprint()


def test_mixing_is_of_names_that_both_have_and_begin_as_asked() -> None:
    ours = {"visual.a": torch.ones(2), "b": torch.ones(2), "visual.own": torch.ones(2)}
    original = {"visual.a": torch.zeros(2), "b": torch.zeros(2)}
    assert {n: t[0].item() for n, t in mix_with(ours, original, 0.25).items()} == {
        **{"visual.a": 0.75, "b": 0.75},
        "visual.own": 1.0,
    }
    assert mix_with(ours, original, 0.25, "visual.")["b"][0] == 1
    assert mix_with(ours, original, 0.0)["b"] is ours["b"]


@pytest.mark.parametrize(
    ("data", "templates"), [("kinetics400", "clip28"), ("ucf101", "clip48"), ("hmdb51", "clip48")]
)
def test_pe_core_sees_eight_frames_from_end_to_end(
    pe_core: RecognizerModel, data: str, templates: str
) -> None:
    _, options = as_published(pe_core.backbone.spec, Options(), None)
    assert follow_published(pe_core, data)("BrushHair") == "brush hair"
    assert pe_core.choose(options.frames, options.views) == Sampling(8, 1, "ends")
    assert default_templates(pe_core).name == templates


def test_pe_core_is_evaluated_as_published(
    videos: Path, pe_core: RecognizerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", lambda *_, **__: pe_core)
    found = zsar_cli.evaluate(videos, protocol_preset="published", **CPU)
    assert found["published"]["protocol"] == "as published"
    assert found["published"]["top1"] == {"kinetics400": 65.6}
    assert (found["templates"]["name"], found["options"]["frames"]) == ("clip28", 8)
    pe_core.way = None
    other = zsar_cli.evaluate(videos, "PE-Core-B-16/meta", frames=4, **CPU)
    assert other["published"]["protocol"] == "other frames, sampling than published"


def test_a_model_without_a_published_protocol_is_refused(videos: Path, tiny_clip_dir: Path) -> None:
    with pytest.raises(UsageError, match="for the families of published checkpoints"):
        zsar_cli.evaluate(videos, tiny_clip_dir, protocol_preset="published", **CPU)


@pytest.mark.parametrize("beside", [{"frames": 8}, {"views": 3}, {"crops": 3}, {"templates": "clip28"}])
def test_what_the_preset_sets_is_not_given_beside_it(videos: Path, beside: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"sets --{next(iter(beside))}"):
        zsar_cli.evaluate(videos, "mote:L-14", protocol_preset="published", **beside, **CPU)
    with pytest.raises(UsageError, match="protocol_preset"):
        zsar_cli.evaluate(videos, "mote:L-14", protocol_preset="as published", **CPU)


def test_names_of_ucf101_are_in_one_piece_for_those_who_read_its_list(weights: Path) -> None:
    files.write(weights, "vifi", files.content("vifi"))
    model = load_model(f"vifi:{weights / 'vifi.pth'}", backbone=str(weights / "base.pt"))
    write = follow_published(model, "ucf101")
    assert [write(name) for name in ("apply eye makeup", "yo yo", "BasketballDunk")] == [
        *("ApplyEyeMakeup", "YoYo"),
        "BasketballDunk",
    ]
    assert follow_published(model, "hmdb51")("brush hair") == "brush hair"


def results(data: str, labels: int, top1: float, **about: Any) -> dict[str, Any]:
    """What a line beside the published number is made from."""
    said = {"method": "TC-CLIP", "backbone": "ViT-B/16", "top1": {"ucf101": 82.9}, "repeatable": False}
    said |= {"protocol": "as published", "note": None}
    found = {"protocol": "zero-shot", "lists": [{"data": data, "labels": labels}], "summary": {"mean": top1}}
    return {**found, "published": said, **about}


def test_the_published_number_of_the_model_stands_beside_the_measured_one() -> None:
    line = published_line(results("ucf101", 101, 0.815))
    assert line is not None
    assert "published 82.9, measured here 81.5 (-1.4), as published" in line
    assert "cannot be reproduced exactly" in line


@pytest.mark.parametrize(
    "found",
    [
        results("ucf101", 50, 0.8),
        results("hmdb51", 51, 0.5),
        results("ucf101", 101, 0.8, protocol="generalised"),
        results("ucf101", 101, 0.8, published=None),
    ],
)
def test_a_number_that_does_not_compare_is_not_shown(found: dict[str, Any]) -> None:
    assert published_line(found) is None


def test_each_published_protocol_names_what_there_is() -> None:
    for record in published_models().values():
        assert {record.templates, *record.templates_of.values()} <= set(builtin_templates())
        assert {file.backbone for file in record.files}
    assert "pecore" not in families()
    assert {name: record.frames for name, record in families().items() if record.frames != 8} == {
        **{"vifi": 32, "ost": 32, "xclip": 32},
        **{"maxi": 16, "tcclip": 16, "videoprism": 16, "peav": 16},
    }


def test_what_a_published_number_rests_on_besides_is_said() -> None:
    assert as_far_as(families()["mote"]) == "as published"
    assert as_far_as(families()["ost"]).startswith("as published, without optimal transport")
    assert {name for name, record in families().items() if record.lacks is not None} == {
        *("froster", "ost", "viclip", "ezclip", "videoprism", "peav"),
    }
