"""The resizing of :mod:`zsar_cli.video.transforms` as a part of an ONNX graph, equal to Pillow's bit for bit.

Pillow resizes along rows, rounds to uint8, and resizes along columns. Its weights are whole numbers of 22 bits after
the point. Here each weight is the sum of a coarse part and a fine one, so that products with pixels and their sums are
whole numbers below 2^24, which float32 holds exactly: nothing depends on the order in which they are summed.

Only the pixels of the crop are computed, and each from the stretch of the frame that it depends on: places are put
in groups of neighbours (:data:`GROUP`), whose stretch is one slice of the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import __version__ as pillow

from zsar_cli.export.nodes import Nodes, Value
from zsar_cli.video.transforms import LARGER, LONGEST_STRIP, Preprocess

BITS = 22  # of Pillow's weights after the point (PRECISION_BITS in its Resample.c)
COARSE = 256.0  # unit of the coarse part of a weight
GROUP = 16  # places that share a slice of the frame
# Since version 13, Pillow resizes columns first where height shrinks by more than twice as many pixels as width
VERTICAL_FIRST = int(pillow.partition(".")[0]) >= 13


@dataclass(frozen=True)
class Axis:
    """How one side of a frame is resized; scalars of float64, known when the graph runs."""

    first: Value  # where the part of the frame that counts begins,
    length: Value  # and its length
    scaled: Value  # what that is scaled to
    start: Value  # of the crop in it; below 0 where it is padded
    wanted: int  # pixels of the crop


def resized(nodes: Nodes, frames: Value, preprocess: Preprocess) -> Value:
    """Resize frames (T, H, W, 3) uint8, T, H and W free, to (T, 3, h, w) float32 of whole numbers from 0 to 255.

    As :func:`zsar_cli.video.transforms.resize_and_crop` with one crop. Frames are resized one after the other, so
    that only one at a time is in memory as floats.
    """
    down, across = _geometry(nodes, frames.size(1), frames.size(2), preprocess)
    square = preprocess.size[0] == preprocess.size[1] or preprocess.resize_mode in ("squash", "longest")
    body = Nodes(f"{nodes.prefix}/frame")
    frame = body.input(f"{nodes.prefix}/frame", np.uint8)
    if preprocess.interpolation == "linear" and square:
        done = _linear(body, frame, _between(nodes, down), _between(nodes, across)).transpose(2, 0, 1)
    else:
        bilinear = preprocess.interpolation == "bilinear" and square
        planes = frame.transpose(2, 0, 1)
        rows, columns = (_weights(nodes, axis, bilinear) for axis in (down, across))

        def horizontal_first(inner: Nodes) -> Value:
            return _vertical(inner, _horizontal(inner, inner.here(planes), columns), rows)

        def vertical_first(inner: Nodes) -> Value:
            return _horizontal(inner, _vertical(inner, inner.here(planes), rows), columns)

        if VERTICAL_FIRST:
            less = [axis.length - axis.scaled for axis in (down, across)]
            done = body.choose(less[1].maximum(0.0) * 2.0 < less[0], vertical_first, horizontal_first)
        else:
            done = horizontal_first(body)
    if preprocess.resize_mode == "longest":
        inside = [
            _inside(nodes, axis).reshape(*shape) for axis, shape in ((down, (-1, 1)), (across, (1, -1)))
        ]
        done = body.where(body.here(inside[0] & inside[1]), done, preprocess.fill_color)
    graph = body.graph("frame", [(frame, ["H", "W", 3])], done, (3, *preprocess.size))
    return nodes.add("Scan", frames, kind=np.float32, body=graph, num_scan_inputs=1)


def _geometry(nodes: Nodes, height: Value, width: Value, preprocess: Preprocess) -> tuple[Axis, Axis]:
    """Say what is resized to what, and which part of that is kept, as ``_one_frame`` in the module named above."""
    high, wide = (value.astype(np.float64) for value in (height, width))
    rows, columns = preprocess.size
    if preprocess.resize_mode == "squash":
        nothing = nodes.constant(0.0, np.float64)
        return (
            Axis(nothing, high, nodes.constant(rows, np.float64), nothing, rows),
            Axis(nothing, wide, nodes.constant(columns, np.float64), nothing, columns),
        )
    if preprocess.resize_mode == "longest":
        nothing = nodes.constant(0.0, np.float64)
        ratio = (high / rows).maximum(wide / columns)
        scaled = [(side / ratio).round().maximum(1.0) for side in (high, wide)]
        starts = [
            nothing - ((nodes.constant(wanted, np.float64) - side) * 0.5).floor()
            for side, wanted in zip(scaled, preprocess.size, strict=True)
        ]
        return (
            Axis(nothing, high, scaled[0], starts[0], rows),
            Axis(nothing, wide, scaled[1], starts[1], columns),
        )
    ratio = (high / rows).minimum(wide / columns)
    cut = [
        side.minimum((ratio * float(LONGEST_STRIP * wanted)).floor().maximum(1.0))
        for side, wanted in zip((high, wide), preprocess.size, strict=True)
    ]
    firsts = [((side - kept) * 0.5).round() for side, kept in zip((high, wide), cut, strict=True)]
    scaled = _shortest(cut[0], cut[1], preprocess)
    starts = [
        _rounded_crop((side - wanted) * 0.5, preprocess)
        for side, wanted in zip(scaled, (float(rows), float(columns)), strict=True)
    ]
    return Axis(firsts[0], cut[0], scaled[0], starts[0], rows), Axis(
        firsts[1], cut[1], scaled[1], starts[1], columns
    )


def _shortest(high: Value, wide: Value, preprocess: Preprocess) -> list[Value]:
    larger = LARGER if preprocess.resize_mode == "larger" else 1.0
    rows, columns = (float(round(side * larger)) for side in preprocess.size)
    if rows != columns:
        ratio = (high / rows).minimum(wide / columns)
        return [(side / ratio).round() for side in (high, wide)]
    half = 0.5 if preprocess.resize_mode == "larger" else 0.0
    short = high.minimum(wide)
    return [(side * rows / short + half).floor() for side in (high, wide)]


def _rounded_crop(start: Value, preprocess: Preprocess) -> Value:
    if preprocess.resize_mode == "larger":
        return start.floor()
    if preprocess.interpolation == "linear":
        return start.graph.add("Ceil", start)
    return start.round()


def _places(nodes: Nodes, axis: Axis, count: int) -> Value:
    """Count ``count`` pixels from the crop's first on in the scaled frame, float64."""
    return nodes.constant(np.arange(count), np.float64) + axis.start


