"""Times, ticks and colours of timelines."""

from __future__ import annotations

import colorsys
import re

import pytest

from zsar_cli.files import ASSETS
from zsar_cli.prediction.timeline_style import COLOURS, clock, colours, ticks


@pytest.mark.parametrize(
    ("start", "duration", "names"),
    [
        (0, 2, ["0:00.0", "0:00.5", "0:01.0", "0:01.5", "0:02.0"]),
        (0.3, 10, ["0:02", "0:04", "0:06", "0:08", "0:10"]),
        (0, 3700, ["0:00", "10:00", "20:00", "30:00", "40:00", "50:00", "1:00:00"]),
        (0, 4e5, None),
    ],
)
def test_ticks_are_round_times_and_few(start, duration, names):
    found = ticks(start, duration, 8)
    assert 1 <= len(found) <= 9
    assert names is None or [name for _, name in found] == names
    assert all(start - 1e-6 <= time <= start + duration + 1e-6 for time, _ in found)


def test_a_label_keeps_its_colour_whatever_else_is_shown():
    labels = [f"label {n}" for n in range(20)]
    assert colours(["label 9", "label 2"], labels)["label 9"] == colours(["label 9"], labels)["label 9"]
    assert len(set(colours(labels[:14], labels).values())) == 14
    assert colours(["x", "y"]) == {"x": COLOURS[0], "y": COLOURS[1]}
    assert clock(3723) == "1:02:03"


def test_the_page_gives_labels_the_same_hues_in_the_same_order() -> None:
    script = (ASSETS / "answers.js").read_text(encoding="utf-8")
    page = re.findall(r"#[0-9a-f]{6}", script.partition("const COLOURS = [")[2].partition("]")[0])
    assert len(page) == len(COLOURS)
    for ours, shown in zip(COLOURS, page, strict=True):
        hues = [
            colorsys.rgb_to_hsv(*(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0] for c in (ours, shown)
        ]
        assert abs(hues[0] - hues[1]) < 0.05, (ours, shown)
