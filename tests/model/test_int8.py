"""int8: products against those of floats, towers of every family, and what it must refuse."""

from __future__ import annotations

import json
import logging
import os
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks.material import embed_rendered
from tests.tiny_models import VIT, make_tiny_clip
from tests.video_files import write_video
from zsar_cli.data.motion_shapes import class_labels, clip_ids
from zsar_cli.errors import UsageError
from zsar_cli.features.cache import FeatureCache
from zsar_cli.model import int8
from zsar_cli.model.backbone import Backbone, load_backbone
from zsar_cli.model.int8 import Int8Linear, cpu_has_int8, has_vnni, int8_blocks, to_int8
from zsar_cli.model.load import load_model
from zsar_cli.model.zsar import Parts, RecognizerModel
from zsar_cli.recognizer import Recognizer
from zsar_cli.text.labels import load_labels

# By which the libraries are told to do without instructions that the processor has
HELD_BACK = {"ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"} & os.environ.keys()
needs_int8 = pytest.mark.skipif(not has_vnni() or bool(HELD_BACK), reason="no VNNI here")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


@needs_int8
def test_a_processor_that_has_it_is_used() -> None:
    """Else a defect in a product would pass for a processor without it, and nothing would be computed in int8."""
    assert cpu_has_int8()


# --- one layer


@needs_int8
@settings(max_examples=60, deadline=None)
@example(seed=0, tokens=1, inputs=1, outputs=1, size=1.0, middle=1000.0)
@example(seed=0, tokens=3, inputs=5, outputs=2, size=1e-8, middle=0.0)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(1, 40),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    size=st.floats(1e-6, 1e6),
    middle=st.floats(-20, 20),
)
def test_a_product_is_that_of_floats(seed, tokens, inputs, outputs, size, middle) -> None:
    """Whatever the range, whole or one-sided: within half a step of each value, or of a 254th of it where fine."""
    torch.manual_seed(seed)
    x = (torch.randn(1, tokens, inputs) + middle) * size
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    rounded = (weight / scale).round() * scale
    exact = x.double() @ rounded.double().T + bias
    step = float(x.amax().clamp(min=0) - x.amin().clamp(max=0)) / int8.SPAN
    noise = 1e-5 * float(x.abs().amax()) * rounded.abs().sum(dim=1)
    for fine, share in ((False, 0.5), (True, 0.5 / 254)):
        found = Int8Linear(weight, bias, fine)(x)
        bound = 1.01 * share * step * rounded.abs().sum(dim=1) + noise + 1e-5
        assert found.dtype == torch.float32
        assert ((found - exact).abs() <= bound).all()


@needs_int8
def test_a_row_of_zeros_and_an_input_of_zeros() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    layer = Int8Linear(weight, torch.tensor([3.0, 4.0]), fine=False)
    assert layer(torch.zeros(1, 3, 2)).tolist() == [[[3.0, 4.0]] * 3]
    torch.testing.assert_close(layer(torch.ones(1, 1, 2))[0, 0], torch.tensor([3.0, 3.0]), atol=0.02, rtol=0)