def _inside(nodes: Nodes, axis: Axis) -> Value:
    """Tell which pixels of the crop are of the frame, and not of its border."""
    places = _places(nodes, axis, axis.wanted)
    return (places >= 0.0) & (places < axis.scaled)


# --- Pillow's


@dataclass(frozen=True)
class Weighted:
    """Where the stretch of each group of places of an axis begins (G,), and the weights of the pixels in it.

    ``weights``: (G, 2 * GROUP, L) float32, the coarse parts and then the fine ones.
    """

    begin: Value
    weights: Value
    wanted: int


def _weights(nodes: Nodes, axis: Axis, bilinear: bool) -> Weighted:
    """Compute Pillow's weights, as ``precompute_coeffs`` and ``normalize_coeffs_8bpc`` of its Resample.c."""
    groups = math.ceil(axis.wanted / GROUP)
    places = _places(nodes, axis, groups * GROUP).maximum(0.0).minimum(axis.scaled - 1.0)
    places = places.reshape(groups, GROUP)
    scale = axis.length / axis.scaled
    stretch = scale.maximum(1.0)
    support = stretch * (1.0 if bilinear else 2.0)
    centre = (places + 0.5) * scale
    first = (centre - support + 0.5).floor().maximum(0.0)
    end = (centre + support + 0.5).floor().minimum(axis.length)
    begin = first.cut(0, 1, 1)  # (G, 1)
    longest = (end.cut(GROUP - 1, GROUP, 1) - begin).max()
    begin = begin.minimum(axis.length - longest)
    pixels = begin + nodes.arange(longest.astype(np.int64)).astype(np.float64)  # (G, L)
    pixels = pixels.reshape(groups, 1, -1)
    first, end, centre = (value.reshape(groups, GROUP, 1) for value in (first, end, centre))
    distance = ((pixels - centre + 0.5) * (nodes.constant(1.0, np.float64) / stretch)).abs()
    known = (_triangle if bilinear else _cubic)(distance)
    known = nodes.where((pixels >= first) & (pixels < end), known, 0.0)
    known = known / known.sum(2) * float(1 << BITS)
    whole = (known.abs() + 0.5).floor() * nodes.add("Sign", known)
    coarse = (whole / COARSE).round()
    parts = nodes.add("Concat", coarse, whole - coarse * COARSE, axis=1).astype(np.float32)
    return Weighted((begin.reshape(groups) + axis.first).astype(np.int64), parts, axis.wanted)


