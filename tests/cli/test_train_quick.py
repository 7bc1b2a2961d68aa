"""The quick recipe, whole, as ``docs/training.md`` has it: what little it trains already tells motions apart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

# Unseen top-1 with --no-parts-separation --no-parts-aggregation --parts-negatives none; the recipe itself has 0.120
FRAME_AVERAGE = 0.028


@pytest.mark.slow
def test_the_quick_recipe_beats_frame_average(zsar, tmp_path: Path) -> None:
    done = zsar("train", "--config", "quick", "--output", tmp_path / "run")
    assert done.code == 0, done.err
    unseen = float(re.findall(r"([\d.]+)%", done.err)[-1]) / 100  # the last column of the closing table
    assert unseen > 2 * FRAME_AVERAGE
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["steps"] <= 300
