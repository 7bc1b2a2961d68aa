"""The visual tower as a graph of ONNX: traced without its weights, and completed with them when it is loaded.

In int8 the linear layers of the blocks multiply whole numbers. Weights are quantized per output channel, symmetrically,
activations per frame between their minimum and maximum. Where this step is too coarse, the quantization residual is
quantized too and multiplied in a second product, which makes 16-bit activations. No frame depends on another, except in
an exported file (:mod:`zsar_cli.export.graph`), where those of a clip are quantized together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from zsar_cli.model.onnx_engine import in_block
from zsar_cli.model.onnx_trace import to_onnx

if TYPE_CHECKING:
    from zsar_cli.model.backbone import Backbone

PIXELS, OUTPUTS = "pixels", ("embedding", "tokens")
RUNTIME = "com.microsoft"  # the operators that ONNX Runtime adds to ONNX
SMALL = 1024  # bytes of a weight that lies in the graph, where the runtime wants to see it
# Largest quantization error, relative to the norm of the activations, without the second product. A normal
# distribution has 0.01; the outlier channels of large models have more.
TOLERANCE = 0.02
STEPS = 127  # of a weight, to each side of zero


class _Frames(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone._encode_frames(pixels)
        return features.embedding, features.tokens


def trace_visual(backbone: Backbone, *, weights: bool = True) -> onnx.ModelProto:
    """Trace the visual tower: ``pixels`` (F, 3, H, W), normalised, to ``embedding`` (F, E) and ``tokens`` (F, N, D).

    Args:
        weights: whether the graph contains them; else each is an input, named as :func:`visual_tensors` does.

    Raises:
        UsageError: the tower has something that the exporter does not know.
    """
    blank = torch.zeros(2, 3, *backbone.preprocess.size)
    free = {name: {0: "frames"} for name in (PIXELS, *OUTPUTS)}
    graph = to_onnx(_Frames(backbone), {PIXELS: blank}, OUTPUTS, free, backbone.spec, weights=weights)
    _drop_unused(graph)  # such as the weights of the text tower
    return graph


def visual_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Name the tensors that a graph without weights wants."""
    return {
        f"backbone.{name}": tensor.detach() for name, tensor in backbone.state_dict(keep_vars=True).items()
    }


