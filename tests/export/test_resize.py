"""The graph that resizes frames gives Pillow's pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from zsar_cli.video.transforms import Preprocess, resize_and_crop

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

SIZES = {
    "landscape": (67, 121),
    "portrait, columns first": (151, 40),
    "portrait, columns first by a little": (59, 40),
    "portrait, rows first by a little": (55, 40),
    "smaller than the model": (17, 12),
    "one side only": (24, 61),
    "a strip": (3, 900),
    "as the model": (24, 24),
}


def resizer(preprocess: Preprocess):
    from zsar_cli.export.nodes import Nodes
    from zsar_cli.export.resize import resized

    nodes = Nodes("")
    found = resized(nodes, nodes.input("frames", np.uint8), preprocess)
    made = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes.nodes, "resize", [made("frames", onnx.TensorProto.UINT8, ["T", "H", "W", 3])],
        [made(found.name, onnx.TensorProto.FLOAT, ["T", 3, *preprocess.size])], nodes.initializers,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize(
    ("mode", "interpolation", "size"),
    [
        ("shortest", "bicubic", (24, 24)),
        ("shortest", "bilinear", (24, 33)),
        ("squash", "bicubic", (24, 24)),
        ("squash", "bilinear", (40, 20)),
        ("longest", "bicubic", (24, 24)),
        ("larger", "linear", (24, 24)),
        ("shortest", "linear", (24, 24)),
    ],
)
def test_pixels_are_those_of_pillow(mode, interpolation, size):
    preprocess = Preprocess(size=size, interpolation=interpolation, resize_mode=mode, fill_color=9)
    session, rng = resizer(preprocess), np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        frames[1] = np.where(frames[1] > 127, 255, 0)  # overshoots, which are cut to 0 and 255
        found = session.run(None, {"frames": frames})[0]
        expected = np.moveaxis(resize_and_crop(frames, preprocess), -1, 1)
        assert np.array_equal(found, expected), name


def test_before_version_13_pillow_resizes_rows_first(monkeypatch):
    from zsar_cli.export import resize

    monkeypatch.setattr(resize, "VERTICAL_FIRST", False)
    preprocess = Preprocess(size=(24, 24), resize_mode="squash")
    frames = np.random.default_rng(0).integers(0, 256, (1, 151, 40, 3), dtype=np.uint8)
    rows = Preprocess(size=(151, 24), resize_mode="squash")
    expected = resize_and_crop(resize_and_crop(frames, rows), preprocess)
    found = resizer(preprocess).run(None, {"frames": frames})[0]
    assert np.array_equal(found, np.moveaxis(expected, -1, 1))
