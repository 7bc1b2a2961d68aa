"""A model with its labels as one ONNX graph: uint8 frames in, scores out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from zsar_cli.export.nodes import Nodes
from zsar_cli.export.resize import resized
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.onnx_graph import PIXELS, quantize, with_weights
from zsar_cli.model.onnx_trace import to_onnx
from zsar_cli.model.zsar import RecognizerModel

if TYPE_CHECKING:
    from zsar_cli.text.embeddings import PromptEmbeddings

MOST_BYTES = 2**31 - 2**24  # of one file: protobuf's limit is 2 GB
OUTPUTS = ("scores", "yes", "unknown")


@dataclass(frozen=True)
class Shape:
    """What of the graph's inputs is free: the number of frames where ``frames`` is None; the labels."""

    frames: int | None
    labels_as_input: bool = False


class FramesToScores(nn.Module):
    """Normalised frames (1, T, 3, h, w) to the scores of C labels, whose embeddings are inside or come as inputs."""

    def __init__(self, model: RecognizerModel, text: Mapping[str, Tensor] | None) -> None:
        super().__init__()
        self.model = model
        for name, tensor in (text or {}).items():
            self.register_buffer(name, tensor)

    def forward(
        self, pixels: Tensor, positive: Tensor | None = None, other: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute scores (1, C), yes (1, C) and unknown (1,); ``other``: negatives, or else the phrase bank."""
        model, backbone = self.model, self.model.backbone
        text: dict[str, Any] = {"positive": positive, other_name(model): other}
        if positive is None:
            text = {name: getattr(self, name, None) for name in text}
        if backbone.family is not None and backbone.family.across_frames:
            features = backbone.family.encode_clip(backbone.clip, pixels)
        else:
            flat = backbone._encode_frames(pixels[0])
            features = FrameFeatures(flat.embedding[None], flat.tokens[None])
        video = model.join_views(model.encode_video(features).embedding[:, None])
        found = model.score(video, **text)
        return found.score, found.yes, found.unknown


def other_name(model: RecognizerModel) -> str:
    """Name what besides the positives the scores of a model need."""
    return "negative" if model.uses_negatives else "bank"


def text_of(model: RecognizerModel, embeddings: PromptEmbeddings) -> dict[str, Tensor]:
    """List the embeddings that the scores of these labels need, by the names of the graph's inputs."""
    other = embeddings.negative if model.uses_negatives else embeddings.rivals(model)
    found = {"positive": embeddings.positive, other_name(model): other}
    return {name: tensor.detach().float().cpu() for name, tensor in found.items() if tensor is not None}


def traced(
    model: RecognizerModel, text: Mapping[str, Tensor], shape: Shape, precision: str = "fp32"
) -> onnx.ModelProto:
    """Trace what comes after resizing: frames as floats (1, T, 3, h, w) to scores.

    Raises:
        UsageError: the model cannot be exported.
    """
    count = shape.frames or model.frames
    inputs = {PIXELS: torch.zeros(1, count, 3, *model.preprocess.size)}
    free: dict[str, dict[int, str]] = {}
    if shape.frames is None:
        free[PIXELS] = {1: "T"}
    if shape.labels_as_input:
        inputs |= text
        free |= {"positive": {0: "C"}, "scores": {1: "C"}, "yes": {1: "C"}}
        free |= {name: {0: "C" if name == "negative" else "P"} for name in text if name != "positive"}
    module = FramesToScores(model, None if shape.labels_as_input else text)
    if precision == "fp32":
        return to_onnx(module, inputs, OUTPUTS, free, model.name)
    graph = to_onnx(module, inputs, OUTPUTS, free, model.name, weights=False)
    weights = module.state_dict()
    # wide=False: right on any processor that the file comes to
    graph, rounded = quantize(graph, weights, fine=model.parts.separation, wide=False)
    return with_weights(graph, weights | rounded, math.inf)[0]


def add_resizing(graph: onnx.ModelProto, model: RecognizerModel, shape: Shape) -> None:
    """Put resizing and normalisation before a traced graph, whose input is then ``frames`` (1, T, H, W, 3) uint8."""
    nodes = Nodes("/prepare")
    frames = nodes.input("frames", np.uint8)
    squeezed = nodes.add("Squeeze", frames, nodes.constant([0], np.int64))
    pixels = resized(nodes, squeezed, model.preprocess)
    mean, std = (
        nodes.constant(np.reshape(values, (3, 1, 1)), np.float32)
        for values in (model.preprocess.mean, model.preprocess.std)
    )
    pixels = (pixels / 255 - mean) / std
    nodes.nodes.append(
        helper.make_node("Unsqueeze", [pixels.name, nodes.constant([0], np.int64).name], [PIXELS])
    )
    inner = graph.graph
    after = list(inner.node)
    del inner.node[:]
    inner.node.extend([*nodes.nodes, *after])
    inner.initializer.extend(nodes.initializers)
    given = [value for value in inner.input if value.name != PIXELS]
    size: list[Any] = [1, shape.frames or "T", "H", "W", 3]
    described = helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, size)
    del inner.input[:]
    inner.input.extend([described, *given])
    for output in inner.output:  # the exporter calls what it could not follow by names of its own
        output.type.tensor_type.shape.dim[0].ClearField("dim_param")
        output.type.tensor_type.shape.dim[0].dim_value = 1
    inner.name = "zsar"


def build(
    model: RecognizerModel, text: Mapping[str, Tensor], shape: Shape, precision: str = "fp32"
) -> onnx.ModelProto:
    """Make the whole graph, in fp32 or with the linear layers of the visual tower in int8.

    Raises:
        UsageError: the model cannot be exported.
    """
    graph = traced(model, text, shape, precision)
    add_resizing(graph, model, shape)
    return graph
