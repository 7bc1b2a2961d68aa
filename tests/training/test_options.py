"""What recipes may ask for besides: rates by layer, other crops, mixed clips; and what a step tells."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training.test_training import RECIPE, assert_close, gradients, start, trainer  # noqa: F401
from zsar_cli.errors import UsageError
from zsar_cli.training.history import open_boards, open_history
from zsar_cli.training.mixing import Mix, draw_mix
from zsar_cli.training.optimizer import layers_above, make_optimizer, tower_blocks
from zsar_cli.video.transforms import multiscale_box


def test_layer_decay_lowers_the_rate_from_block_to_block(start):  # noqa: F811
    model = deepcopy(start)
    optimizer = make_optimizer(model, replace(RECIPE, lr=1.0, module_lr=3.0, layer_decay=0.5))
    names = {id(p): name.removeprefix("backbone.clip.") for name, p in model.named_parameters()}
    rates = {names[id(p)]: group["peak"] for group in optimizer.param_groups for p in group["params"]}
    for name, rate in (
        *(("visual.proj", 1.0), ("visual.ln_post.weight", 1.0), ("text_projection", 1.0)),
        *(
            ("visual.transformer.resblocks.1.mlp.c_fc.weight", 1.0),
            ("transformer.resblocks.0.ln_1.bias", 1.0),
        ),
        ("visual.transformer.resblocks.0.mlp.c_fc.weight", 0.5),
        *(("visual.conv1.weight", 0.25), ("visual.positional_embedding", 0.25)),
        *(("token_embedding.weight", 0.5), ("positional_embedding", 0.5), ("log_scale", 3.0)),
    ):
        assert rates[name] == rate, name


def test_layer_decay_of_a_resnet_goes_by_its_stages():
    prefix, image = "backbone.clip.", "backbone.clip.visual."
    above = {
        **{f"{image}{name}.weight": 4 for name in ("conv1", "bn3")},
        **{f"{image}layer{number}.0.conv1.weight": 4 - number for number in (1, 2, 3, 4)},
        **{f"{image}attnpool.positional_embedding": 0, f"{image}attnpool.q_proj.weight": 0},
        **{f"{prefix}token_embedding.weight": 2, f"{prefix}transformer.resblocks.0.ln_1.bias": 1},
        **{f"{prefix}transformer.resblocks.1.ln_1.bias": 0},
    }
    blocks = tower_blocks(above)
    assert {name: layers_above(name, blocks) for name in above} == above


def test_multiscale_crops_have_the_sides_and_places_of_tsn():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(500):
        left, top, right, bottom = multiscale_box(240, 320, rng)
        assert 0 <= left < right <= 320
        assert 0 <= top < bottom <= 240
        seen.add((right - left, bottom - top))
    sides = [240, 210, 180, 158]
    assert seen == {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}


def test_mixed_clips_count_for_both_classes_as_far_as_they_are_seen():
    recipe = replace(RECIPE, mixup=0.8, cutmix=1.0)
    drawn = [draw_mix(recipe, step, 0, (32, 32)) for step in range(200)]
    assert drawn == [draw_mix(recipe, step, 0, (32, 32)) for step in range(200)]
    assert 60 < sum(mix.box is not None for mix in drawn) < 140
    for mix in drawn:
        ones, zeros = torch.ones(1, 1, 3, 32, 32), torch.zeros(1, 1, 3, 32, 32)
        assert float(mix.apply(ones, zeros).mean()) == pytest.approx(mix.share, abs=1e-5)
    own, other = {"total": torch.tensor(1.0)}, {"total": torch.tensor(3.0)}
    assert float(Mix(0.75).combine(own, other)["total"]) == pytest.approx(1.5)
    assert draw_mix(RECIPE, 0, 0, (32, 32)) is None
    with pytest.raises(UsageError, match="need augment"):
        replace(RECIPE, mixup=0.8, augment=False)


def test_mixing_does_not_depend_on_how_many_clips_fit(start, tmp_path):  # noqa: F811
    recipe = replace(RECIPE, batch_size=5, mixup=0.8, steps=1, clip_norm=1e9)
    whole = gradients(start, recipe, tmp_path)
    assert_close(gradients(start, recipe, tmp_path, micro_batch=2), whole)
    with pytest.raises(AssertionError):
        assert_close(gradients(start, replace(recipe, mixup=0.0), tmp_path), whole)


def test_a_step_tells_its_gradient_temperature_and_speed(start, tmp_path):  # noqa: F811
    rows: list[dict[str, float]] = []
    run = trainer(start, tmp_path, replace(RECIPE, steps=1))
    tau = float(run.model.log_scale.detach().exp())
    run.run(report=rows.append)
    (row,) = rows
    assert row["tau"] == pytest.approx(tau, rel=1e-5)
    assert row["gradient_norm"] > 0
    assert row["clips_per_second"] == pytest.approx(4 / row["seconds"], rel=1e-6)


def test_weights_and_biases_gets_every_row_and_is_not_needed(tmp_path, monkeypatch):
    logged, told = [], {}
    fake = SimpleNamespace(
        log=lambda row, step: logged.append((step, row)), finish=lambda: logged.append("end")
    )
    asked = {"tensorboard": False, "wandb": True, "recipe": {"lr": 1.0}}
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **how: told.update(how) or fake))
    with ExitStack() as stack:
        history = open_history(stack, tmp_path, 0, open_boards(stack, tmp_path, **asked))
        history.add({"step": 1, "total": 0.5})
    assert logged == [(1, {"total": 0.5}), "end"]
    assert (told["config"], told["resume"]) == ({"lr": 1.0}, "allow")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **how: open("no key")))
    with ExitStack() as stack, pytest.raises(UsageError, match=r"--wandb cannot begin: .*no key"):
        open_boards(stack, tmp_path, **asked)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with ExitStack() as stack, pytest.raises(UsageError, match="needs the package wandb"):
        open_boards(stack, tmp_path, **asked)


def test_weights_of_the_pretrained_backbone_are_compared_without_training_again(start, tmp_path):  # noqa: F811
    recipe = replace(RECIPE, steps=2, pretrained_weight=0.3)
    trainer(start, tmp_path, recipe).run()
    again = trainer(start, tmp_path, replace(recipe, pretrained_weight=0.5), sweep=(0.0, 0.5, 1.0))
    assert again.resume()
    before = again.model.backbone.clip.visual.proj.detach().clone()
    first = start.backbone.clip.visual.proj
    found = again.compare(lambda: float((again.model.backbone.clip.visual.proj - first).detach().norm()))
    assert found[0.0] > 0
    assert found[0.5] == pytest.approx(found[0.0] / 2, rel=1e-4)
    assert found[1.0] == pytest.approx(0, abs=1e-6)
    assert torch.equal(again.model.backbone.clip.visual.proj, before)
