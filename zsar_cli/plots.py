"""Pictures for people: explain sheets and training curves. matplotlib is imported only when one is drawn.

Colours are Okabe and Ito's, which colour-blind people tell apart; where two things could be mistaken for each
other they also differ in more than colour.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zsar_cli.prediction.explain import Evidence

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
WIDTH = 12.0  # inches; 1200 pixels
DPI = 100
MOST_IN_ROW = 8
MARGIN = 0.3
TOP = 0.85  # title and the heat's scale


ABOUT = "zsar"  # the key of what a picture is about, among the texts in the file


def require_matplotlib() -> Any:
    """matplotlib, imported. UsageError where it is missing.

    At its import it reads a ``matplotlibrc`` of the current folder, which may be anybody's, endless, or a pipe.
    """
    exists = os.path.exists
    if "matplotlib" not in sys.modules:
        os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
    try:
        import matplotlib

        return matplotlib
    except ImportError:
        raise UsageError("Pictures need matplotlib: pip install 'zsar-cli[plots]'.") from None
    finally:
        os.path.exists = exists


@contextmanager
def fixed_settings() -> Iterator[None]:
    """matplotlib's own settings for whatever is drawn in the block: nobody's ``matplotlibrc``, and no LaTeX.

    Also a decorator; every function that calls :func:`new_figure` has it. ``$`` stands for itself.
    """
    matplotlib = require_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, in :func:`fixed_settings`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


@fixed_settings()
def to_png(figure: Figure, about: str | None = None) -> bytes:
    """The picture's file content, which says what it is ``about``; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None} | ({ABOUT: about} if about else {}))
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all. UsageError where it cannot be written."""
    try:
        with atomic_write(path) as aside:
            Path(aside).write_bytes(to_png(figure))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}.") from error


# --- explain sheets -------------------------------------------------------------------------------------------


@fixed_settings()
def explain_sheet(evidence: Evidence, title: str, answer: str | None = None) -> Figure:
    """One page about one video: the frames, where the model saw motion, its top labels, and ``unknown``.

    Args:
        answer: shown beside ``unknown``: what the record's answer is, or the true label.
    """
    count = len(evidence.frames)
    rows = math.ceil(count / MOST_IN_ROW)
    in_row = math.ceil(count / rows)
    gap = 0.06
    height, width = evidence.frames.shape[1:3]
    cell = min((WIDTH - 2 * MARGIN - (in_row - 1) * gap) / in_row, 2.1)
    cell_height = cell * height / width
    band = 2 * (cell_height + gap) + 0.34
    bars = 0.55 + 0.52 * len(evidence.labels)
    total = TOP + rows * band + 0.2 + bars + 0.5
    figure = new_figure(WIDTH, total)

    def place(left: float, top: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / WIDTH, (total - top - high) / total, wide / WIDTH, high / total))

    figure.text(MARGIN / WIDTH, 1 - 0.32 / total, _short(title, 70), fontsize=14, weight="bold", va="center")
    low, high = _range(evidence.heat)
    for number in range(count):
        row, column = divmod(number, in_row)
        left, top = MARGIN + column * (cell + gap), TOP + row * band
        axes = place(left, top, cell, cell_height)
        axes.imshow(evidence.frames[number], interpolation="nearest" if width < 100 else "auto")
        axes.set_title(str(number + 1), fontsize=9, pad=2, color=GREY)
        _bare(axes, f"frame {number + 1}")
        axes = place(left, top + cell_height + gap, cell, cell_height)
        image = _heat(axes, evidence.frames[number], evidence.heat[number], low, high)
        _bare(axes, f"heat {number + 1}")
    top = TOP + rows * band
    _heat_scale(figure, place(WIDTH - MARGIN - 2.6, 0.27, 2.6, 0.09), image, evidence.learned)
    _label_bars(place(3.75, top + 0.3, 5.3, bars - 0.35), evidence)
    _unknown(place(10.1, top + 0.3, WIDTH - 10.1 - MARGIN, 0.3), evidence, answer)
    return figure


def _range(heat: np.ndarray) -> tuple[float, float]:
    """From the 2nd percentile to the 99.5th: one odd patch must not make the rest dark."""
    low, high = np.percentile(heat, [2, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _heat(axes: Any, frame: np.ndarray, heat: np.ndarray, low: float, high: float) -> Any:
    """The frame in grey below, the heat over it, more opaque where it is stronger."""
    height, width = frame.shape[:2]
    axes.imshow(frame.mean(axis=-1) * 0.75, cmap="gray", vmin=0, vmax=255)
    strength = np.clip((heat - low) / (high - low), 0, 1)
    return axes.imshow(
        heat,
        cmap="inferno",
        vmin=low,
        vmax=high,
        alpha=0.15 + 0.65 * strength,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


def _heat_scale(figure: Figure, axes: Any, image: Any, learned: bool) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(image.norm, image.cmap), cax=axes, orientation="horizontal")
    bar.ax.tick_params(labelsize=8, length=2)
    bar.ax.locator_params(nbins=4)
    name = "strength of motion (MSM)" if learned else "change of patch tokens (this model has no MSM)"
    axes.set_title(name, fontsize=9, pad=3, loc="right")


def _label_bars(axes: Any, evidence: Evidence) -> None:
    labels = evidence.labels
    places = np.arange(len(labels))[::-1]
    opposed = [found.opposed for found in labels if found.opposed is not None]
    thick = 0.36 if opposed else 0.6
    shift = thick / 2 if opposed else 0.0
    positive = [found.similarity for found in labels]
    axes.barh(places + shift, positive, thick, color=BLUE, label="positive prompts")
    if opposed:
        axes.barh(
            places - shift,
            opposed,
            thick,
            color=ORANGE,
            hatch="///",
            edgecolor="white",
            label="negative prompts",
        )
    axes.set_yticks(places, [_short(found.label, 44) for found in labels], fontsize=10)
    values = [*positive, *opposed, 0.0]
    low, high = min(values), max(*values, 0.01)
    axes.set_xlim(low * 1.2, high + (high - low) * 0.36)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.axvline(0, color="black", linewidth=0.8)
    for place, found in zip(places, labels, strict=True):
        end = max(found.similarity, found.opposed or 0.0, 0.0) + (high - low) * 0.02
        axes.text(end, place, f"{found.score:.1%}   yes {found.yes:.2f}", fontsize=10, va="center")
    axes.set_xlabel("cosine similarity with the video", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=9, frameon=False, borderaxespad=0.1
    )


def _unknown(axes: Any, evidence: Evidence, answer: str | None) -> None:
    axes.barh([0], [evidence.unknown], color=VERMILION, height=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8)
    axes.set_title(f"unknown {evidence.unknown:.2f}", fontsize=10)
    if answer is not None:
        axes.set_xlabel(_wrap(answer, 20), fontsize=10, labelpad=8)


def _bare(axes: Any, name: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_label(name)


def _short(text: str, most: int) -> str:
    """Safe for matplotlib: nothing that cannot be drawn; cut in the middle, where names differ least."""
    text = "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "?" for c in text)
    if len(text) > most:
        text = f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"
    return text


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "\n".join(_short(line, 60) for line in textwrap.wrap(text, width)[:4])


# --- training -------------------------------------------------------------------------------------------------


@fixed_settings()
def training_curves(history: Sequence[dict[str, float]], title: str = "") -> Figure:
    """The losses and the learning rate of a run, step by step; what training reports of accuracy where it does."""
    figure = new_figure(WIDTH, 4.6)

    def points(name: str) -> tuple[list[float], list[float]]:
        """Steps and values; rows about held-out clips alone have no losses."""
        rows = [row for row in history if math.isfinite(row.get(name, math.nan))]
        return [row["step"] for row in rows], [row[name] for row in rows]

    losses, rates = figure.subplots(1, 2, width_ratios=[2, 1])
    styles = {"total": ("black", "-"), "pos": (BLUE, "-"), "neg": (ORANGE, "--"), "dis": (GREEN, ":")}
    styles |= {"opp": (VERMILION, "-."), "keep": (GREY, "-.")}
    for name, (colour, line) in styles.items():
        steps, values = points(name)
        if values:
            losses.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            losses.plot(steps, _smooth(values), color=colour, linestyle=line, label=name)
    losses.set_xlabel("step")
    losses.set_ylabel("loss")
    losses.legend(fontsize=9, frameon=False)
    for name, colour, line in (("lr", BLUE, "-"), ("module_lr", ORANGE, "--")):
        steps, values = points(name)
        if values:
            rates.plot(steps, values, color=colour, linestyle=line, label=name.replace("_", " "))
    scored = [(row["step"], row[key]) for row in history for key in row if "top1" in key]
    if scored:
        accuracy = losses.twinx()
        accuracy.plot(*zip(*scored, strict=True), color=VERMILION, marker="o", linewidth=1)
        accuracy.set_ylabel("top-1 on held-out clips", color=VERMILION)
        accuracy.set_ylim(0, 1)
    rates.set_xlabel("step")
    rates.set_ylabel("learning rate")
    rates.legend(fontsize=9, frameon=False)
    for axes in (losses, rates):
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(_short(title, 100), fontsize=12)
    figure.tight_layout()
    return figure


def _smooth(values: Sequence[float]) -> np.ndarray:
    """A running mean over a fiftieth of the run."""
    kernel = np.ones(max(1, len(values) // 50))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