def _triangle(x: Value) -> Value:
    return (x.graph.constant(1.0, np.float64) - x).maximum(0.0)


def _cubic(x: Value) -> Value:
    """Compute Keys' cubic with a = -0.5, of x that are not negative."""
    near = (x * 1.5 - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return x.graph.where(x < 1.0, near, x.graph.where(x < 2.0, far, 0.0))


def _horizontal(nodes: Nodes, planes: Value, columns: Weighted) -> Value:
    """Resize planes (3, H, W) along their rows: (3, H, w) float32, rounded to whole numbers from 0 to 255."""
    done = _each_group(nodes, planes, columns, 2)  # (3, H, G, GROUP)
    rows = planes.size(1)
    return done.reshape(3, rows, -1).cut(0, columns.wanted, 2)


def _vertical(nodes: Nodes, planes: Value, rows: Weighted) -> Value:
    """Resize planes (3, H, W) along their columns: (3, h, W) float32, rounded to whole numbers from 0 to 255."""
    done = _each_group(nodes, planes, rows, 1)  # (3, G, GROUP, W)
    columns = planes.size(2)
    return done.reshape(3, -1, columns).cut(0, rows.wanted, 1)


def _each_group(nodes: Nodes, planes: Value, weighted: Weighted, axis: int) -> Value:
    """Compute the pixels of each group of places along an axis, and stack them before that axis."""
    inner = Nodes(f"{nodes.prefix}/group")
    begin = inner.input(f"{inner.prefix}/begin", np.int64)
    weights = inner.input(f"{inner.prefix}/weights", np.float32)  # (2 * GROUP, L)
    start = begin.reshape(1)
    stretch = inner.add(
        "Slice", inner.here(planes), start, start + weights.size(1), inner.constant([axis], np.int64)
    ).astype(np.float32)
    sums = (weights @ stretch if axis == 1 else stretch @ weights.transpose(1, 0)).astype(np.int32)
    coarse, fine = sums.cut(0, GROUP, axis), sums.cut(GROUP, 2 * GROUP, axis)
    # Below 0, division of whole numbers rounds up, but then all is 0 anyway
    total = (coarse * int(COARSE) + fine + (1 << (BITS - 1))) / (1 << BITS)
    pixels = total.maximum(0).minimum(255).astype(np.float32)
    body = inner.graph("group", [(begin, []), (weights, [2 * GROUP, "L"])], pixels, [3, None, None])
    scanned = [nodes.here(value) for value in (weighted.begin, weighted.weights)]
    return nodes.add("Scan", *scanned, kind=np.float32, body=body, num_scan_inputs=2, scan_output_axes=[axis])


# --- between the nearest pixels


def _between(nodes: Nodes, axis: Axis) -> tuple[Value, Value, Value]:
    """Find the pixels on either side of each place, and how far it is from the first, as ``_neighbours`` does."""
    places = _places(nodes, axis, axis.wanted).maximum(0.0).minimum(axis.scaled - 1.0)
    last = axis.length - 1.0
    place = ((places + 0.5) * (axis.length / axis.scaled) - 0.5).maximum(0.0).minimum(last)
    first = place.floor()
    numbers = [(number + axis.first).astype(np.int64) for number in (first, (first + 1.0).minimum(last))]
    return numbers[0], numbers[1], (place - first).astype(np.float32)


def _linear(
    nodes: Nodes, frame: Value, down: tuple[Value, Value, Value], across: tuple[Value, Value, Value]
) -> Value:
    """Resize between the four nearest pixels, as ``resize_linear`` does."""
    above, below, lower = (nodes.here(value) for value in down)
    left, right, further = (nodes.here(value) for value in across)
    upper = frame.take(above, 0).astype(np.float32)
    rows = upper + (frame.take(below, 0).astype(np.float32) - upper) * lower.reshape(-1, 1, 1)
    start = rows.take(left, 1)
    found = start + (rows.take(right, 1) - start) * further.reshape(1, -1, 1)
    return (found + 0.5).floor()
