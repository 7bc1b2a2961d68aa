"""int8: agreement with fp32, towers of every family, and what it must refuse."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from benchmarks.agreement import agreement, answers, bundled, in_precision, unseen
from tests.tiny_models import TIMM, VIT, make_tiny_clip
from tests.video_files import write_video
from zsar_cli.data.motion_shapes import class_labels
from zsar_cli.errors import UsageError
from zsar_cli.features.cache import FeatureCache
from zsar_cli.model import onnx_engine, onnx_graph
from zsar_cli.model.backbone import Backbone, load_backbone
from zsar_cli.model.zsar import Parts, RecognizerModel
from zsar_cli.recognizer import Recognizer
from zsar_cli.text.labels import load_labels


@pytest.fixture(autouse=True, scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The graph of a tower is made once for all tests, and not in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSAR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def make(config: dict = VIT) -> Backbone:
    torch.manual_seed(0)
    return Backbone.from_config(config)


# --- towers


@pytest.mark.parametrize("config", [VIT, TIMM], ids=["vit", "timm"])
@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_towers(config: dict, fine: bool, wide: bool, monkeypatch) -> None:
    """On every processor: those without VNNI have a bit less, of the weights or of the activations."""
    monkeypatch.setattr(onnx_engine, "adds_in_32_bits", lambda: wide)
    exact, rounded = make(config), make(config)
    pixels = torch.randn(3, 3, *exact.preprocess.size)
    rounded.set_precision("int8", fine=fine)
    assert rounded.fingerprint() == exact.fingerprint(), "prompt embeddings stay usable"
    assert rounded.text_key == exact.text_key, "and the texts of fp32 are those of int8"
    with torch.no_grad():
        expected, found = exact.encode_frames(pixels), rounded.encode_frames(pixels)
    assert found.tokens.shape == expected.tokens.shape
    assert found.embedding.dtype == found.tokens.dtype == rounded.dtype == torch.float32
    assert rounded.patch_grid == exact.patch_grid
    assert 0 < relative(found.embedding, expected.embedding) < 0.03
    assert 0 < relative(found.tokens, expected.tokens) < 0.03
    for k in range(3):  # to the bit, whatever lies beside it
        alone = rounded.encode_frames(pixels[k : k + 1])
        assert torch.equal(alone.embedding[0], found.embedding[k])
        assert torch.equal(alone.tokens[0], found.tokens[k])
    kept = sum(p.numel() for p in rounded.clip.visual.parameters() if p.ndim > 1)
    assert kept < 0.5 * sum(p.numel() for p in exact.clip.visual.parameters() if p.ndim > 1)


def test_a_few_channels_far_above_the_rest_take_the_second_product(monkeypatch) -> None:
    """As large models have them behind a norm: a step of their range is coarse for all other channels."""
    pixels = torch.randn(1, 3, 32, 32)

    def error(tolerance: float) -> float:
        monkeypatch.setattr(onnx_graph, "TOLERANCE", tolerance)
        exact, rounded = make(), make()
        for backbone in (exact, rounded):
            for block in backbone.clip.visual.transformer.resblocks:
                block.ln_1.weight.data[3] = block.ln_2.weight.data[3] = 60.0
                block.attn.in_proj_weight.data[:, 3] = block.mlp.c_fc.weight.data[:, 3] = 0.0
        rounded.set_precision("int8")
        with torch.no_grad():
            return relative(rounded.encode_frames(pixels).tokens, exact.encode_frames(pixels).tokens)

    assert error(0.02) < 0.5 * error(10.0)


def test_fine_is_closer() -> None:
    pixels = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = make().encode_frames(pixels).tokens
        errors = [
            relative(make().set_precision("int8", fine=fine).encode_frames(pixels).tokens, expected)
            for fine in (False, True)
        ]
    assert errors[1] < 0.8 * errors[0]  # the weights' rounding is in both


def test_other_towers_are_refused(tmp_path) -> None:
    convolutional = load_backbone(str(make_tiny_clip(tmp_path / "c", "convolutional")))
    resnet = {**VIT, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
    for backbone in (convolutional, Backbone.from_config(resnet)):
        with pytest.raises(UsageError, match="does not support int8"):
            backbone.set_precision("int8")
        assert backbone.precision == "fp32"


def test_where_int8_does_not_run_it_is_told(tmp_path, monkeypatch) -> None:
    backbone = make()
    monkeypatch.setattr("zsar_cli.model.backbone.runtime_installed", lambda: False)
    with pytest.raises(UsageError, match="onnxruntime"):
        backbone.set_precision("int8")
    make_tiny_clip(tmp_path)
    with pytest.raises(UsageError, match="--device cpu"):
        load_backbone(str(tmp_path), precision="int8", device="cuda")


def test_there_is_no_way_back(tmp_path) -> None:
    backbone = load_backbone(str(make_tiny_clip(tmp_path))).set_precision("int8")
    assert backbone.set_precision("int8") is backbone
    for precision, fine in (("fp32", False), ("int8", True)):
        with pytest.raises(UsageError, match="load them again"):
            backbone.set_precision(precision, fine=fine)
    with pytest.raises(UsageError, match="fine"):
        RecognizerModel(backbone, Parts(width=16))
    with pytest.raises(UsageError, match="load them again"):
        load_backbone(str(tmp_path), precision="bf16").set_precision("int8")
    with pytest.raises(UsageError, match="fp32"):
        RecognizerModel(backbone).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# --- models


@pytest.mark.parametrize(("plain", "wide"), [(True, True), (False, True), (False, False)])
def test_motion_tiny_answers_as_in_fp32(plain: bool, wide: bool, monkeypatch) -> None:
    """One product a layer for plain CLIP, two where the model looks at patch tokens; make bench has all clips."""
    monkeypatch.setattr(onnx_engine, "adds_in_32_bits", lambda: wide)
    labels, (_, clips) = load_labels(None, class_labels("unseen")), unseen(54)
    exact = bundled()["motion-tiny without motion" if plain else "motion-tiny"]
    rounded = in_precision(exact, "int8")
    assert rounded.backbone.fine != plain
    found = agreement(answers(rounded, clips, labels), answers(exact, clips, labels))
    assert found.same >= 99
    assert 0 < found.difference < 0.01


def test_a_cache_of_fp32_serves_int8_and_not_the_other_way(tmp_path) -> None:
    folder, videos = str(make_tiny_clip(tmp_path / "tiny")), [str(write_video(tmp_path / "a.mp4", 12))]

    def ask(precision: str) -> tuple[dict, int, int]:
        recognizer = Recognizer.load(folder, device="cpu", precision=precision, cache=tmp_path / "cache")
        (result,) = recognizer.predict_many(videos, ["tai chi", "arm wrestling"], workers=0)
        assert isinstance(recognizer.cache, FeatureCache)
        return result.to_record(), recognizer.cache.read, recognizer.cache.added

    rounded = ask("int8")
    assert rounded[1:] == (0, 1)
    exact = ask("fp32")
    assert exact[1:] == (0, 1), "int8 is no answer for who asked for fp32"
    again = ask("int8")
    assert again[1:] == (1, 0)
    assert again[0] == rounded[0], "its own first"
    for path in (tmp_path / "cache").glob("*-int8/*/*.safetensors"):
        path.unlink()
    served = ask("int8")
    assert served[1:] == (1, 0)
    assert served[0]["predictions"] == exact[0]["predictions"]


def test_predict_in_int8(tmp_path, caplog, capsys) -> None:
    from zsar_cli.cli import app

    folder, video = make_tiny_clip(tmp_path / "tiny"), write_video(tmp_path / "a.mp4", 12)
    found = {}
    with caplog.at_level(logging.WARNING):
        for precision in ("fp32", "int8"):
            options = ["--label", "tai chi", "--label", "arm wrestling", "--precision", precision]
            with pytest.raises(SystemExit) as exit:
                app.main(["predict", str(video), "--model", str(folder), "--workers", "1", *options])
            assert not exit.value.code
            (line,) = capsys.readouterr().out.splitlines()
            found[precision] = {p["label"]: p["score"] for p in json.loads(line)["predictions"]}
    assert not caplog.records
    assert found["int8"] != found["fp32"]
    assert found["int8"] == pytest.approx(found["fp32"], abs=0.1)
    assert F.cosine_similarity(*(torch.tensor(list(f.values())) for f in found.values()), dim=0) > 0.99
