"""The figures of an evaluation's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zsar_cli.plots import BLUE, GREEN, GREY, ORANGE, VERMILION, fixed_settings, new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]


def number(value: float | None) -> str:
    """Format a number with three decimals; "-" where there is none."""
    return "-" if value is None or value != value else f"{value:.3f}"


@fixed_settings()
def reliability(results: dict[str, Any]) -> Figure:
    """Draw a reliability diagram a part, at most four: accuracy by confidence."""
    parts = list(results["parts"].items())[:4]
    figure = new_figure(3.2 * max(len(parts), 2), 3.4)
    for axes, (part, numbers) in zip(
        figure.subplots(1, max(len(parts), 2), squeeze=False)[0], [*parts, ("", None)], strict=False
    ):
        if numbers is None:
            axes.set_visible(False)
            continue
        curve = numbers["reliability"]
        edges = np.asarray(curve["edges"], float)
        heights = np.array([np.nan if v is None else v for v in curve["accuracy"]], float)
        axes.bar(
            edges[:-1], np.nan_to_num(heights), np.diff(edges), align="edge", color=BLUE, edgecolor="white"
        )
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        axes.set_title(f"{part}: ECE {number(numbers['ece'])}", fontsize=10)
    figure.tight_layout()
    return figure


@fixed_settings()
def rejection_curves(known: Sequence[Record], unknown: Sequence[Record], kinds: Sequence[str]) -> Figure:
    """Draw for each score the share of unknown videos found against the share of known ones wrongly rejected."""
    figure = new_figure(5, 4)
    axes = figure.subplots()
    styles = zip(kinds, (BLUE, ORANGE, GREEN, VERMILION), ("-", "--", "-.", ":"), strict=False)
    for kind, colour, line in styles:
        inside = np.array([r["unknown"][kind] for r in known if "error" not in r], float)
        outside = np.array([r["unknown"][kind] for r in unknown if "error" not in r], float)
        limits = np.unique(np.concatenate([inside, outside]))[::-1]
        wrong = [(inside >= limit).mean() for limit in limits]
        found = [(outside >= limit).mean() for limit in limits]
        axes.plot([0, *wrong], [0, *found], color=colour, linestyle=line, label=kind)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="known videos rejected", ylabel="unknown videos rejected")
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    return figure


@fixed_settings()
def matrix(known: Sequence[Record], names: Sequence[str]) -> Figure:
    """Draw a confusion matrix of these classes: rows are true classes, columns the answers; shares of a row."""
    place = {name: n for n, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    totals = Counter(r["label"] for r in known)
    for record in known:
        if record["label"] in place and record["top"][0][0] in place:
            counts[place[record["label"]], place[record["top"][0][0]]] += 1
    shares = counts / np.array([max(totals[name], 1) for name in names])[:, None]
    side = 0.21 * len(names)
    figure = new_figure(max(side + 4.2, 6), max(side + 3.6, 4.5))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    labels = [short(name, 40) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set(xlabel="answered", ylabel="true")
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    figure.tight_layout()
    return figure
