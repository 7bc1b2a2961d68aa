"""The training engine: losses, schedules, what is released, and where a run stands after it was stopped."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.tiny_models import VIT
from zsar_cli.data.dataset import Item
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import Parts, RecognizerModel
from zsar_cli.text.templates import Templates
from zsar_cli.training import checkpoint
from zsar_cli.training import data as training_data
from zsar_cli.training.averaging import WeightAverage, interpolate
from zsar_cli.training.clips import MIRRORED
from zsar_cli.training.data import Batch, Schedule, decoded_stream, one_ahead
from zsar_cli.training.holdout import hold_out
from zsar_cli.training.losses import losses, make_probes
from zsar_cli.training.optimizer import learning_rate, make_optimizer, total_steps
from zsar_cli.training.prompts import ClassPrompts
from zsar_cli.training.recipe import (
    Recipe,
    bundled_recipes,
    load_recipe,
    make_recipe,
    override,
    recipe_content,
)
from zsar_cli.training.step import Measured
from zsar_cli.training.trainer import (
    NonFiniteLossError,
    Trainer,
)
from zsar_cli.video.augment import change_colours
from zsar_cli.video.pool import DecodePool
from zsar_cli.video.sampling import Sampling
from zsar_cli.video.transforms import Augmentation, Preprocess

PREPROCESS = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
PARTS = Parts(width=16, queries=2, layers=1, heads=2)
LABELS = ("walking", "running", "jumping")
TEMPLATES = Templates("tiny", ("a video of {}", "{}"), ("no {}", "not {}"))
RECIPE = Recipe(frames=2, steps=6, batch_size=4, lr=1e-3, module_lr=1e-2, parts=PARTS)


@pytest.fixture(scope="module")
def start() -> RecognizerModel:
    torch.manual_seed(0)
    return RecognizerModel(Backbone.from_config(VIT, preprocess=PREPROCESS), PARTS)


def batches(
    recipe: Recipe, rank: int = 0, world: int = 1, lost: Callable[[int], bool] = lambda position: False
):
    """A stream of noise, the same for everybody; ``lost``: which clips of the list cannot be read."""
    schedule = Schedule(20, recipe.batch_size, recipe.accumulate, recipe.steps or 6, recipe.seed, rank, world)

    def stream(first_step: int) -> Iterator[Batch]:
        for step, visits in schedule.batches(first_step):
            kept = [visit for visit in visits if not lost(visit.position)]
            pixels = np.zeros((0, recipe.frames, 32, 32, 3), np.uint8)
            if kept:
                pixels = np.stack([noise(visit.seed, recipe.frames) for visit in kept])
            target = torch.tensor([v.position % len(LABELS) for v in kept], dtype=torch.long)
            yield Batch(step, 0, torch.from_numpy(pixels), target)

    return stream


def noise(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)


def trainer(start: RecognizerModel, folder: Path, recipe: Recipe = RECIPE, **options) -> Trainer:
    stream = options.pop("stream", None) or batches(recipe)
    model = deepcopy(start)
    whole = recipe.tune == "full"
    return Trainer(
        model, recipe, LABELS, TEMPLATES, stream, recipe.steps or 6, folder, whole=whole, **options
    )


def weights(model: RecognizerModel) -> dict[str, torch.Tensor]:
    """What a model keeps when its training is over."""
    return {name: t.clone() for name, t in model.state_dict().items() if not name.startswith("probes.")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- the recipe


def test_bundled_recipes_are_sound_and_survive_writing():
    for name in bundled_recipes():
        recipe = load_recipe(name)
        assert make_recipe(recipe_content(recipe), "again") == recipe


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"lr": True}, "lr must be a number"),
        ({"lr": ".nan"}, "lr must be a number"),
        ({"lr": float("inf")}, "lr must be a number"),
        ({"steps": 1.5}, "steps must be a whole number, not 1.5"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": None}, "batch_size must be a whole number"),
        ({"flip": "maybe"}, "flip must be true or false"),
        ({"model": 3}, "model must be a string"),
        ({"tune": "half"}, "tune must be full or modules, not 'half'"),
        ({"precision": "fp8"}, "precision must be auto, fp32, bf16 or fp16"),
        ({"learning_rate": 1}, "unknown field 'learning_rate'"),
        ({"parts": {"depth": 1}}, "unknown field 'depth'"),
        ({"parts": {"negatives": "some"}}, "parts.negatives must be learned, fixed or none"),
        ({"parts": {"width": 30, "heads": 4}}, "must be a multiple of parts.heads"),
        ({"parts": [1]}, "parts must be a map"),
        ({"architecture": VIT, "w_keep": 1}, "w_keep needs pretrained weights"),
        ({"tune": "modules", "swa": 2}, "keeps frozen"),
        ({"tune": "modules", "foreign": 2}, "foreign needs tune: full"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(content, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        make_recipe(content, "mine.yaml")


def test_recipe_files_and_flags(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 1e-4\nsteps: 50\nparts: {width: 32}\n")  # YAML reads 1e-4 as a text
    recipe = load_recipe(str(path), module_lr=2.0, parts={"heads": 2})
    assert (recipe.lr, recipe.module_lr, recipe.steps) == (1e-4, 2.0, 50)
    assert (recipe.parts.width, recipe.parts.heads) == (32, 2)
    assert override(recipe, epochs=3).steps is None
    assert override(recipe, epochs=3, steps=7).steps == 7
    for content, said in (
        ("- a\n", "must be a map"),
        ("a: [", "is not"),
        ("!!python/name:os.x", "tags such as"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=said):
            load_recipe(str(path))
    with pytest.raises(UsageError, match="one of: few-shot, kinetics"):
        load_recipe("nothing")


def test_learning_rate_warms_up_and_follows_half_a_cosine():
    recipe = replace(RECIPE, warmup=0.1, final_lr=0.01)
    rates = [learning_rate(step, 100, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.01 + 0.99 / 2)  # half way through the cosine
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0.01 < rates[-1] < 0.012
    assert total_steps(100, replace(recipe, steps=None, epochs=3, batch_size=8, accumulate=2)) == 19
    assert total_steps(100, replace(recipe, steps=None, epochs=3, batch_size=8, twins=True)) == 75


def test_two_rates_and_no_decay_on_vectors(start):
    groups = make_optimizer(deepcopy(start), RECIPE).param_groups
    assert {(g["peak"], g["weight_decay"]) for g in groups} == {
        (1e-3, 0),
        (1e-3, 1e-3),
        (1e-2, 0),
        (1e-2, 1e-3),
    }
    assert all((g["weight_decay"] > 0) == (p.ndim >= 2) for g in groups for p in g["params"])


# --- which clips, and how they are changed


def test_every_epoch_visits_every_clip_once_and_shares_make_the_batch():
    schedule = Schedule(7, 3, 2, 7, seed=1)
    visits = [visit for _, part in schedule.batches(0) for visit in part]
    for epoch in range(6):
        assert Counter(v.position for v in visits if v.epoch == epoch) == Counter(range(7))
    orders = [[v.position for v in visits if v.epoch == epoch] for epoch in range(6)]
    assert len(set(map(tuple, orders))) > 1
    assert len({v.seed for v in visits}) == len(visits)  # chance is new at each visit
    assert list(schedule.batches(4)) == list(schedule.batches(0))[8:]
    shares = [list(replace(schedule, rank=rank, world=2).batches(0)) for rank in range(2)]
    for whole, first, second in zip(schedule.batches(0), *shares, strict=True):
        assert first[1] + second[1] == whole[1]
    with pytest.raises(UsageError, match="do not go round"):
        Schedule(7, 1, 1, 1, seed=0, world=2)


def test_one_ahead_gives_the_same_items_and_errors():
    assert list(one_ahead(iter(range(1, 5)))) == [1, 2, 3, 4]

    def failing() -> Iterator[int]:
        yield 1
        raise UsageError("enough")

    items = one_ahead(failing())
    assert next(items) == 1
    with pytest.raises(UsageError, match="enough"):
        next(items)


def test_rendered_clips_are_kept_while_there_is_room(monkeypatch):
    label = "a shape moving left while shrinking"
    monkeypatch.setattr(training_data, "_kept", {})
    clips = [training_data.rendered_clip(label, index, 2) for index in range(3)]
    monkeypatch.setattr(training_data, "KEPT", 4 * clips[0].nbytes)
    again = [training_data.rendered_clip(label, index, 2) for index in range(6)]
    assert [again[index] is clips[index] for index in range(3)] == [True] * 3
    assert sum(clip.nbytes for clip in training_data._kept.values()) == training_data.KEPT
    last = training_data.rendered_clip(label, 5, 2)
    assert last is not again[5]
    assert np.array_equal(last, again[5])


def test_held_out_clips_are_never_trained_on():
    items = [
        Item(f"{label}/{number}", label)
        for label, count in ((0, 100), (1, 10), (2, 4))
        for number in range(count)
    ]
    training, held = hold_out(items, 0.05, seed=0)
    assert Counter(item.label for item in held) == {0: 5, 1: 1}  # two of four clips would be missed
    assert sorted(map(str, training + held)) == sorted(map(str, items))
    assert hold_out(items, 0.05, seed=0) == (training, held) != hold_out(items, 0.05, seed=1)
    shots = items[:98]
    assert not set(hold_out(items, 0.05, seed=0, taken=shots)[1]) & set(shots)
    assert hold_out(items, 0.0, seed=0) == (items, [])
    assert {item.label for item in hold_out(items, 0.99, seed=0)[0]} == {0, 1, 2}  # one of each is left
    repeated = items[:1] * 6 + items[100:110] * 2
    training, held = hold_out(repeated, 0.2, seed=0)
    assert Counter(item.label for item in held) == {1: 4}  # two videos, twice
    assert not set(training) & set(held)


@pytest.mark.parametrize(
    "label", ["turning left", "Left-handed pitch", "spinning clockwise", "moving leftwards"]
)
def test_labels_that_a_mirror_would_make_untrue(label):
    assert MIRRORED.search(label)
    assert not MIRRORED.search("playing a leftover rightly")


def test_clips_are_augmented_by_their_own_seed_and_colours_change(tmp_path):
    from tests.video_files import write_video

    items = [Item(str(write_video(tmp_path / f"{n}.mp4", 6)), n % 3) for n in range(4)]
    schedule = Schedule(4, 2, 1, 4, seed=0)

    def clips(augmentation: Augmentation) -> dict[int, torch.Tensor]:
        with DecodePool(0) as pool:
            stream = decoded_stream(items, Sampling(2), schedule, PREPROCESS, augmentation, pool)
            found = [
                batch.clips if batch.colours is None else change_colours(batch.clips, batch.colours)
                for batch in stream(0)
            ]
        return dict(enumerate(torch.cat(found)))

    plain = clips(Augmentation(scale=(1, 1), ratio=(2.5, 2.5), flip=0, colour_jitter=0))
    flipped = clips(Augmentation(scale=(1, 1), ratio=(2.5, 2.5), flip=1, colour_jitter=0))
    for number, clip in plain.items():
        assert torch.equal(flipped[number], clip.flip(-2))  # the same frames, mirrored as one
    jittered = Augmentation(scale=(0.3, 1), flip=0.5, colour_jitter=0.4)
    assert all(
        torch.equal(a, b) for a, b in zip(clips(jittered).values(), clips(jittered).values(), strict=True)
    )
    grey = clips(Augmentation(colour_jitter=0, grey=1.0))
    assert all(torch.equal(clip[..., 0], clip[..., 2]) for clip in grey.values())


def test_videos_that_cannot_be_read_leave_gaps_and_many_end_the_run(tmp_path):
    from tests.video_files import write_video

    items = [Item(str(write_video(tmp_path / f"{n}.mp4", 4)), 0) for n in range(3)]
    items.append(Item(str(tmp_path / "missing.mp4"), 0))
    augmentation = Augmentation(colour_jitter=0)
    with DecodePool(0) as pool:
        args = (items, Sampling(2), Schedule(4, 1, 1, 4, seed=0), PREPROCESS, augmentation, pool)
        sizes = [len(batch.target) for batch in decoded_stream(*args, max_unreadable=0.3)(0)]
        assert sorted(sizes) == [0, 1, 1, 1]
        with pytest.raises(
            UsageError, match=r"1 of 4 training videos could not be read, such as .*missing\.mp4"
        ):
            list(decoded_stream(*args, max_unreadable=0.2)(0))
        args[0][:] = [items[-1]] * 4
        for steps in (4, 2):
            short = (*args[:2], replace(args[2], steps=steps), *args[3:])
            with pytest.raises(UsageError, match=f"{steps} of {steps} training videos could not be read"):
                list(decoded_stream(*short, max_unreadable=1.0)(0))


def test_held_out_clips_are_decoded_on_while_a_batch_is_looked_at(tmp_path):
    from zsar_cli.training.holdout import batches as held_out_batches

    asked = []

    class Pool:
        def imap(self, items, request):
            ahead = list(items)  # whatever it is given, it decodes ahead
            asked.append(len(ahead))
            return ((item, VideoError("not_found", "") if k == 1 else k) for k, item in enumerate(ahead))

    items = [Item(f"{n}.mp4", n) for n in range(5)]
    found = list(held_out_batches(items, Sampling(2), PREPROCESS, Pool(), 2, None))
    assert [[clip for _, clip in clips] for clips, _ in found] == [[0], [2, 3], [4]]
    assert [target.tolist() for _, target in found] == [[0], [2, 3], [4]]
    assert asked == [5]


# --- losses


def test_label_smoothing_and_weights_of_the_terms(start):
    model = deepcopy(start)
    model.probes = make_probes(model)
    torch.nn.init.eye_(model.probes["motion"].map.weight)
    encoding = model(torch.randn(4, 2, 3, 32, 32))
    text = model.backbone.encode_text(LABELS).detach()
    target = torch.tensor([0, 1, 2, 0])
    recipe = replace(RECIPE, smoothing=0.2, w_neg=0.3, w_dis=0.7, w_opp=0.11, w_keep=2.0)
    frozen = F.normalize(torch.randn(4, 32), dim=-1)
    prompts = ClassPrompts(
        text, model.backbone.encode_text(["no"] * 3).detach(), F.normalize(torch.randn(3, 32), dim=-1)
    )
    terms = losses(model, encoding, target, prompts, recipe, frozen)
    logits = model.log_scale.exp() * encoding.embedding @ text.T
    soft = F.one_hot(target, 3) * 0.8 + 0.2 / 3
    torch.testing.assert_close(terms["pos"], -(soft * logits.log_softmax(-1)).sum(-1).mean())
    near = 1 - (encoding.embedding * frozen).sum(-1).mean() + 1 - (text * prompts.frozen).sum(-1).mean()
    torch.testing.assert_close(terms["keep"], near)
    parts = terms["pos"] + 0.3 * terms["neg"] + 0.7 * terms["dis"] + 0.11 * terms["opp"] + 2.0 * terms["keep"]
    torch.testing.assert_close(terms["total"], parts)


@pytest.mark.parametrize("tune", ["full", "modules"])
def test_the_pretrained_clip_holds_the_model_back(start, tmp_path, tune):
    """L_keep is zero before the first step and keeps a model that is trained nearer to where it began."""
    away = {}
    for weight in (1e-9, 1000.0):
        run = trainer(start, tmp_path, replace(RECIPE, tune=tune, w_keep=weight, w_neg=0, w_dis=0, w_opp=0))
        rows: list[dict[str, float]] = []
        run.run(report=rows.append)
        assert rows[0]["keep"] == pytest.approx(0, abs=1e-5)
        away[weight] = rows[-1]["keep"]
    assert away[1000.0] < 0.5 * away[1e-9]


# --- gradients


def gradients(start: RecognizerModel, recipe: Recipe, folder: Path, **options) -> dict[str, torch.Tensor]:
    """The gradient of the first step, before it is clipped."""
    run = trainer(start, folder, recipe, **options)
    found: dict[str, torch.Tensor] = {}

    def keep(step: int, measured: Measured) -> None:
        found.update({n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None})
        run.progress.step = run.steps

    run._update = keep  # type: ignore[method-assign]
    run.run()
    return found


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    """Each parameter's gradient within ``tolerance`` of its norm (and rounding, of the largest gradient's)."""
    assert a.keys() == b.keys()
    largest = max(float(grad.norm()) for grad in a.values())
    for name in a:
        apart = float((a[name] - b[name]).norm())
        assert apart <= tolerance * float(a[name].norm()) + 1e-8 * largest, name


@pytest.mark.parametrize("tune", ["full", "modules"])
def test_accumulated_batches_give_the_gradient_of_a_large_one(start, tmp_path, tune):
    large = replace(RECIPE, batch_size=8, tune=tune, w_keep=0.5)
    small = replace(large, batch_size=2, accumulate=4)
    # L_dis and L_neg too are means over clips, so nothing depends on how they are split up
    assert_close(gradients(start, large, tmp_path), gradients(start, small, tmp_path))


def test_clips_that_cannot_be_read_leave_the_mean_to_the_others(start, tmp_path):
    recipe = replace(RECIPE, batch_size=4, accumulate=2, clip_norm=1e9)
    first, second = islice(batches(recipe)(0), 2)
    kept = [replace(first, clips=first.clips[:3], target=first.target[:3]), second]
    alone = replace(
        first, clips=torch.cat([b.clips for b in kept]), target=torch.cat([b.target for b in kept])
    )
    gaps = gradients(start, recipe, tmp_path, stream=lambda _: iter(kept))
    whole = replace(recipe, batch_size=7, accumulate=1)
    assert_close(gaps, gradients(start, whole, tmp_path, stream=lambda _: iter([alone])))


def test_gradient_checkpointing_saves_activations_and_changes_nothing(start, tmp_path):
    def kept(recipe: Recipe) -> tuple[int, dict[str, torch.Tensor]]:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            found = gradients(start, recipe, tmp_path)
        return sum(sizes), found

    whole, expected = kept(RECIPE)
    less, found = kept(replace(RECIPE, gradient_checkpointing=True))
    assert less < 0.8 * whole
    assert_close(found, expected)


def test_bf16_runs_the_towers_in_bf16_and_the_losses_in_fp32(start, tmp_path):
    run = trainer(start, tmp_path, replace(RECIPE, precision="bf16", w_keep=0.1))
    seen: list[torch.dtype] = []
    block = run.model.backbone.clip.visual.transformer.resblocks[0].mlp.c_fc
    block.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    rows: list[dict[str, float]] = []
    run.run(report=rows.append)
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    exact: list[dict[str, float]] = []
    trainer(start, tmp_path, replace(RECIPE, w_keep=0.1)).run(report=exact.append)
    assert rows[0]["total"] == pytest.approx(exact[0]["total"], rel=0.02)


@pytest.mark.parametrize(("starts_at", "at_most"), [(14.3, 100.0), (117.0, 117.0)], ids=["CLIP", "SigLIP"])
def test_the_temperature_is_held_below_100_or_where_it_started(start, tmp_path, starts_at, at_most):
    model = deepcopy(start)
    model.log_scale.data.fill_(math.log(starts_at))
    run = trainer(model, tmp_path, replace(RECIPE, steps=1))
    run.model.log_scale.data.fill_(math.log(200))
    run.run()
    assert run.model.log_scale.exp().item() == pytest.approx(at_most, rel=1e-4)


def test_fp16_leaves_out_a_step_that_overflows_and_goes_on_with_a_smaller_scale(start, tmp_path):
    recipe = replace(RECIPE, precision="fp16", batch_size=1, frames=1, steps=3)
    run = trainer(start, tmp_path, recipe)
    run.gradient.scaler.load_state_dict(run.gradient.scaler.state_dict() | {"scale": 2.0**8})
    calls: list[int] = []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * float("inf") if len(calls) == 2 else gradient

    run.model.project.weight.register_hook(overflow)
    seen: list[tuple[float, bool]] = []
    before = weights(run.model)

    def watch(row: dict[str, float]) -> None:
        nonlocal before
        seen.append((run.gradient.scaler.get_scale(), same(before, weights(run.model))))
        before = weights(run.model)

    run.run(report=watch)
    assert seen == [(2.0**8, False), (2.0**7, True), (2.0**7, False)]
    again = trainer(start, tmp_path, recipe)
    assert again.resume()
    assert again.gradient.scaler.state_dict() == run.gradient.scaler.state_dict()


def test_gradients_are_clipped(start, tmp_path):
    run = trainer(start, tmp_path, replace(RECIPE, clip_norm=1e-3))
    norms: list[float] = []
    step = run.optimizer.step

    def watch() -> None:
        norms.append(
            math.sqrt(
                sum(float(p.grad.square().sum()) for p in run.gradient.parameters if p.grad is not None)
            )
        )
        step()

    run.optimizer.step = watch  # type: ignore[method-assign]
    run.run()
    assert norms == pytest.approx([1e-3] * 6, rel=1e-3)


def test_modules_leave_the_backbone_untouched(start, tmp_path):
    run = trainer(start, tmp_path, replace(RECIPE, tune="modules"))
    run.run()
    before, after = weights(start), weights(run.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)
    assert not any(
        n.startswith("backbone.") for n in load_file(checkpoint.found(tmp_path)[-1] / "model.safetensors")
    )


# --- what is released


def test_interpolation_and_average_of_the_backbone(start, tmp_path):
    states: list[dict[str, torch.Tensor]] = [weights(start)]
    plain = trainer(start, tmp_path / "plain")
    plain.run(report=lambda row: states.append(weights(plain.model)))
    half = trainer(start, tmp_path / "half", replace(RECIPE, pretrained_weight=0.25))
    half.run()
    assert same(weights(half.model), states[-1])  # training itself does not change
    half.finish()
    mean = trainer(start, tmp_path / "mean", replace(RECIPE, swa=2))
    mean.run()
    mean.finish()
    for name in states[0]:
        first, third, last = (states[n][name] for n in (0, 3, 6))
        released = (half.model.state_dict()[name], mean.model.state_dict()[name])
        if not name.startswith("backbone.") or not first.is_floating_point():
            assert all(torch.equal(tensor, last) for tensor in released)
        else:
            torch.testing.assert_close(released[0], 0.75 * last + 0.25 * first)
            torch.testing.assert_close(released[1], (first + third + last) / 3)
    again = load_file(tmp_path / "half" / "model.safetensors")
    assert same(again, weights(half.model))


def test_an_average_of_more_snapshots_than_steps_has_each_step_once():
    layer = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(0)
    average = WeightAverage(layer, None, replace(RECIPE, swa=10), steps=2)
    for step, weight in ((1, 3.0), (2, 6.0)):
        layer.weight.fill_(weight)
        average.update(step)
    average.release()
    assert float(layer.weight) == pytest.approx(3.0)


def test_interpolation_at_its_ends():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = a.weight.detach().clone()
    interpolate(a, b.state_dict(), 0.0)
    assert torch.equal(a.weight, before)
    interpolate(a, b.state_dict(), 1.0)
    assert torch.equal(a.weight, b.weight)


def test_best_is_what_would_be_released_and_validation_leaves_no_trace(start, tmp_path):
    recipe = replace(RECIPE, swa=3, pretrained_weight=0.5, validate_every=2)
    scores, seen = iter([0.2, 0.6, 0.4]), []
    run = trainer(start, tmp_path, recipe)

    def score() -> float:
        seen.append(weights(run.model))
        assert not run.model.training
        return next(scores)

    rows: list[dict[str, float]] = []
    run.run(validate=score, report=rows.append)
    assert [row["held_out_top1"] for row in rows if "held_out_top1" in row] == [0.2, 0.6, 0.4]
    assert (run.progress.best, run.progress.best_step) == (0.6, 4)
    assert same(load_file(tmp_path / "best" / "model.safetensors"), seen[1])
    undisturbed = trainer(start, tmp_path / "other", recipe)
    undisturbed.run()
    assert same(weights(run.model), weights(undisturbed.model))
    run.finish()
    undisturbed.finish()
    assert same(weights(run.model), weights(undisturbed.model))


def test_patience_ends_a_run_that_gets_no_better_with_its_best_model(start, tmp_path):
    recipe = replace(RECIPE, tune="modules", validate_every=1, patience=2)
    scores, seen = iter([0.2, 0.6, 0.6, 0.4, 0.5, 0.9]), []
    run = trainer(start, tmp_path, recipe)

    def score() -> float:
        seen.append(weights(run.model))
        return next(scores)

    run.run(validate=score)
    assert (run.step, run.progress.best_step) == (5, 3)  # of two that tie the later one
    again = trainer(start, tmp_path, recipe)
    assert again.resume()
    again.run(validate=score)
    assert again.step == 5  # it has ended
    again.finish()
    assert same(weights(again.model), seen[2])
    assert again.model.record.metrics == {"held_out_top1": 0.6}


def test_residuals_of_classes_learn_with_accumulated_batches(start, tmp_path):
    for tune in ("modules", "full"):
        recipe = replace(RECIPE, tune=tune, parts=replace(PARTS, residual=True), batch_size=2, accumulate=2)
        model = deepcopy(start)
        model.learn_classes(LABELS)
        run = trainer(model, tmp_path / tune, recipe)
        run.run()
        assert run.model.residual is not None
        assert bool(run.model.residual.abs().amax(dim=-1).gt(0).all())


def test_held_out_clips_that_cannot_be_read_choose_nothing(start, tmp_path, caplog):
    from zsar_cli.data.dataset import Item
    from zsar_cli.text.embeddings import embed_labels
    from zsar_cli.training.holdout import top1
    from zsar_cli.video.pool import DecodePool

    run = trainer(start, tmp_path)
    gone = [Item(str(tmp_path / "gone.mp4"), 0)]
    text = embed_labels(run.model, LABELS, TEMPLATES, bank=False)
    rows: list[dict[str, float]] = []
    with DecodePool(0) as pool:
        run.run(
            report=rows.append,
            validate=lambda: top1(run.model, gone, text, frames=2, pool=pool, batch_size=2),
        )
    assert not any("held_out_top1" in row for row in rows)
    assert not (tmp_path / "best").exists()
    assert "none of the held-out clips can be read" in caplog.text


# --- stopping and going on


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, swa=3, w_keep=0.5, pretrained_weight=0.3, accumulate=2),
        replace(RECIPE, tune="modules", precision="bf16"),
    ],
    ids=["full", "modules"],
)
def test_a_run_that_stops_anywhere_ends_in_the_same_weights(start, tmp_path, recipe):
    whole = trainer(start, tmp_path / "whole", recipe)
    whole.run()
    whole.finish()
    for stop_at in (1, 3, 5):
        folder = tmp_path / str(stop_at)
        first = trainer(start, folder, recipe)
        first.run(stop=lambda run=first, n=stop_at: run.step >= n)
        assert first.step == stop_at
        second = trainer(start, folder, recipe)
        assert second.resume()
        second.run()
        second.finish()
        assert same(weights(second.model), weights(whole.model))
        assert same(
            load_file(folder / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
        )


def test_checkpoints_are_whole_or_not_there(start, tmp_path, monkeypatch):
    run = trainer(start, tmp_path)
    assert not run.resume()
    run.run(checkpoint_every=2)
    names = [path.name for path in checkpoint.found(tmp_path)]
    assert names == ["step-00000004", "step-00000006"]
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == names

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    run.progress.step = 8
    with pytest.raises(UsageError, match="the disk is full"):
        run.save_checkpoint()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names
    (tmp_path / "checkpoints" / "step-00000006" / "state.json").write_text("{")
    again = trainer(start, tmp_path)
    assert again.resume()
    assert again.step == 4  # the one before
    (tmp_path / "checkpoints" / "step-00000004" / "optimizer.safetensors").write_bytes(b"cut")
    with pytest.raises(UsageError, match="step-00000004 cannot be used"):
        trainer(start, tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(start, tmp_path):
    run = trainer(start, tmp_path)

    def poison(row: dict[str, float]) -> None:
        if row["step"] == 4:
            with torch.no_grad():
                run.model.log_scale.fill_(float("nan"))

    with pytest.raises(
        NonFiniteLossError, match="loss became nan at step 5; the last good checkpoint is kept"
    ):
        run.run(report=poison, checkpoint_every=3)
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-00000003"]
    again = trainer(start, tmp_path)
    assert again.resume()
    assert all(torch.isfinite(p).all() for p in again.model.parameters())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(start, tmp_path):
    run = trainer(start, tmp_path)
    run.model.project.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NonFiniteLossError, match="gradient became"):
        run.run()
    assert same(weights(run.model), weights(start))
    assert not checkpoint.found(tmp_path)


def test_a_batch_without_any_clip_changes_nothing(start, tmp_path):
    recipe = replace(RECIPE, batch_size=1, accumulate=2)
    run = trainer(start, tmp_path, recipe, stream=batches(recipe, lost=lambda position: True))
    rows: list[dict[str, float]] = []
    run.run(report=rows.append)
    assert [row["total"] for row in rows] == [0] * 6
    assert same(weights(run.model), weights(start))
