"""Explain sheets: one picture about a video, with what was answered, its frames, and where each label is seen.

Colours mean the same in every sheet: the scales are fixed, and each sheet shows them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zsar_cli.plots import BLUE, GREY, VERMILION, fixed_settings, new_figure, short
from zsar_cli.prediction.heat_colours import paint_label, paint_motion
from zsar_cli.prediction.records import NONE_OF_THESE
from zsar_cli.prediction.timeline_style import clock, colours, ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zsar_cli.prediction.explain import Evidence
    from zsar_cli.prediction.timeline import Segment, Timeline

WIDTH = 12.0  # inches; 1200 pixels
MARGIN, GAP = 0.3, 0.06
MOST_IN_ROW = 8
LARGEST_CELL = 2.1
LINE = 0.3  # above a row of heat maps: what they are about
TIMES = 0.2  # below a row of frames
# Logits of the strongest colour, of a model with motion modules and of one without: the one is read from what changes
# over time, in few patches, the other from all of them.
FULL = {True: 200.0, False: 20.0}
MOST_SEGMENTS = 8  # that have their frames in a sheet about a timeline


class _Page:
    """A figure whose places are in inches from the top left."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.height = float(figure.get_size_inches()[1])

    def axes(self, left: float, top: float, width: float, height: float, name: str = "") -> Any:
        box = (left / WIDTH, (self.height - top - height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_label(name)
        return axes

    def picture(self, pixels: np.ndarray, box: tuple[float, float, float, float], name: str) -> None:
        axes = self.axes(*box, name)
        axes.imshow(pixels, interpolation="antialiased", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])

    def text(self, left: float, top: float, text: str, size: float = 10, **more: Any) -> None:
        self.figure.text(left / WIDTH, 1 - top / self.height, text, fontsize=size, va="center", **more)


# --- a video ----------------------------------------------------------------------------------------------------


@fixed_settings()
def explain_sheet(
    evidence: Evidence, video: str, answers: Sequence[str] | None = None, note: str = ""
) -> Figure:
    """Draw one page about one video.

    Args:
        answers: what the record answers, the surest first; nothing for "none of these", and None where no bound was
            asked for, so that the best label stands for itself.
        note: shown beside the video's name.
    """
    rows, in_row, cell, cell_height = _grid(evidence)
    maps = len(evidence.where) + 1
    band = cell_height + TIMES + maps * (LINE + cell_height) + 0.15
    bars = 0.5 + 0.3 * (len(evidence.labels) + 1)
    top = 1.05
    page = _Page(new_figure(WIDTH, top + rows * band + 0.25 + max(bars, 1.5) + 0.45))
    page.text(MARGIN, 0.35, headline(evidence, answers), 17, weight="bold")
    page.text(MARGIN, 0.72, short(f"{video}{note and '   ' + note}", 130), 10, color=GREY)
    for row in range(rows):
        _clip_band(
            page, evidence, range(row * in_row, min((row + 1) * in_row, len(evidence.frames))), top, cell
        )
        top += band
    top += 0.25
    _bars(page.axes(4.0, top + 0.25, 3.2, bars - 0.5, "bars"), evidence)
    _scales(page, top, evidence)
    return page.figure


def headline(evidence: Evidence, answers: Sequence[str] | None) -> str:
    """Write the answer with its probability; "none of these" where that is it."""
    best = evidence.labels[0]
    if answers is not None and not answers:
        return f"{NONE_OF_THESE}   (best of the labels: {short(best.label, 40)}, {best.score:.1%})"
    score = {found.label: found.score for found in evidence.labels}
    named = [
        f"{short(label, 60)}   {score.get(label, best.score):.1%}" for label in (answers or [best.label])[:3]
    ]
    return short("  +  ".join(named), 90)


def _grid(evidence: Evidence) -> tuple[int, int, float, float]:
    """Lay out frames: rows, frames in a row, and a frame's width and height in inches."""
    count = len(evidence.frames)
    rows = math.ceil(count / MOST_IN_ROW)
    in_row = math.ceil(count / rows)
    cell = min((WIDTH - 2 * MARGIN - (in_row - 1) * GAP) / in_row, LARGEST_CELL)
    height, width = evidence.frames.shape[1:3]
    return rows, in_row, cell, cell * height / width


def _clip_band(
    page: _Page, evidence: Evidence, numbers: range, top: float, cell: float, left: float = MARGIN
) -> None:
    """Draw a row of frames with their times; below it, as many rows of heat as there are."""
    height, width = evidence.frames.shape[1:3]
    cell_height = cell * height / width
    frames, times = _for_people(evidence)
    for place, number in enumerate(numbers):
        box = (left + place * (cell + GAP), top, cell, cell_height)
        page.picture(frames[number], box, f"frame {number + 1}")
        if times is not None:
            page.text(
                box[0] + cell / 2,
                top + cell_height + 0.1,
                _seconds(times[number]),
                9,
                ha="center",
                color=GREY,
            )
    top += cell_height + TIMES
    score = {found.label: found.score for found in evidence.labels}
    rows: list[tuple[str, str, Any]] = [
        (
            f"where: {short(seen.label, 70)}   {_percent(score.get(seen.label))}",
            "heat",
            (seen.heat / FULL[evidence.learned], paint_label),
        )
        for seen in evidence.where
    ]
    kind = (
        "motion (MSM)"
        if evidence.learned
        else "change of the patch tokens (this model has no motion modules)"
    )
    rows.append((f"{kind}, whatever the label", "motion", (evidence.heat, paint_motion)))
    for title, name, (heat, paint) in rows:
        page.text(left, top + LINE / 2, title, 10)
        for place, number in enumerate(numbers):
            box = (left + place * (cell + GAP), top + LINE, cell, cell_height)
            page.picture(paint(frames[number], heat[number]), box, f"{name} {number + 1}")
        top += LINE + cell_height


def _percent(score: float | None) -> str:
    return "" if score is None else f"{score:.1%}"


def _for_people(evidence: Evidence) -> tuple[np.ndarray, np.ndarray | None]:
    if evidence.shown is None:
        return evidence.frames, None
    return evidence.shown.frames, evidence.shown.times


def _seconds(time: float) -> str:
    return f"{time:.2f} s" if time < 60 else clock(time, tenths=True)


# --- heat -------------------------------------------------------------------------------------------------------


def _scales(page: _Page, top: float, evidence: Evidence, motion: bool = True) -> None:
    """Explain the colours, at the right."""
    left, width = 9.3, WIDTH - MARGIN - 9.3
    white = np.full((1, 1, 3), 235, np.uint8)
    page.text(left, top, "colours, the same in every sheet", 9, weight="bold")
    if evidence.where:
        ramp = np.linspace(-1, 1, 65)
        pixels = np.concatenate([paint_label(white, np.array([[value]])) for value in ramp], axis=1)
        page.text(left, top + 0.25, "where: against the label / for it", 9)
        page.picture(pixels, (left, top + 0.37, width, 0.12), "scale of labels")
        full = FULL[evidence.learned]
        for share in (-1, -0.5, 0, 0.5, 1):
            name = f"{share * full:+.3g}".replace("+0", "0").replace("-", "−")
            page.text(left + (share + 1) / 2 * width, top + 0.58, name, 8, ha="center")
        page.text(left, top + 0.77, "logits against the other labels, as if", 8, color=GREY)
        page.text(left, top + 0.92, "the whole clip were like this patch", 8, color=GREY)
    else:
        page.text(left, top + 0.3, "where: not to be had of this model", 9)
    if not motion:
        return
    pixels = np.concatenate(
        [paint_motion(white, np.array([[value]])) for value in np.linspace(0, 1, 33)], axis=1
    )
    page.text(left, top + 1.17, "motion", 9)
    page.picture(pixels, (left, top + 1.29, width, 0.12), "scale of motion")
    for place, name in ((0, "0"), (0.5, "0.5"), (1, "1")):
        page.text(left + place * width, top + 1.5, name, 8, ha="center")


# --- bars -------------------------------------------------------------------------------------------------------


def _bars(axes: Any, evidence: Evidence) -> None:
    """Draw a bar a label in probability, what else is known of it beside; and ``unknown`` below them."""
    labels = evidence.labels
    places = np.arange(len(labels), 0, -1)
    axes.barh(places, [found.score for found in labels], 0.62, color=BLUE)
    axes.barh([0], [evidence.unknown], 0.62, color=VERMILION, hatch="///", edgecolor="white")
    names = [short(found.label, 52) for found in labels]
    axes.set_yticks([*places, 0], [*names, f"unknown: {NONE_OF_THESE}"], fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(labels) + 0.6)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"], fontsize=8)
    axes.set_xlabel("probability among the labels", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for place, found in zip(places, labels, strict=True):
        cosines = f"cosine {found.similarity:.2f}"
        if found.opposed is not None:
            cosines += f", negative {found.opposed:.2f}"
        axes.text(1.03, place + 0.16, f"{found.score:.1%}   yes {found.yes:.2f}", fontsize=9, va="center")
        axes.text(1.03, place - 0.24, cosines, fontsize=7, va="center", color=GREY)
    axes.text(1.03, 0, f"{evidence.unknown:.1%}", fontsize=9, va="center")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# --- a timeline -------------------------------------------------------------------------------------------------


@fixed_settings()
def timeline_sheet(
    timeline: Timeline, seen: Sequence[tuple[Segment, Evidence]], labels: Sequence[str] = ()
) -> Figure:
    """Draw one page about what happens when: the timeline, and some segments with frames of their surest window.

    Args:
        labels: all labels of the run, by which each has its colour in every sheet.
    """
    when: dict[str, list[Segment]] = {}
    for segment in timeline.segments:
        for label in _answers(segment) or [NONE_OF_THESE]:
            when.setdefault(label, []).append(segment)
    named = [label for label in when if label != NONE_OF_THESE]
    rows = [*named, *([NONE_OF_THESE] if NONE_OF_THESE in when else [])]
    strip = 0.3 * len(rows)
    bands = [_segment_height(evidence) for _, evidence in seen]
    top = 1.0
    page = _Page(new_figure(WIDTH, top + strip + 0.75 + sum(bands) + (1.3 if seen else 0.1)))
    page.text(MARGIN, 0.35, _summary(timeline, named), 17, weight="bold")
    page.text(MARGIN, 0.72, short(f"{timeline.video}   {clock(timeline.duration)}", 130), 10, color=GREY)
    _timeline_axes(page.axes(3.6, top, WIDTH - 3.6 - 1.0, strip, "timeline"), timeline, rows, when, labels)
    top += strip + 0.6
    for (segment, evidence), band in zip(seen, bands, strict=True):
        _segment_band(page, segment, evidence, top, labels)
        top += band
    if seen:
        _scales(page, top + 0.1, seen[0][1], motion=False)
        left_out = sum(bool(_answers(s)) for s in timeline.segments) - len(seen)
        if left_out > 0:
            page.text(
                MARGIN, top + 0.1, f"and {left_out} more segments, in the timeline alone", 10, color=GREY
            )
    return page.figure


def _summary(timeline: Timeline, named: Sequence[str]) -> str:
    if not named:
        return f"{NONE_OF_THESE}, from start to end"
    if len(named) == 1:
        return short(named[0], 80)
    return f"{len(named)} labels in {clock(timeline.duration)}"


def _answers(segment: Segment) -> list[str]:
    if segment.answers is not None:
        return segment.answers
    return [] if segment.answer == NONE_OF_THESE else [segment.answer]


def _timeline_axes(
    axes: Any,
    timeline: Timeline,
    rows: Sequence[str],
    when: dict[str, list[Segment]],
    labels: Sequence[str],
) -> None:
    """Draw a row a label, which is the legend as well; "none of these" as a thin grey line."""
    painted = colours([label for label in rows if label != NONE_OF_THESE], labels)
    start = timeline.segments[0].start if timeline.segments else 0.0
    for place, label in enumerate(rows):
        spans = [(s.start, s.end - s.start) for s in when[label]]
        thick = 0.12 if label == NONE_OF_THESE else 0.72
        # White edges, so that a cut between two segments of one label shows
        axes.broken_barh(
            spans,
            (place - thick / 2, thick),
            facecolors=painted.get(label, GREY),
            edgecolor="white",
            linewidth=0.8,
        )
        axes.text(1.01, place, clock(sum(length for _, length in spans)), fontsize=9, va="center", color=GREY,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_yticks(range(len(rows)), [short(label, 46) for label in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(start, start + max(timeline.duration, 1e-3))
    places, names = zip(*(ticks(start, timeline.duration, 12) or [(start, clock(start))]), strict=True)
    axes.set_xticks(places, names, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _segment_cell(evidence: Evidence) -> float:
    """Compute the width of a frame beside the text about a segment: all of a window's frames in one row."""
    return min((WIDTH - 3.6 - MARGIN - (len(evidence.frames) - 1) * GAP) / len(evidence.frames), 1.3)


def _segment_height(evidence: Evidence) -> float:
    height, width = evidence.frames.shape[1:3]
    cell_height = _segment_cell(evidence) * height / width
    return float((1 + bool(evidence.where)) * cell_height + TIMES + GAP + 0.15)


def _segment_band(
    page: _Page, segment: Segment, evidence: Evidence, top: float, labels: Sequence[str]
) -> None:
    """Draw what is answered and when at the left; the frames of the surest window, and where they show it."""
    answer = _answers(segment)
    colour = next(iter(colours(answer[:1], labels).values()))
    page.axes(MARGIN, top, 0.08, _segment_height(evidence) - 0.2, "colour").set_facecolor(colour)
    page.figure.axes[-1].set_axis_on()
    for axis in (page.figure.axes[-1].xaxis, page.figure.axes[-1].yaxis):
        axis.set_visible(False)
    for side in page.figure.axes[-1].spines.values():
        side.set_visible(False)
    lines = textwrap.wrap(short(", ".join(answer), 90), 32)
    for number, line in enumerate(lines):
        page.text(MARGIN + 0.2, top + 0.12 + 0.2 * number, line, 11, weight="bold")
    found = next((p for p in segment.predictions if p.label == answer[0]), segment.predictions[0])
    below = top + 0.18 + 0.2 * len(lines)
    times = f"{clock(segment.start, tenths=True)} to {clock(segment.end, tenths=True)}"
    page.text(MARGIN + 0.2, below, times, 10)
    page.text(MARGIN + 0.2, below + 0.2, f"{found.score:.1%}   yes {found.yes:.2f}", 10, color=GREY)
    cell = _segment_cell(evidence)
    height, width = evidence.frames.shape[1:3]
    cell_height = cell * height / width
    frames, moments = _for_people(evidence)
    for number, frame in enumerate(frames):
        left = 3.6 + number * (cell + GAP)
        page.picture(frame, (left, top, cell, cell_height), f"frame {number + 1}")
        if moments is not None:
            time = clock(float(moments[number]), tenths=True)
            page.text(left + cell / 2, top + cell_height + 0.1, time, 8, ha="center", color=GREY)
        if evidence.where:
            pixels = paint_label(frame, evidence.where[0].heat[number] / FULL[evidence.learned])
            page.picture(pixels, (left, top + cell_height + TIMES, cell, cell_height), f"heat {number + 1}")
