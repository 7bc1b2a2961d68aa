"""A folder that runs without torch and without zsar answers as zsar does."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.tiny_models import VIT
from zsar_cli.errors import UsageError
from zsar_cli.model import onnx_trace
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.parts import PLAIN, Parts
from zsar_cli.model.zsar import RecognizerModel, TrainingRecord
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.transforms import resize_and_crop

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

from zsar_cli.export import folder as folder_module  # noqa: E402
from zsar_cli.export.folder import CHOOSE, ExportOptions, _choose, export_folder, session_of  # noqa: E402
from zsar_cli.model.onnx_graph import names_read  # noqa: E402

LABELS = ["waving", "naïve Pfütze", "a third one"]
SIZES = [(8, 48, 70), (8, 90, 33), (8, 20, 17)]  # frames, height, width


def vectors(count: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def embedded(labels: list[str], seed: int = 1) -> PromptEmbeddings:
    count = len(labels)
    return PromptEmbeddings(labels, vectors(count, seed), vectors(count, seed + 1), vectors(12, seed + 2))


def made(parts: Parts) -> RecognizerModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RecognizerModel(Backbone.from_config(VIT), parts, TrainingRecord(name="tiny"))
        if model.project is not None:  # untrained, it is zero
            torch.nn.init.normal_(model.project.weight)
    return model.eval()


@pytest.fixture(scope="module")
def moving() -> RecognizerModel:
    return made(Parts(width=16, separation=True, aggregation=True, negatives="learned"))


@pytest.fixture(scope="module")
def exported(moving, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    assert export_folder(moving, embedded(LABELS), folder).free_frames
    return folder


def expected(model: RecognizerModel, text: PromptEmbeddings, clip: np.ndarray) -> list[np.ndarray]:
    pixels = torch.from_numpy(resize_and_crop(clip, model.preprocess))
    with torch.inference_mode():
        video = model(model.backbone.normalise(pixels)).embedding
        found = model.score(video, text.positive, text.negative, text.rivals(model))
    return [tensor.numpy() for tensor in (found.score, found.yes, found.unknown)]


def assert_same_answers(path: Path, model: RecognizerModel, text: PromptEmbeddings, sizes=SIZES, **inputs):
    session, rng = session_of(path), np.random.default_rng(0)
    for size in sizes:
        clip = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
        found = session.run(["scores", "yes", "unknown"], {"frames": clip, **inputs})
        for ours, theirs in zip(found, expected(model, text, clip), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_graph_answers_as_the_model_for_frames_of_any_size_and_number(exported, moving):
    assert_same_answers(exported / "video.onnx", moving, embedded(LABELS), [*SIZES, (3, 40, 40), (1, 32, 32)])


def test_the_graph_says_what_it_was_made_of(exported, moving):
    model = onnx.load(exported / "video.onnx")
    onnx.checker.check_model(model, full_check=True)
    unused = {weight.name for weight in model.graph.initializer} - set(names_read(model.graph))
    assert not unused  # ONNX Runtime would warn of each
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["model"] == "tiny"
    assert told["fingerprint"] == moving.fingerprint()
    assert model.producer_name == "zsar"
    about = json.loads((exported / "labels.json").read_text(encoding="utf-8"))
    assert about["labels"] == LABELS
    assert about["frames"] == 8


def test_labels_as_input_serve_other_labels_of_a_plain_clip(tmp_path, monkeypatch):
    model = made(PLAIN)
    monkeypatch.setattr(folder_module, "MOST_BYTES", 10_000)  # as if one file could not hold the weights
    asked = ExportOptions(labels_as_input=True, frames=4)
    assert not export_folder(model, embedded(LABELS), tmp_path / "out", asked).free_frames
    assert (tmp_path / "out" / "video.onnx.data").stat().st_size > 10_000
    other = embedded(["one", "two", "three", "four", "five"], seed=7)
    inputs = {"positive": other.positive.numpy(), "bank": other.rivals(model).numpy()}
    assert_same_answers(tmp_path / "out" / "video.onnx", model, other, [(4, 48, 70)], **inputs)
    stored = np.load(tmp_path / "out" / "labels.npz")
    assert stored["labels"].tolist() == LABELS
    assert str(stored["fingerprint"]) == model.fingerprint()


def test_int8_takes_the_products_of_predict(moving, tmp_path):
    found = export_folder(moving, embedded(LABELS), tmp_path / "out", ExportOptions("int8", frames=2))
    graph = onnx.load(tmp_path / "out" / "video.onnx").graph
    kinds = [node.op_type for node in graph.node]
    layers = 4 * VIT["vision_cfg"]["layers"]
    assert kinds.count("MatMulIntegerToFloat") == 2 * layers  # the second ones of the quantization residual
    whole = [weight for weight in graph.initializer if weight.data_type == onnx.TensorProto.INT8]
    assert len(whole) == layers
    assert 1e-6 < found.difference < 1e-2


def test_frames_that_attend_to_each_other_have_no_int8(moving, tmp_path, monkeypatch):
    monkeypatch.setattr(moving.backbone, "family", SimpleNamespace(across_frames=True))
    with pytest.raises(UsageError, match="tiny has no int8; use --precision fp32"):
        export_folder(moving, embedded(LABELS), tmp_path / "out", ExportOptions("int8"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_and_a_failure_leaves_nothing(exported, moving, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "run.py").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    with pytest.raises(UsageError, match=r"run\.py already exists.*--overwrite"):
        export_folder(moving, embedded(LABELS), folder)
    monkeypatch.setattr(folder_module, "build", lambda *_: onnx.ModelProto())
    monkeypatch.setattr(folder_module, "_save", lambda graph, path, *_: path.write_text("a graph"))
    monkeypatch.setattr(folder_module, "_difference", lambda *_: 1.0)  # it answers otherwise
    with pytest.raises(UsageError, match="does not answer as the model does"):
        export_folder(moving, embedded(LABELS), folder, overwrite=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "run.py": "mine",
        "notes.txt": "mine too",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(onnx_trace, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(UsageError, match=r"pip install 'zsar-cli\[onnx\]'"):
        onnx_trace.require_onnx()


def test_what_has_no_onnx_form_says_so(monkeypatch):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    with pytest.raises(UsageError, match=r"odd cannot be exported to ONNX: .*svd"):
        onnx_trace.to_onnx(Odd(), {"x": torch.eye(3)}, ["y"], {}, "odd")


def test_run_py_is_short_and_needs_three_packages_only(exported):
    source = (exported / "run.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 40
    tree = ast.parse(source)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"json", "sys", "contextlib", "pathlib", "av", "numpy", "onnxruntime"}


@pytest.mark.parametrize("sampling", [*(Sampling(8, way=way) for way in CHOOSE), Sampling(8, seconds=1.5)])
def test_run_py_chooses_the_frames_that_predict_chooses(sampling):
    space = {"np": np}
    exec(f"def choose(count, rate):\n    i = np.arange(8)\n{_choose(sampling)}", space)
    for count in (1, 2, 7, 8, 9, 31, 100, 1001):
        for rate in (1.0, 24.0, 30000 / 1001):
            found = space["choose"](count, rate).tolist()
            assert found == view_indices(count, sampling, rate=rate)[0].tolist(), (count, rate)