def linear_layers(graph: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """Find the products with a weight (M, K) of the tower's blocks, ``y = x W^T``, each with the weight's name."""
    weights = {value.name for value in graph.graph.input} - {PIXELS}
    turned = {
        node.output[0]: node.input[0]
        for node in graph.graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }
    found = []
    for node in graph.graph.node:
        name = node.input[1] if node.op_type in ("MatMul", "Gemm") else ""
        weight = turned.get(name, "") if node.op_type == "MatMul" else name
        if weight in weights and in_block(weight):
            found.append((node, weight))
    return found


def with_weights(
    graph: onnx.ModelProto, tensors: Mapping[str, Tensor], small: float = SMALL
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Turn the inputs that weights are into initializers. Small ones go into the graph; the others are given back.

    Args:
        small: bytes that a weight in the graph is below; infinite: all of them go into it.

    Returns:
        the graph, and the arrays by name, which share the memory of the tensors.
    """
    large = {}
    for value in [value for value in graph.graph.input if value.name in tensors]:
        array = tensors[value.name].detach().cpu().contiguous().numpy()
        graph.graph.input.remove(value)
        if array.nbytes < small:
            graph.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            graph.graph.initializer.append(_elsewhere(value.name, array))
            large[value.name] = array
    return graph, large


def _elsewhere(name: str, array: np.ndarray) -> TensorProto:
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value="weights")
    return tensor


def untransposed(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Have products read weights (M, K) as they lie in memory: the runtime would store their transposes."""
    weights = {value.name for value in graph.graph.input}
    turned = {
        node.output[0]: node.input[0]
        for node in graph.graph.node
        if node.op_type == "Transpose" and node.input[0] in weights and list(node.attribute[0].ints) == [1, 0]
    }
    for node in graph.graph.node:
        if node.op_type == "MatMul" and node.input[1] in turned:
            node.op_type, node.domain, node.input[1] = "FusedMatMul", RUNTIME, turned[node.input[1]]
            node.attribute.append(helper.make_attribute("transB", 1))
    graph.opset_import.append(helper.make_opsetid(RUNTIME, 1))
    _drop_unused(graph)
    return graph


# --- int8


def quantize(
    graph: onnx.ModelProto, tensors: Mapping[str, Tensor], fine: bool, wide: bool
) -> tuple[onnx.ModelProto, dict[str, Tensor]]:
    """Have the :func:`linear_layers` of a graph without weights multiply in int8.

    Args:
        fine: always take the second product, for a model that reads patch tokens: the quantization error averages
            out of the pooled embedding, but not of the tokens' differences in time.
        wide: whether the processor adds products in 32 bits. Else it adds two of them in 16 bits, which they may not
            fill: a bit is left out, of the weights, or of the activations where a second product makes up for it.

    Returns:
        the graph, whose layers want quantized weights, and these tensors by name.
    """
    layers = {node.output[0]: weight for node, weight in linear_layers(graph)}
    rounded: dict[str, Tensor] = {}
    steps = STEPS if wide or fine else STEPS // 2
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        if (weight := layers.get(node.output[0])) is None:
            nodes.append(node)
            continue
        for name, tensor in zip(("rounded", "scale"), _round(tensors[weight], steps), strict=True):
            rounded[f"{weight}.{name}"] = tensor
        bias = node.input[2] if node.op_type == "Gemm" else ""
        nodes += _product(node.output[0], node.input[0], weight, bias, fine, halved=fine and not wide)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.opset_import.append(helper.make_opsetid(RUNTIME, 1))
    for name, tensor in rounded.items():
        kind = TensorProto.INT8 if tensor.dtype == torch.int8 else TensorProto.FLOAT
        graph.graph.input.append(helper.make_tensor_value_info(name, kind, tensor.shape))
    _drop_unused(graph)
    return graph, rounded


def _round(weight: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Quantize (M, K) to int8 (K, M) and the steps (M,)."""
    scale = (weight.abs().amax(dim=1) / steps).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight / scale[:, None]).round_().to(torch.int8).T.contiguous(), scale


def _product(y: str, x: str, weight: str, bias: str, fine: bool, halved: bool) -> Iterator[onnx.NodeProto]:
    """Make the nodes of ``y = x W^T + b``; their values are named after ``y``."""

    def node(kind: str, inputs: list[str], outputs: list[str], domain: str = "") -> onnx.NodeProto:
        return helper.make_node(kind, inputs, outputs, domain=domain)

    def quantized(name: str) -> list[str]:
        return [f"{name}.{what}" for what in ("steps", "step", "zero")]

    def multiplied(name: str, bias: str, result: str) -> onnx.NodeProto:
        steps, step, zero = quantized(name)
        inputs = [steps, f"{weight}.rounded", step, f"{weight}.scale", zero, "", bias]
        return node("MatMulIntegerToFloat", inputs if bias else inputs[:5], [result], RUNTIME)

    def quantizing(x: str, name: str) -> list[onnx.NodeProto]:
        if not halved:
            return [node("DynamicQuantizeLinear", [x], quantized(name))]
        steps, step, zero = quantized(name)
        two, one = f"{name}.two", f"{name}.one"
        return [
            node("DynamicQuantizeLinear", [x], [f"{name}.whole", f"{name}.half", f"{name}.middle"]),
            helper.make_node("Constant", [], [two], value_float=2.0),
            helper.make_node("Constant", [], [one], value=numpy_helper.from_array(np.array(1, np.uint8))),
            node("Mul", [f"{name}.half", two], [step]),
            helper.make_node("BitShift", [f"{name}.middle", one], [zero], direction="RIGHT"),
            node("QuantizeLinear", [x, step, zero], [steps]),
        ]

    first, second, high = f"{y}.first", f"{y}.second", f"{y}.high"
    yield from quantizing(x, first)
    yield multiplied(first, bias, high)
    residual = [
        node("DequantizeLinear", quantized(first), [f"{y}.known"]),
        node("Sub", [x, f"{y}.known"], [f"{y}.rest"]),
        *quantizing(f"{y}.rest", second),
        multiplied(second, "", f"{y}.low"),
    ]
    if fine:
        yield from residual
        yield node("Add", [high, f"{y}.low"], [y])
        return
    # The error is step^2 / 12 in the mean square
    square, size = f"{y}.square", f"{y}.size"
    yield helper.make_node("ReduceSumSquare", [x], [square], keepdims=0)
    yield node("Size", [x], [f"{y}.count"])
    yield helper.make_node("Cast", [f"{y}.count"], [size], to=TensorProto.FLOAT)
    yield node("Mul", [quantized(first)[1], quantized(first)[1]], [f"{y}.step2"])
    yield node("Mul", [f"{y}.step2", size], [f"{y}.error"])
    yield helper.make_node("Constant", [], [f"{y}.share"], value_float=12 * TOLERANCE**2)
    yield node("Mul", [square, f"{y}.share"], [f"{y}.bound"])
    yield node("Greater", [f"{y}.error", f"{y}.bound"], [f"{y}.coarse"])
    total, same = f"{y}.total", f"{y}.same"
    both = [*residual, node("Add", [high, f"{y}.low"], [total])]
    yield helper.make_node(
        "If",
        [f"{y}.coarse"],
        [y],
        then_branch=helper.make_graph(both, f"{y}.then", [], [_value(total)]),
        else_branch=helper.make_graph([node("Identity", [high], [same])], f"{y}.else", [], [_value(same)]),
    )


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _drop_unused(graph: onnx.ModelProto) -> None:
    """Remove the weights, and their transpositions, that nothing reads any more."""
    for kind in (graph.graph.node, graph.graph.input):
        read = set(names_read(graph.graph))
        kept = [
            item
            for item in kind
            if read.intersection(item.output if isinstance(item, onnx.NodeProto) else [item.name])
        ]
        del kind[:]
        kind.extend(kept)


def names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of what the nodes of a graph, and of graphs inside it, read, and of its outputs."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from names_read(attribute.g)
