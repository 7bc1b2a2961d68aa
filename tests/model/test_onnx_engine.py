"""The visual tower in ONNX Runtime: the answers of torch, what is kept on disk, and when torch has to do it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.agreement import compare
from tests.tiny_models import TOWERS, make_tiny_clip, tiny_backbone
from zsar_cli.errors import UsageError
from zsar_cli.model import onnx_engine
from zsar_cli.model.backbone import Backbone, FrameFeatures, load_backbone
from zsar_cli.model.zsar import RecognizerModel, TrainingRecord
from zsar_cli.recognizer import Recognizer
from zsar_cli.text.labels import load_labels
from zsar_cli.video.transforms import Preprocess


@pytest.fixture(autouse=True)
def at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame pays for tracing, into a cache folder of the test."""
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(onnx_engine, "LOADED_AFTER", 0)
    monkeypatch.setattr(onnx_engine, "TRACED_AFTER", 0)
    onnx_engine._said.clear()


_traced: dict[str, bytes] = {}


@pytest.fixture
def traced_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tracing a tower gives is kept from test to test, for those that are about something else."""
    trace = onnx_engine._make

    def kept(backbone: Backbone) -> bytes:
        mark = backbone.fingerprint()
        if mark not in _traced:
            _traced[mark] = trace(backbone)
        return _traced[mark]

    monkeypatch.setattr(onnx_engine, "_make", kept)


def make(tower: str = "vit") -> Backbone:
    backbone = tiny_backbone(tower)
    backbone.use_engine()
    return backbone


class Bessel(torch.nn.Module):
    """What ONNX has no operator for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def encode(backbone: Backbone, frames: int = 3) -> tuple[FrameFeatures, FrameFeatures]:
    """What torch makes of frames, and what the backbone does now."""
    pixels = torch.randn(frames, 3, *backbone.preprocess.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return backbone._encode_frames(pixels), backbone.encode_frames(pixels)


def loaded(backbone: Backbone) -> bool:
    return backbone._engine is not None and backbone._engine._tower is not None


def graphs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.onnx"))


@pytest.mark.parametrize("tower", TOWERS)
def test_every_kind_of_tower_answers_as_in_torch(tower: str, tmp_path: Path) -> None:
    backbone = make(tower)
    expected, found = encode(backbone)
    assert loaded(backbone)
    assert relative(found.embedding, expected.embedding) < 1e-5
    assert relative(found.tokens, expected.tokens) < 1e-5
    assert len(graphs(tmp_path)) == 1


def test_the_table_of_agreement_tells_what_ran_where_and_how_near_it_came() -> None:
    def clips(preprocess: Preprocess) -> list[np.ndarray]:
        return [np.random.default_rng(0).integers(0, 256, (3, 2, *preprocess.size, 3), np.uint8)]

    model = RecognizerModel(tiny_backbone("convolutional"), record=TrainingRecord(templates="plain")).eval()
    labels = load_labels(None, ["archery", "brush hair"])
    ((precision, where, found),) = compare(model, clips, labels, ["fp32", "int8"])  # which it has not
    assert (precision, where, found.same) == ("fp32", "ONNX Runtime", 100)
    assert found.cosine > 0.99999
    assert found.difference < 1e-5


def test_a_graph_is_made_once_and_has_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(make())
    (path,) = graphs(tmp_path)
    monkeypatch.setattr(onnx_engine, "_make", lambda _: pytest.fail("it was kept"))
    again = make()
    expected, found = encode(again)
    assert loaded(again)
    assert relative(found.embedding, expected.embedding) < 1e-5
    weights = sum(p.numel() for p in again.clip.visual.parameters())
    assert path.stat().st_size < 2 * weights


@pytest.mark.usefixtures("traced_before")
def test_a_short_list_stays_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes longer than it saves in a few clips, tracing than in some twenty."""
    backbone = make()
    work = onnx_engine._flops(backbone)
    monkeypatch.setattr(onnx_engine, "LOADED_AFTER", 4 * work)
    monkeypatch.setattr(onnx_engine, "TRACED_AFTER", 8 * work)
    for frames, now in ((6, False), (2, False), (1, True)):
        encode(backbone, frames)
        assert loaded(backbone) == now
    other = make()
    for frames, now in ((4, False), (1, True)):
        encode(other, frames)
        assert loaded(other) == now


def test_a_tower_without_a_graph_is_told_once_and_runs_in_torch(tmp_path: Path, caplog, monkeypatch) -> None:
    for _ in range(2):
        backbone = make()
        backbone.clip.visual.ln_post = Bessel()
        for _ in range(2):
            expected, found = encode(backbone)
            assert torch.equal(found.embedding, expected.embedding)
        assert not loaded(backbone)
        monkeypatch.setattr(onnx_engine, "_make", lambda _: pytest.fail("that it has none was kept"))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "The visual tower of vit has no ONNX form and runs in PyTorch."
    ]


def test_a_graph_with_other_answers_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(onnx_engine, "AGREEMENT", -1.0)
    backbone = make()
    expected, found = encode(backbone)
    assert not loaded(backbone)
    assert torch.equal(found.embedding, expected.embedding)


@pytest.mark.usefixtures("traced_before")
def test_a_damaged_graph_is_made_again(tmp_path: Path) -> None:
    encode(make())
    (path,) = graphs(tmp_path)
    whole = path.read_bytes()
    for harmed in (whole[:-20], b"", whole[:50] + b"\0" + whole[51:], whole + b"more"):
        path.write_bytes(harmed)
        assert onnx_engine._read(path) is None
    backbone = make()
    expected, found = encode(backbone)
    assert loaded(backbone)
    assert relative(found.embedding, expected.embedding) < 1e-5
    assert onnx_engine._read(path) is not None


@pytest.mark.usefixtures("traced_before")
def test_two_processes_may_make_a_graph_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, others = onnx_engine._make, [make()]

    def meanwhile(backbone: Backbone) -> bytes:
        content = made(backbone)
        if others:
            encode(others.pop())
        return content

    monkeypatch.setattr(onnx_engine, "_make", meanwhile)
    backbone = make()
    expected, found = encode(backbone)
    assert loaded(backbone)
    assert relative(found.embedding, expected.embedding) < 1e-5
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.usefixtures("traced_before")
def test_a_cache_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog) -> None:
    (tmp_path / "cache").write_text("no folder")
    backbone = make()
    encode(backbone)
    assert loaded(backbone)
    assert "ZSAR_CACHE_DIR" in caplog.text


def test_without_the_packages_torch_does_it(monkeypatch, caplog, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for _ in range(2):
        backbone = make()
        expected, found = encode(backbone)
        assert torch.equal(found.embedding, expected.embedding)
    assert len(caplog.records) == 1
    assert "runs in PyTorch" in caplog.text
    assert not backbone.takes_int8
    with pytest.raises(UsageError, match="onnxruntime"):
        backbone.set_precision("int8")


@pytest.mark.usefixtures("traced_before")
def test_weights_that_change_are_computed_with() -> None:
    backbone = make()
    encode(backbone)
    assert loaded(backbone)
    with torch.no_grad():
        backbone.clip.visual.proj.mul_(2)
    for _ in range(3):
        expected, found = encode(backbone)
        torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-5, atol=1e-6)


def test_a_tower_whose_weights_fill_the_memory_has_them_once(monkeypatch) -> None:
    backbone = make()
    size = sum(p.numel() * p.element_size() for p in backbone.clip.visual.parameters())
    monkeypatch.setattr(onnx_engine, "available_memory", lambda: 7 * size)
    expected, found = encode(backbone)
    assert not loaded(backbone)
    assert torch.equal(found.embedding, expected.embedding)


@pytest.mark.usefixtures("traced_before")
def test_gradients_flow_where_they_are_wanted() -> None:
    backbone = make()
    encode(backbone)
    pixels = torch.randn(1, 3, 32, 32, requires_grad=True)
    backbone.encode_frames(pixels).embedding.sum().backward()
    assert pixels.grad is not None


def test_who_loads_a_model_to_predict_gets_the_engine(tmp_path: Path) -> None:
    folder = str(make_tiny_clip(tmp_path / "tiny"))
    assert Recognizer.load(folder, device="cpu").model.backbone._engine is not None
    assert load_backbone(folder)._engine is None, "who trains does not"