@needs_int8
def test_a_few_channels_far_above_the_rest_take_the_second_product(monkeypatch) -> None:
    """As large models have them behind a norm: a step of their range is coarse for all other channels."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 50, 768), torch.randn(64, 768) / 16
    weight[:, 3] = 0.0  # the others decide

    def error() -> float:
        normalised = F.layer_norm(x, (768,))
        return relative(Int8Linear(weight, torch.zeros(64), False)(normalised), normalised @ weight.T)

    assert 0.01 < error() < 0.02, "one product does for a normal distribution"
    x[..., 3] = 30.0
    assert error() < 0.01
    monkeypatch.setattr(int8, "TOLERANCE", 1.0)
    assert error() > 0.03, "what one would have given"


@needs_int8
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    x = torch.ones(1, 2, 4)
    x[0, 0, 0] = value
    layer = Int8Linear(torch.ones(3, 4), torch.zeros(3), fine=False)
    assert layer(x).isnan().all()
    weight = torch.ones(3, 4)
    weight[1, 1] = value
    found = Int8Linear(weight, torch.zeros(3), fine=False)(torch.ones(1, 2, 4))
    assert not found[..., 1].isfinite().any()


# --- towers


def eva() -> SimpleNamespace:
    """A tower of PE's kind, as open_clip holds timm's."""
    from timm.models.eva import Eva

    trunk = Eva(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0,
        attn_type="rope", use_rot_pos_emb=True,
    )  # fmt: skip
    return SimpleNamespace(trunk=trunk.eval())


@needs_int8
@pytest.mark.parametrize("layout", ["vit", "siglip"])
@pytest.mark.parametrize("fine", [False, True])
def test_towers(layout: str, fine: bool, tmp_path) -> None:
    folder = make_tiny_clip(tmp_path / layout, layout)
    exact, rounded = load_backbone(str(folder)), load_backbone(str(folder))
    pixels = torch.randn(5, 3, *exact.preprocess.size)
    rounded.set_precision("int8", fine=fine)
    assert rounded.fingerprint() == exact.fingerprint(), "prompt embeddings stay usable"
    assert rounded.text_key == exact.text_key, "and the texts of fp32 are those of int8"
    with torch.no_grad():
        expected, found = exact.encode_frames(pixels), rounded.encode_frames(pixels)
    assert found.tokens.shape == expected.tokens.shape
    assert found.embedding.dtype == found.tokens.dtype == rounded.dtype == torch.float32
    assert not torch.equal(found.embedding, expected.embedding)
    assert relative(found.embedding, expected.embedding) < 0.03
    assert relative(found.tokens, expected.tokens) < 0.03
    for k in range(5):  # to the bit, whatever lies beside it
        alone = rounded.encode_frames(pixels[k : k + 1])
        assert torch.equal(alone.embedding[0], found.embedding[k])
        assert torch.equal(alone.tokens[0], found.tokens[k])
    kinds = [type(module) for module in rounded.clip.visual.modules()]
    assert kinds.count(Int8Linear) == 4 * len(int8_blocks(exact.clip.visual))


@needs_int8
def test_fine_is_closer(tmp_path) -> None:
    folder = str(make_tiny_clip(tmp_path))
    pixels = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = load_backbone(folder).encode_frames(pixels).tokens
        errors = [
            relative(load_backbone(folder).set_precision("int8", fine=fine).encode_frames(pixels).tokens, expected)
            for fine in (False, True)
        ]  # fmt: skip
    assert errors[1] < 0.8 * errors[0]  # the weights' rounding is in both


@needs_int8
def test_a_tower_of_pes_kind() -> None:
    torch.manual_seed(0)
    tower, pixels = eva(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = tower.trunk(pixels)
        to_int8(tower, fine=False)
        assert sum(type(module) is Int8Linear for module in tower.trunk.modules()) == 8
        assert 0 < relative(tower.trunk(pixels), expected) < 0.03


def test_other_towers_are_refused(tmp_path, monkeypatch) -> None:
    convolutional = load_backbone(str(make_tiny_clip(tmp_path / "c", "convolutional")))
    resnet = {**VIT, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
    monkeypatch.setattr("zsar_cli.model.backbone.cpu_has_int8", lambda: True)
    for backbone in (convolutional, Backbone.from_config(resnet)):
        assert int8_blocks(backbone.clip.visual) == []
        with pytest.raises(UsageError, match="int8"):
            backbone.set_precision("int8")
        assert backbone.precision == "fp32"


def test_processors_without_it_are_told(tmp_path, monkeypatch) -> None:
    backbone = load_backbone(str(make_tiny_clip(tmp_path)))
    monkeypatch.setattr("zsar_cli.model.backbone.cpu_has_int8", lambda: False)
    with pytest.raises(UsageError, match="VNNI"):
        backbone.set_precision("int8")
    with pytest.raises(UsageError, match="--device cpu"):
        load_backbone(str(tmp_path), precision="int8", device="cuda")


@needs_int8
def test_other_threads_keep_their_cores(tmp_path) -> None:
    """A thread that starts after an encoding has as many as one that started before it."""
    from concurrent.futures import ThreadPoolExecutor

    backbone = load_backbone(str(make_tiny_clip(tmp_path))).set_precision("int8")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.inference_mode():
            backbone.encode_frames(torch.zeros(7, 3, 32, 32))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@needs_int8
def test_a_torch_without_the_operator_counts_as_a_processor_without_it(monkeypatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(Int8Linear, "forward", gone)
    assert not cpu_has_int8.__wrapped__()
    overflowing = lambda _, x: x.clamp(max=0.5).sum(dim=-1, keepdim=True)  # noqa: E731
    monkeypatch.setattr(Int8Linear, "forward", overflowing)
    assert not cpu_has_int8.__wrapped__(), "nor does one whose sums overflow"


@needs_int8
def test_there_is_no_way_back(tmp_path) -> None:
    backbone = load_backbone(str(make_tiny_clip(tmp_path))).set_precision("int8")
    assert backbone.set_precision("int8") is backbone
    for precision, fine in (("fp32", False), ("int8", True)):
        with pytest.raises(UsageError, match="load them again"):
            backbone.set_precision(precision, fine=fine)
    with pytest.raises(UsageError, match="fine"):
        RecognizerModel(backbone, Parts(width=16))
    with pytest.raises(ValueError, match="a frame at a time"):
        backbone.clip.encode_image(torch.zeros(2, 3, 32, 32))
    with pytest.raises(UsageError, match="load them again"):
        load_backbone(str(tmp_path), precision="bf16").set_precision("int8")
    with pytest.raises(UsageError, match="fp32"):
        RecognizerModel(backbone).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# --- models


@needs_int8
@pytest.mark.parametrize("plain", [True, False])
def test_motion_tiny_answers_as_in_fp32(plain: bool) -> None:
    """One product a layer for plain CLIP, two where the model looks at patch tokens; make bench has all clips."""
    labels, ids = load_labels(None, class_labels("unseen")), clip_ids("unseen")[::27]
    scores = []
    for precision in ("fp32", "int8"):
        model = load_model("motion-tiny", precision="fp32" if plain else precision)
        if plain:
            model = RecognizerModel(model.backbone.set_precision(precision)).eval()
        recognizer = Recognizer(model)
        side = recognizer.embed_labels(labels)
        video = embed_rendered(model, ids, "unseen", 8, "cpu")
        scores.append(model.score(video, side.positive, side.negative).logits.softmax(dim=-1))
        assert model.backbone.fine == (precision == "int8" and not plain)
    exact, rounded = scores
    assert (exact.argmax(dim=-1) == rounded.argmax(dim=-1)).float().mean() >= 0.99
    assert 0 < (exact - rounded).abs().max() < 0.01


@needs_int8
def test_a_cache_of_fp32_serves_int8_and_not_the_other_way(tmp_path, monkeypatch) -> None:
    folder, videos = str(make_tiny_clip(tmp_path / "tiny")), [str(write_video(tmp_path / "a.mp4", 12))]

    def ask(precision: str) -> tuple[dict, int, int]:
        recognizer = Recognizer.load(folder, device="cpu", precision=precision, cache=tmp_path / "cache")
        (result,) = recognizer.predict_many(videos, ["tai chi", "arm wrestling"], workers=0)
        assert isinstance(recognizer.cache, FeatureCache)
        return result.to_record(), recognizer.cache.read, recognizer.cache.added

    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "texts"))
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


@needs_int8
def test_predict_in_int8(tmp_path, caplog, monkeypatch, capsys) -> None:
    from zsar_cli.cli import app

    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "texts"))
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
