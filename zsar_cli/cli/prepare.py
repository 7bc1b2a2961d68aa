"""``zsar train --prepare``: what it says of the copies that it makes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from zsar_cli import distributed

if TYPE_CHECKING:
    from zsar_cli.training.run import Environment


def prepare_data(environment: Environment, folder: Path, *, side: int, workers: int | None) -> None:
    """Prepare the data set of a run in ``folder``, and say how to train with it."""
    from zsar_cli.cli import console
    from zsar_cli.data.prepare import DataSource, prepare
    from zsar_cli.resources import available_cores

    distributed.refuse_several("--prepare", "start it without torchrun: one process uses all cores")
    recipe = environment.recipe
    made = prepare(
        DataSource(recipe.data, environment.data_root, recipe.labels, recipe.label_column),
        folder,
        workers=available_cores() if workers is None else workers,
        side=side,
        max_missing=environment.max_missing,
        progress=console.progress,
    )
    lost = f"; {len(made.errors)} could not be read (see prepared.jsonl)" if made.errors else ""
    console.note(f"{made.videos} videos in {folder}, {made.new} of them new, {made.size / 1e6:.0f} MB{lost}.")
    where = shlex.quote(str(folder))
    definition = shlex.quote(str(folder / made.definition.name))
    console.note(f"Next:  zsar train --data {definition} --data-root {where}")
