"""What is too much for the device's memory goes through it in smaller portions, and gives the same."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tests.tiny_models import VIT
from tests.training.test_training import RECIPE, assert_close, gradients, start, trainer  # noqa: F401
from zsar_cli.errors import UsageError
from zsar_cli.model import precision
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.precision import arithmetic, trains_in
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training import cost, fit
from zsar_cli.training.cost import describe_cost

LARGE = replace(RECIPE, batch_size=8, steps=1, w_keep=0.5, clip_norm=1e9)


def full(*_: object) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def limited(monkeypatch: pytest.MonkeyPatch, clips: int) -> list[int]:
    """A model that runs out of memory with more clips than these; gives how many it was tried with."""
    whole, tried = RecognizerModel.encode_frames, []

    def encode(model: RecognizerModel, pixels: torch.Tensor) -> object:
        tried.append(len(pixels))
        return whole(model, pixels) if len(pixels) <= clips else full()

    monkeypatch.setattr(RecognizerModel, "encode_frames", encode)
    return tried


@pytest.mark.parametrize("tune", ["full", "modules"])
def test_a_step_that_does_not_fit_is_taken_in_halves_to_the_same_gradient(start, tmp_path, monkeypatch, tune):  # noqa: F811
    recipe = replace(LARGE, tune=tune)
    expected = gradients(start, recipe, tmp_path)
    tried = limited(monkeypatch, 3)
    assert_close(gradients(start, recipe, tmp_path), expected)
    assert tried == [8, 4, 2, 2, 2, 2]


def test_memory_that_runs_out_on_the_way_back_leaves_nothing_behind(start, tmp_path):  # noqa: F811
    recipe = replace(LARGE, accumulate=2)
    expected, found = gradients(start, recipe, tmp_path), {}
    run = trainer(start, tmp_path, recipe)
    seen: list[int] = []

    def once(gradient: torch.Tensor) -> None:
        seen.append(1)
        if len(seen) == 2:  # the first batch is done
            full()

    run.model.backbone.clip.visual.conv1.weight.register_hook(once)
    run.optimizer.register_step_pre_hook(
        lambda *_: found.update(
            {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
        )
    )
    run.run()
    assert_close(found, expected)
    assert len(seen) == 2 + 4  # two of eight clips, then four of four


def test_checkpointing_is_the_last_resort_and_then_an_error_says_what_to_do(start, tmp_path, monkeypatch):  # noqa: F811
    run = trainer(start, tmp_path, LARGE)
    whole = RecognizerModel.encode_frames

    def encode(model: RecognizerModel, pixels: torch.Tensor) -> object:
        return whole(model, pixels) if model.backbone.clip.visual.transformer.grad_checkpointing else full()

    monkeypatch.setattr(RecognizerModel, "encode_frames", encode)
    run.run()
    assert run.step == 1
    assert run.gradient.checkpointing
    for recipe in (replace(LARGE, gradient_checkpointing=False), LARGE):
        with pytest.raises(UsageError, match=r"out of memory; use fewer --frames"):
            trainer(start, tmp_path, recipe).run()
        monkeypatch.setattr(RecognizerModel, "encode_frames", full)


def test_the_most_clips_at_once_can_be_given(start, tmp_path, monkeypatch):  # noqa: F811
    tried = limited(monkeypatch, 8)
    trainer(start, tmp_path, LARGE, micro_batch=3).run()
    assert tried == [3, 3, 2]


def test_clips_at_once_follow_from_the_memory(start, monkeypatch):  # noqa: F811
    def chosen(memory: float, share: int, **changes: object) -> tuple[int, bool]:
        monkeypatch.setattr(fit, "device_memory", lambda device: int(memory))
        return fit.micro_batch(model, replace(RECIPE, **changes), share)

    model = deepcopy(start)
    monkeypatch.setattr(Backbone, "device", torch.device("meta"))
    monkeypatch.setattr(fit, "clip_cost", lambda *_: fit.Cost(bytes=987_000_000, flop=0))  # ViT-B/16's
    assert chosen(85e9, 256) == (32, False)  # a GPU of 80 GB
    assert chosen(85e9, 32) == (32, False)
    assert chosen(85e9, 36) == (18, False)  # even portions
    assert chosen(8e9, 256) == (13, True)
    assert chosen(8e9, 256, gradient_checkpointing=False) == (3, False)
    assert chosen(1e6, 256) == (1, True)


def test_what_a_clip_costs_is_counted_without_computing_it(start):  # noqa: F811
    model = deepcopy(start)
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    sizes = []
    for clips in (1, 2):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model(torch.zeros(clips, 2, 3, 32, 32))
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
    found = fit.clip_cost(model, 2)
    assert found.bytes == pytest.approx(sizes[1] - sizes[0], rel=0.1)
    assert found.flop > 1e6


def test_each_gpu_trains_in_the_precision_that_it_has_units_for(monkeypatch):
    found = {}
    for capability in ((6, 1), (7, 0), (7, 5), (8, 0), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        found[capability] = trains_in("cuda:0")
    assert list(found.values()) == ["fp32", "fp16", "fp16", "bf16", "bf16"]
    assert trains_in("cpu") == trains_in("mps") == "fp32"


def test_tf32_is_for_lower_precisions_only(monkeypatch):
    def flags() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    for name, allowed in (("fp32", False), ("bf16", True), ("fp16", True)):
        with arithmetic(name):
            assert flags() == (allowed, allowed)
        assert flags() == before
    assert precision.device_memory(torch.device("cpu")) > 1e8


def test_a_dry_run_says_what_training_costs_and_whether_the_gpu_would_wait(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    lines = describe_cost(replace(RECIPE, tune="modules", architecture=None, model="no/where"), 10, "cpu", 2)
    assert "not counted" in lines[0]
    monkeypatch.setattr(cost, "model_cost", lambda recipe: fit.Cost(bytes=987_000_000, flop=273 * 10**9))
    found = describe_cost(replace(RECIPE, batch_size=256), 1000, "cuda:0", 14)  # ViT-B/16
    assert "1,000 clips of 0.819 TFLOP: 0.819 PFLOP" in found[0]
    assert "33 on 80 GB and 9 on 24 GB" in found[1]
    assert "14 decoding processes give some 140 clips/s, and the GPU could take 342" in found[2]
    assert len(describe_cost(RECIPE, 1000, "cuda:0", 40)) == len(describe_cost(RECIPE, 1000, "cpu", 1)) == 2


def test_the_cost_of_a_model_without_weights_is_that_of_one_with(start):  # noqa: F811
    recipe = replace(RECIPE, architecture=VIT, model="tiny")
    assert cost.model_cost(recipe) == fit.clip_cost(deepcopy(start).train(), recipe.frames)
