"""How a timeline looks wherever it is shown: its times, its ticks, the colours of its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Okabe and Ito's palette, which colour-blind people tell apart; a label's row says the same as its colour
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#0072B2")
LIGHTER = 0.45  # of the way to white, in every second turn of the palette; read on black and on white
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
    return {label: _colour(place.get(label, number)) for number, label in enumerate(shown)}


def _colour(place: int) -> str:
    """Take the palette as it is, then lighter, then as it is again."""
    turn, number = divmod(place, len(COLOURS))
    parts = (int(COLOURS[number][i : i + 2], 16) for i in (1, 3, 5))
    share = LIGHTER if turn % 2 else 0
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)
