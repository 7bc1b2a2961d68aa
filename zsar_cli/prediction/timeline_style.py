"""How a timeline looks wherever it is shown: its times, its ticks, the colours of its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Okabe and Ito's palette, which colour-blind people tell apart; a label's row says the same as its colour
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#0072B2")
STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)  # s


def clock(seconds: float, *, tenths: bool = False) -> str:
    """Format a time: 0:07, 1:02:03; with tenths 0:07.5."""
    total = round(seconds * 10) if tenths else round(seconds) * 10
    minutes, rest = divmod(total, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02}"
    return f"{hours}:{minutes:02}:{second}" if hours else f"{minutes}:{second}"


def ticks(start: float, duration: float, most: float) -> list[tuple[float, str]]:
    """Round times from ``start`` on, ``most`` at the most, and how each is written."""
    step = next((s for s in STEPS if duration / s <= most), max(duration, STEPS[-1]))
    numbers = range(math.ceil(start / step - 1e-9), int((start + duration) / step + 1e-9) + 1)
    return [(number * step, clock(number * step, tenths=step < 1)) for number in numbers]


def colours(shown: Sequence[str], labels: Sequence[str] = ()) -> dict[str, str]:
    """Choose a colour for each label shown, by its place among all ``labels`` of a run: the same in every video.

    Without ``labels``, by its place among those shown.
    """
    place = {label: number for number, label in enumerate(labels or shown)}
    return {label: COLOURS[place.get(label, number) % len(COLOURS)] for number, label in enumerate(shown)}
