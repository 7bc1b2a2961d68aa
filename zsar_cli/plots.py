"""Shared code of plots, and training curves. matplotlib is imported only when something is drawn.

The colours are those of Okabe and Ito, which are safe for colour-blind people; elements that could be confused
also differ in more than colour.
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

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
WIDTH = 12.0  # inches; 1200 pixels
DPI = 100
ABOUT = "zsar"  # the key of what a picture is about, among the texts in the file


def require_matplotlib() -> Any:
    """Import matplotlib. UsageError where it is missing.

    At its import it reads a ``matplotlibrc`` of the current folder, which may be anybody's, endless, or a pipe.
    """
    exists = os.path.exists
    if "matplotlib" not in sys.modules:
        os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
    try:
        import matplotlib

        return matplotlib
    except ImportError:
        raise UsageError("Drawing needs matplotlib: pip install 'zsar-cli[plots]'.") from None
    finally:
        os.path.exists = exists


@contextmanager
def fixed_settings() -> Iterator[None]:
    """Matplotlib's own settings for whatever is drawn in the block: nobody's ``matplotlibrc``, and no LaTeX.

    Also a decorator; every function that calls :func:`new_figure` has it. ``$`` stands for itself.
    """
    matplotlib = require_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of so many inches, in :func:`fixed_settings`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


@fixed_settings()
def to_png(figure: Figure, about: str | None = None) -> bytes:
    """Encode the picture as PNG, which says what it is ``about``; the same picture gives the same bytes."""
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


def short(text: str, most: int) -> str:
    """Make a text safe for matplotlib: nothing that cannot be drawn; cut in the middle, where names differ least."""
    text = "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "?" for c in text)
    if len(text) > most:
        text = f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"
    return text


# --- training -------------------------------------------------------------------------------------------------


@fixed_settings()
def training_curves(history: Sequence[dict[str, float]], title: str = "") -> Figure:
    """Draw the losses and the learning rate of a run, step by step; and held-out accuracy where there is any."""
    figure = new_figure(WIDTH, 4.6)

    def points(name: str) -> tuple[list[float], list[float]]:
        """Split rows into steps and values; rows about held-out clips alone have no losses."""
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
    figure.suptitle(short(title, 100), fontsize=12)
    figure.tight_layout()
    return figure


def _smooth(values: Sequence[float]) -> np.ndarray:
    """Average over a running fiftieth of the run."""
    kernel = np.ones(max(1, len(values) // 50))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
