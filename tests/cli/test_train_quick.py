"""The quick recipe of ``docs/training.md``: half of its training already tells motions apart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from zsar_cli.training import run as training_run
from zsar_cli.training.recipe import load_recipe

# Loss of a guess among the 95 trained classes. Without motion modules and negatives (--no-parts-separation ...) it
# stays there (4.555). Top-1 after so few steps differs too much from processor to processor to be compared.
GUESS = math.log(95)
HALF = ("--steps", 150, "--warmup", 0.4)  # as many steps of warm-up


@pytest.mark.slow
def test_half_of_the_quick_recipe_beats_frame_average(zsar, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(training_run, "validate", lambda *_: {})  # what test_train.py looks at
    done = zsar("train", "--config", "quick", *HALF, "--output", tmp_path / "run")
    assert done.code == 0, done.err
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [row["pos"] for row in history if "pos" in row][-50:]
    assert sum(last) / len(last) < GUESS - 0.25


def test_the_quick_recipe_is_quick() -> None:
    recipe = load_recipe("quick")
    assert recipe.steps is not None
    assert recipe.steps <= 300
    assert round(recipe.steps * recipe.warmup) == round(HALF[1] * HALF[3])
