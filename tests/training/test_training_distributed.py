"""Training by several processes is training by one: the same losses and gradients, to rounding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import VIT
from tests.training.test_fit import full
from tests.training.test_training import PARTS, PREPROCESS, RECIPE, assert_close, batches, trainer
from zsar_cli import distributed
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training.recipe import make_recipe

# Five clips do not divide by two, and one of them cannot be read: the shares differ, and one is empty at times
RECIPES = {
    "full": {
        "batch_size": 5,
        "accumulate": 2,
        "w_keep": 0.5,
        "clip_norm": 1e9,
        "gradient_checkpointing": True,
    },
    "modules": {"batch_size": 2, "tune": "modules", "w_keep": 0.5, "clip_norm": 1e9},
}


def train(name: str, folder: Path) -> None:
    """One process's part of a short run; the first leaves the gradients of the first step and all rows."""
    base = {"frames": 2, "steps": 3, "lr": 1e-4, "module_lr": 1e-3}
    base["parts"] = {
        "width": PARTS.width,
        "queries": PARTS.queries,
        "layers": PARTS.layers,
        "heads": PARTS.heads,
    }
    recipe = make_recipe(base | RECIPES[name], "test")
    torch.manual_seed(0)
    start = RecognizerModel(Backbone.from_config(VIT, preprocess=PREPROCESS), recipe.parts)
    place = distributed.rank(), distributed.world()
    stream = batches(recipe, *place, lost=lambda position: position % 4 == 1)
    run = trainer(start, folder, recipe, stream=stream)
    if distributed.rank() == 1:  # a smaller GPU: it takes its clips one at a time
        run.model.encode_frames = lambda pixels, encode=run.model.encode_frames: (
            encode(pixels) if len(pixels) == 1 else full()
        )
    rows: list[dict[str, float]] = []
    step = run.optimizer.step

    def watch() -> None:
        if run.step == 0 and distributed.rank() == 0:
            grads = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
            save_file(grads, folder / "gradients.safetensors")
        step()

    run.optimizer.step = watch  # type: ignore[method-assign]
    run.run(report=rows.append)
    if distributed.rank() == 0:
        (folder / "rows.json").write_text(json.dumps(rows))


SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_training_distributed import train
from zsar_cli.distributed import processes

with processes():
    for name in ("full", "modules"):
        train(name, Path(sys.argv[1]) / name)
"""


@pytest.fixture
def two(tmp_path, torchrun) -> Path:
    folder = tmp_path / "two"
    for name in RECIPES:
        (folder / name).mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    job = torchrun(script, folder)
    assert job.wait(200) == 0, job.read("stderr")
    return folder


def test_two_processes_give_the_loss_and_the_gradient_of_one(two, tmp_path):
    for name in RECIPES:
        compare(two / name, name, tmp_path / name)


def compare(both_folder: Path, name: str, folder: Path) -> None:
    folder.mkdir()
    train(name, folder)
    one, both = (load_file(path / "gradients.safetensors") for path in (folder, both_folder))
    assert_close(one, {key: both[key] for key in one})
    assert not any(both[key].any() for key in both.keys() - one.keys())  # what one process leaves without any
    rows = [json.loads((path / "rows.json").read_text()) for path in (folder, both_folder)]
    for alone, together in zip(*rows, strict=True):
        for term in ("total", "pos", "neg", "dis", "opp", "keep"):
            assert together[term] == pytest.approx(alone[term], rel=1e-4, abs=1e-6)
    assert rows[0][0]["total"] > 1
    assert RECIPE.seed == 0
