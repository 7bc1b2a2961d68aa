"""A graph of ONNX, written as arithmetic. Needs the package ``onnx``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Number = int | float


@dataclass(frozen=True)
class Value:
    """A tensor of a graph that is being built, by its name. Arithmetic with it adds nodes to the graph."""

    graph: Nodes
    name: str
    kind: np.dtype[Any]

    def _with(self, operator: str, other: Value | Number, kind: Any = None) -> Value:
        return self.graph.add(operator, self, self.graph.like(other, self), kind=kind)

    def __add__(self, other: Value | Number) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self._with("Sub", other)

    def __mul__(self, other: Value | Number) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._with("Div", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self._with("GreaterOrEqual", other, bool)

    def __lt__(self, other: Value | Number) -> Value:
        return self._with("Less", other, bool)

    def __and__(self, other: Value) -> Value:
        return self._with("And", other)

    def __matmul__(self, other: Value) -> Value:
        return self._with("MatMul", other)

    def minimum(self, other: Value | Number) -> Value:
        """Take the smaller of both, element by element."""
        return self._with("Min", other)

    def maximum(self, other: Value | Number) -> Value:
        """Take the larger of both, element by element."""
        return self._with("Max", other)

    def abs(self) -> Value:
        """Drop the sign."""
        return self.graph.add("Abs", self)

    def floor(self) -> Value:
        """Round down."""
        return self.graph.add("Floor", self)

    def round(self) -> Value:
        """Round to nearest, halves to even, as Python does."""
        return self.graph.add("Round", self)

    def astype(self, kind: Any) -> Value:
        """Convert to another kind of numbers."""
        code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return self.graph.add("Cast", self, kind=kind, to=code)

    def reshape(self, *shape: int | Value) -> Value:
        """Reshape, some of the sizes being known only when the graph runs (scalars)."""
        return self.graph.add("Reshape", self, self.graph.vector(shape))

    def transpose(self, *axes: int) -> Value:
        """Permute the axes."""
        return self.graph.add("Transpose", self, perm=list(axes))

    def take(self, indices: Value, axis: int) -> Value:
        """Select along an axis, as ``numpy.take``."""
        return self.graph.add("Gather", self, indices, axis=axis)

    def cut(self, start: int, end: int, axis: int) -> Value:
        """Slice along an axis."""
        ends = (self.graph.constant([value], np.int64) for value in (start, end, axis))
        return self.graph.add("Slice", self, *ends)

    def sum(self, axis: int) -> Value:
        """Sum along an axis, which stays with length 1."""
        return self.graph.add("ReduceSum", self, self.graph.constant([axis], np.int64), keepdims=1)

    def max(self) -> Value:
        """Find the largest of all, a scalar."""
        return self.graph.add("ReduceMax", self, keepdims=0)

    def size(self, axis: int) -> Value:
        """Give the length of an axis, an int64 scalar."""
        shape = self.graph.add("Shape", self, kind=np.int64)
        return shape.take(self.graph.constant(axis, np.int64), 0)


class Nodes:
    """Nodes of a graph, in the order in which they run. Their names begin with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.count = 0

    def input(self, name: str, kind: Any) -> Value:
        """Name a tensor that comes from outside."""
        return Value(self, name, np.dtype(kind))

    def constant(self, value: Any, kind: Any) -> Value:
        """Add a constant."""
        name = self._name("constant")
        self.initializers.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return Value(self, name, np.dtype(kind))

    def like(self, value: Value | Number, other: Value) -> Value:
        """Make a number a constant of the kind of another value."""
        return value if isinstance(value, Value) else self.constant(value, other.kind)

    def here(self, value: Value) -> Value:
        """Use a value of the graph around this one."""
        return Value(self, value.name, value.kind)

    def vector(self, values: Sequence[int | Value]) -> Value:
        """Join int64 scalars to a vector."""
        if not any(isinstance(value, Value) for value in values):
            return self.constant(values, np.int64)
        one = self.constant([1], np.int64)
        parts = [
            self.add("Reshape", value, one) if isinstance(value, Value) else self.constant([value], np.int64)
            for value in values
        ]
        return self.add("Concat", *parts, axis=0)

    def add(self, operator: str, *inputs: Value, kind: Any = None, **attributes: Any) -> Value:
        """Add a node with one output, which is of the kind of the first input unless told otherwise."""
        name = self._name(operator)
        names = [value.name for value in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return Value(self, name, inputs[0].kind if kind is None else np.dtype(kind))

    def where(self, condition: Value, yes: Value, no: Value | Number) -> Value:
        """Choose element by element."""
        return self.add("Where", condition, yes, self.like(no, yes), kind=yes.kind)

    def choose(self, condition: Value, yes: Callable[[Nodes], Value], no: Callable[[Nodes], Value]) -> Value:
        """Run one of two graphs, built by functions that get their nodes; both give the same kind of numbers."""
        graphs, kinds = [], []
        for number, build in enumerate((no, yes)):
            inner = Nodes(f"{self.prefix}/{number}")
            found = build(inner)
            graphs.append(inner.graph("branch", [], found, None))
            kinds.append(found.kind)
        return self.add("If", condition, kind=kinds[0], then_branch=graphs[1], else_branch=graphs[0])

    def graph(
        self, name: str, inputs: Sequence[tuple[Value, Any]], output: Value, shape: Any
    ) -> onnx.GraphProto:
        """Make a graph of these nodes, which may use values of the graph around it."""
        described = [
            helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(value.kind), size)
            for value, size in (*inputs, (output, shape))
        ]
        return helper.make_graph(self.nodes, name, described[:-1], described[-1:], self.initializers)

    def arange(self, end: Value | int) -> Value:
        """Count from 0, int64."""
        if isinstance(end, int):
            return self.constant(np.arange(end), np.int64)
        start, step = (self.constant(value, np.int64) for value in (0, 1))
        return self.add("Range", start, end, step)

    def _name(self, what: str) -> str:
        self.count += 1
        return f"{self.prefix}/{what}_{self.count}"
