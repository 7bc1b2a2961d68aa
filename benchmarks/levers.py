"""The visual tower of ViT-B/16 in other ways: what a clip of 8 frames takes, and how near it is to torch in fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.agreement import engine_from_the_first_frame
from benchmarks.measure import Figure, interleaved

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from benchmarks.__main__ import Setup
    from benchmarks.report import Results
    from zsar_cli.model.backbone import Backbone

    Way = Callable[[], Tensor]  # computes the embeddings (F, E) of the frames

EIGHT = "bf16 weights, batches of 8 clips"


def measure(setup: Setup, results: Results) -> None:
    """Have each way compute the same frames in turn; what is not installed is named."""
    import torch

    from zsar_cli.model.backbone import load_backbone

    backbone = load_backbone(setup.clip)
    frames, others = (clip_of(setup.turns[0][place], backbone) for place in (-1, 0))
    with (
        torch.no_grad(),
        engine_from_the_first_frame(),
        tempfile.TemporaryDirectory(prefix="zsar-levers-") as folder,
    ):
        graph = cache(partial(exported, backbone, Path(folder) / "fp32.onnx"))
        makers = in_torch(setup.clip, backbone, frames) | in_runtimes(setup.clip, graph, frames, others)
        found = {name: ready(make) for name, make in makers.items()}
        ways = {name: way for name, way in found.items() if not isinstance(way, str)}
        cosines = {name: least_cosine(way(), ways["fp32"]()) for name, way in ways.items()}
        figures = interleaved(ways, setup.rounds)
    figures[EIGHT].values[:] = [value / 8 for value in figures[EIGHT].values]
    results.table(
        "the visual tower in other ways: ViT-B/16, milliseconds a clip of 8 frames",
        ["", "ms", "least cosine with fp32"],
        [
            [name, in_ms(figures[name]), f"{cosines[name]:.6f}"] if name in ways else [name, why, ""]
            for name, why in found.items()
        ],
        {"seconds": dict(figures), "cosine": cosines},
    )


def ready(make: Callable[[], Way]) -> Way | str:
    """Make a way and have it compute once, which is when it is compiled; or say why it is not measured."""
    try:
        way = make()
        way()
    except ImportError:
        return "not installed"
    except Exception as error:  # no C++ compiler for torch.compile, most often
        return f"not measured ({type(error).__name__})"
    return way


def in_ms(figure: Figure) -> str:
    return Figure([1000 * value for value in figure.values]).text(0)


def clip_of(path: str, backbone: Backbone) -> Tensor:
    """Give the frames of a video as the tower sees them: (8, 3, H, W)."""
    import torch

    from zsar_cli.video.pool import ClipRequest, load_clip

    pixels = load_clip(ClipRequest(path, preprocess=backbone.preprocess)).pixels
    return backbone.normalise(torch.from_numpy(pixels[0])).contiguous()


def least_cosine(found: Tensor, exact: Tensor) -> float:
    """Compare the embeddings of frames, of which there may be more than once."""
    from torch.nn.functional import cosine_similarity

    exact = exact.repeat(len(found) // len(exact), 1)
    return float(cosine_similarity(found.double(), exact.double()).min())


# --- ways


def in_torch(model: str, exact: Backbone, frames: Tensor) -> dict[str, Callable[[], Way]]:
    """List what makes torch's ways."""
    import torch

    from zsar_cli.model.backbone import load_backbone

    lower = load_backbone(model, precision="bf16")
    last = load_backbone(model, precision="bf16").to(memory_format=torch.channels_last)
    nhwc = frames.contiguous(memory_format=torch.channels_last)
    return {
        "fp32": lambda: encoding(exact, frames),
        "fp32 under CPU autocast": lambda: partial(under_autocast, encoding(exact, frames)),
        "fp32, torch.compile with freezing": lambda: compiled(exact, frames, freezing=True),
        "bf16 weights": lambda: encoding(lower, frames),
        EIGHT: lambda: encoding(lower, frames.repeat(8, 1, 1, 1)),
        "bf16 weights, channels_last": lambda: encoding(last, nhwc),
        "bf16 weights, one thread": lambda: partial(with_one_thread, encoding(lower, frames)),
        "bf16 weights, torch.compile": lambda: compiled(lower, frames),
    }


def in_runtimes(
    model: str, graph: Callable[[], Path], frames: Tensor, others: Tensor
) -> dict[str, Callable[[], Way]]:
    """List what makes the ways of ONNX Runtime, zsar's own among them, and of OpenVINO.

    Args:
        graph: gives the file of the tower in fp32.
        others: frames of another video, for the ranges of activations.
    """
    from zsar_cli.model.backbone import load_backbone

    return {
        "fp32, ONNX Runtime": lambda: in_engine(load_backbone(model), frames),
        "int8": lambda: in_engine(load_backbone(model, precision="int8"), frames),
        "int8, fine": lambda: in_engine(load_backbone(model).set_precision("int8", fine=True), frames),
        "int8, quantize_dynamic of ONNX Runtime": lambda: dynamic(graph(), frames),
        "int8, quantize_static of ONNX Runtime, ranges of 8 frames": lambda: static(graph(), frames, others),
        "fp32, OpenVINO": lambda: openvino(graph(), frames),
        "int8, OpenVINO and NNCF, ranges of 8 frames": lambda: openvino(graph(), frames, others),
    }


def encoding(backbone: Backbone, frames: Tensor) -> Way:
    return lambda: backbone.encode_frames(frames).embedding


def under_autocast(way: Way) -> Tensor:
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        return way()


def with_one_thread(way: Way) -> Tensor:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return way()
    finally:
        torch.set_num_threads(threads)


def compiled(backbone: Backbone, frames: Tensor, *, freezing: bool = False) -> Way:
    """Compile the tower; with ``freezing`` its weights are constants, which are laid out for the processor."""
    import torch
    from torch._inductor import config

    encode = torch.compile(backbone.encode_frames)
    with config.patch(freezing=freezing):
        encode(frames)  # which is when it is compiled
    return lambda: encode(frames).embedding


def in_engine(backbone: Backbone, frames: Tensor) -> Way:
    backbone.use_engine()
    return encoding(backbone, frames)


def exported(backbone: Backbone, path: Path) -> Path:
    """Write the tower as a graph with its weights, its constants folded."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from zsar_cli.model.onnx_graph import trace_visual

    onnx.save(trace_visual(backbone), path)
    quant_pre_process(path, path, skip_symbolic_shape=True)
    return path


def session(path: Path, frames: Tensor) -> Way:
    """Load a graph as it is into ONNX Runtime."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # as in zsar: others need the core
    runtime = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"pixels": frames.numpy()}
    return lambda: torch.from_numpy(runtime.run(["embedding"], given)[0])


def quantizing() -> dict[str, Any]:
    """Choose as ONNX Runtime's documentation says: by channel, with a bit less where products are added in 16 bits."""
    from zsar_cli.model.onnx_engine import adds_in_32_bits

    return {
        "op_types_to_quantize": ["MatMul", "Gemm"],
        "per_channel": True,
        "reduce_range": not adds_in_32_bits(),
        "extra_options": {"MatMulConstBOnly": True},
    }


def dynamic(graph: Path, frames: Tensor) -> Way:
    from onnxruntime.quantization import quantize_dynamic

    path = graph.with_name("dynamic.onnx")
    quantize_dynamic(graph, path, **quantizing())
    return session(path, frames)


class Frames:
    """Frames one at a time, as a calibration asks for them."""

    def __init__(self, frames: Tensor) -> None:
        self.left: list[np.ndarray] = [frame[None].numpy() for frame in frames]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"pixels": self.left.pop()} if self.left else None


def static(graph: Path, frames: Tensor, others: Tensor) -> Way:
    from onnxruntime.quantization import QuantType, quantize_static

    path = graph.with_name("static.onnx")
    quantize_static(graph, path, Frames(others), activation_type=QuantType.QUInt8, **quantizing())
    return session(path, frames)


def openvino(graph: Path, frames: Tensor, others: Tensor | None = None) -> Way:
    """Run the graph in OpenVINO; with ``others`` in int8, quantized by NNCF."""
    import openvino
    import torch

    model = openvino.convert_model(graph)
    model.reshape({"pixels": list(frames.shape)})
    if others is not None:
        import nncf

        ranges = nncf.Dataset([{"pixels": others.numpy()}])
        model = nncf.quantize(model, ranges, model_type=nncf.ModelType.TRANSFORMER)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    run = openvino.compile_model(model, "CPU", options)
    given = {"pixels": frames.numpy()}
    return lambda: torch.from_numpy(run(given)["embedding"])
