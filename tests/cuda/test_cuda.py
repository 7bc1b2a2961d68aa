"""On a GPU: the answers and the training of the CPU, no more memory than there is, and few waits.

    python -m pytest -m cuda tests/cuda -n 4 --durations 10

Skipped where there is no CUDA; which tensor is on which device is tested everywhere, in test_placement.py.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import zsar_cli
from benchmarks.measure import counted_waits
from tests.close import assert_close
from tests.tiny_models import VIT
from tests.training.test_training import LABELS, PARTS, RECIPE, batches, start, trainer  # noqa: F401
from zsar_cli import Recognizer
from zsar_cli.data import motion_shapes
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.prediction.clips import answer_clips
from zsar_cli.training.data import Batch
from zsar_cli.training.trainer import Trainer
from zsar_cli.video.pool import ClipRequest, load_clip

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]

DEVICE = "cuda"
MOTIONS = motion_shapes.class_labels("all")
ACTIONS = ("walking a dog", "cooking", "playing the violin", "swimming", "opening a door")
# How often the host waits for the device
WAITS_A_BATCH, WAITS_A_STEP = 4, 8


def scores(prediction: Any) -> dict[str, float]:
    return {found.label: found.score for found in prediction.predictions}


# --- prediction


def test_a_gpu_gives_the_answers_of_the_cpu_in_fp32(moving):
    found = {}
    for device in ("cpu", DEVICE):
        recognizer = Recognizer.load("motion-tiny", device=device, precision="fp32")
        options = {"top_k": len(MOTIONS), "workers": 2, "batch_size": 3, "views": 2}
        found[device] = list(recognizer.predict_many(moving, MOTIONS, **options))
    for ours, theirs in zip(found[DEVICE], found["cpu"], strict=True):
        assert_close(dict(sorted(scores(ours).items())), dict(sorted(scores(theirs).items())), 1e-3)
        assert ours.unknown == pytest.approx(theirs.unknown, abs=1e-3)


def test_a_gpu_gives_the_embeddings_of_the_cpu_in_fp32(on_gpu, vit_b_32, moving):
    ours, theirs = (Recognizer(model).embed_video(moving[0]) for model in (on_gpu, vit_b_32))
    assert_close(ours, theirs, 1e-3)
    texts = [Recognizer(model).embed_labels(ACTIONS).positive.cpu() for model in (on_gpu, vit_b_32)]
    assert_close(*texts, 1e-3)


def test_bf16_and_fp16_name_what_fp32_names():
    clips = [motion_shapes.render(label, 7) for label in MOTIONS[::2]]
    best, doubt = {}, {}
    for precision in ("fp32", "bf16", "fp16"):
        recognizer = Recognizer.load("motion-tiny", device=DEVICE, precision=precision)
        found = list(recognizer.predict_many(clips, MOTIONS, top_k=1, workers=0))
        best[precision] = [answer.predictions[0].label for answer in found]
        doubt[precision] = np.array([answer.unknown for answer in found])
    for precision in ("bf16", "fp16"):
        agree = np.mean([a == b for a, b in zip(best[precision], best["fp32"], strict=True)])
        assert agree >= 0.95, f"{precision} agrees with fp32 on {agree:.0%} of {len(clips)} clips"
        assert np.abs(doubt[precision] - doubt["fp32"]).mean() < 0.02


def test_auto_is_bf16_for_a_wide_tower_since_ampere_and_close_to_fp32(on_gpu, moving):
    from zsar_cli.model.precision import resolve_precision

    whole = Recognizer(on_gpu).embed_video(moving[0])
    precision = resolve_precision("auto", DEVICE, on_gpu.backbone)
    assert precision == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32")
    on_gpu.backbone.set_precision("bf16")
    assert float(F.cosine_similarity(Recognizer(on_gpu).embed_video(moving[0]), whole, dim=-1)) > 0.995


@pytest.fixture(scope="session")
def motions(tmp_path_factory) -> Path:
    """The labels of motion-shapes, one a line."""
    path = tmp_path_factory.mktemp("labels") / "motions.txt"
    path.write_text("\n".join(MOTIONS))
    return path


def test_windows_of_a_long_video_are_those_of_the_cpu(zsar, long_video, motions):
    found = {}
    for device in ("cpu", DEVICE):
        options = ("--device", device, "--precision", "fp32", "--window", 2, "--min-confidence", 0.2)
        done = zsar("predict", long_video, "--model", "motion-tiny", "--labels", motions, *options)
        assert done.code == 0, done.err
        found[device] = done.records
    assert len(found["cpu"][0]["segments"]) > 1
    assert_close(found[DEVICE], found["cpu"], 1e-3)


def test_a_cache_filled_on_the_gpu_answers_again_and_on_the_cpu(zsar, moving, motions, tmp_path):
    def predict(device: str, *more: object) -> list[dict[str, Any]]:
        options = ("--labels", motions, "--precision", "fp32", "--device", device)
        done = zsar("predict", *moving, "--model", "motion-tiny", *options, *more)
        assert done.code == 0, done.err
        return done.records

    plain, filled = predict(DEVICE), predict(DEVICE, "--cache", tmp_path)
    assert_close(filled, plain, 5e-3)  # its features are in fp16
    assert_close(predict(DEVICE, "--cache", tmp_path), filled, 1e-5)
    assert_close(predict("cpu", "--cache", tmp_path), filled, 1e-3)


def test_an_evaluation_has_the_figures_of_the_cpu(moving, tmp_path):
    for number, path in enumerate(moving):
        (tmp_path / "videos" / MOTIONS[number]).mkdir(parents=True)
        (tmp_path / "videos" / MOTIONS[number] / path.name).symlink_to(path)
    found = {}
    for device in ("cpu", DEVICE):
        where = {"output": tmp_path / device, "device": device, "workers": 2}
        how = {"precision": "fp32", "probe_motion": True}
        zsar_cli.evaluate(tmp_path / "videos", "motion-tiny", **where, **how)
        lines = (tmp_path / device / "predictions.jsonl").read_text().splitlines()
        found[device] = [json.loads(line) for line in lines]
    assert_close(found[DEVICE], found["cpu"], 1e-3)


def test_an_explanation_shows_the_heat_map_of_the_cpu(moving):
    maps = []
    for device in ("cpu", DEVICE):
        recognizer = Recognizer.load("motion-tiny", device=device, precision="fp32")
        maps.append(recognizer.explain(moving[0], MOTIONS).heat)
    assert_close(*(torch.as_tensor(np.asarray(heat)) for heat in maps), 1e-3)


# --- memory


@contextmanager
def less_memory(bytes_: float) -> Iterator[None]:
    """Let this process have so many bytes of the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(bytes_ / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def peak(action: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes that the allocator had of the GPU meanwhile."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found = action()
    return torch.cuda.max_memory_reserved(), found


def test_prediction_goes_on_with_less_where_the_memory_is_full(on_gpu):
    frames = np.random.default_rng(0).integers(0, 255, (64, 224, 224, 3), np.uint8)
    recognizer = Recognizer(on_gpu)

    def predict(views: int) -> Any:
        return recognizer.predict(frames, ACTIONS, views=views)

    least, _ = peak(lambda: predict(1))
    most, expected = peak(lambda: predict(60))
    assert most > 1.2 * least
    with less_memory((least + most) / 2):
        found = predict(60)
    assert_close(scores(found), scores(expected), 1e-4)


# --- training


@dataclass
class Seen:
    """What a run computed."""

    rows: list[dict[str, float]] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)  # of the first step


def watched(run: Trainer, **how: Any) -> Seen:
    """Run it, and keep the loss terms of all steps and the gradients of the first."""
    seen = Seen()

    def keep(optimizer: Any, *_: Any) -> None:
        for name, parameter in run.model.named_parameters():
            if parameter.grad is not None:
                seen.gradients.setdefault(name, parameter.grad.detach().cpu().clone())

    run.optimizer.register_step_pre_hook(keep)
    run.run(report=seen.rows.append, **how)
    return seen


def training(start: RecognizerModel, folder: Path, device: str = DEVICE, **changes: Any) -> Trainer:  # noqa: F811
    recipe = replace(RECIPE, precision="fp32", clip_norm=1e9, **changes)
    return trainer(deepcopy(start).to(device), folder, recipe, stream=batches(recipe), device=device)


@pytest.mark.parametrize("tune", ["full", "modules"])
def test_a_training_step_in_fp32_is_that_of_the_cpu(start, tmp_path, tune):  # noqa: F811
    changes = {"tune": tune, "steps": 1, "accumulate": 2, "w_keep": 1.0, "smoothing": 0.1}
    ours = watched(training(start, tmp_path / "a", **changes))
    theirs = watched(training(start, tmp_path / "b", "cpu", **changes))
    ((one,), (other,)) = ours.rows, theirs.rows
    timeless = dict.fromkeys(("seconds", "data_wait", "clips_per_second", "memory_gb"), 0.0)
    assert_close({**one, **timeless}, {**other, **timeless}, 1e-3)
    assert ours.gradients.keys() == theirs.gradients.keys()
    whole = torch.cat([g.flatten() for g in theirs.gradients.values()]).norm()
    for name, gradient in theirs.gradients.items():
        assert float((ours.gradients[name] - gradient).norm()) < 1e-3 * float(whole), name


def test_bf16_trains_to_about_the_losses_of_fp32_and_fp16_trains_too(start, tmp_path):  # noqa: F811
    found = {}
    for precision in ("fp32", "bf16", "fp16"):
        recipe = replace(RECIPE, precision=precision, gradient_checkpointing=precision == "bf16")
        run = trainer(deepcopy(start).to(DEVICE), tmp_path / precision, recipe, device=DEVICE)
        found[precision] = [row["total"] for row in watched(run).rows]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.1)
    assert found["fp16"][0] == pytest.approx(found["fp32"][0], rel=0.1)
    assert found["fp16"][-1] < 0.6 * found["fp16"][0]  # it leaves steps out until it has found its scale


def moved_apart(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:  # noqa: F811
    """How far two runs end from one another, as a part of how far they went."""
    names = [name for name, tensor in start.items() if tensor.is_floating_point()]
    away = sum(float((one[n].float().cpu() - other[n].float().cpu()).square().sum()) for n in names)
    went = sum(float((other[n].float().cpu() - start[n].float().cpu()).square().sum()) for n in names)
    return (away / went) ** 0.5


def test_a_stopped_run_goes_on_with_fused_adamw_to_the_weights_of_one_piece(start, tmp_path):  # noqa: F811
    whole = training(start, tmp_path / "whole")
    rows = watched(whole).rows
    assert whole.optimizer.defaults["fused"]
    first = training(start, tmp_path / "parts")
    first.run(stop=lambda: first.step == 3)
    second = training(start, tmp_path / "parts")
    assert second.resume()
    assert second.step == 3
    steps = [state["step"] for state in second.optimizer.state.values()]
    assert {step.device.type for step in steps} == {torch.device(DEVICE).type}  # as the fused kernel asks
    rest = watched(second).rows
    assert [row["total"] for row in rest] == pytest.approx([row["total"] for row in rows[3:]], rel=1e-3)
    # Noise of 1e-8 in the gradients, as of sums in another order, leads 0.05 apart; moments that are lost, 0.2
    assert moved_apart(second.model.state_dict(), whole.model.state_dict(), start.state_dict()) < 0.1


TINY = {
    **{"data": "motion-shapes", "model": "tiny", "architecture": VIT, "frames": 2, "batch_size": 4},
    **{"steps": 6, "lr": 1e-3, "module_lr": 1e-3, "holdout": 0.0, "precision": "fp32"},
    "parts": {"width": 16, "queries": 2, "layers": 1, "heads": 2},
}


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    """A recipe that trains a tiny model from scratch on motion-shapes."""
    from zsar_cli.training import run

    monkeypatch.setattr(run, "validate", lambda *_: {})
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def losses_of(run: Path) -> list[float]:
    return [json.loads(line)["total"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_killed_run_is_resumed_to_the_losses_of_one_piece(zsar, zsar_process, recipe, tmp_path):
    command = ("train", "-c", recipe, "--device", DEVICE, "--checkpoint-every", 2)
    done = zsar(*command, "-o", tmp_path / "whole")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    killed = zsar_process(*command, "-o", run, signal_at=(30, str(run), signal.SIGKILL))
    assert killed.wait(120) == -signal.SIGKILL, killed.read("stderr")
    assert any((run / "checkpoints").iterdir())  # it had come some way
    resumed = zsar("train", "--resume", "-o", run, "--device", DEVICE)
    assert resumed.code == 0, resumed.err
    assert losses_of(run) == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-2)
    one, other = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "whole"))
    assert one.keys() == other.keys()


NCCL = """
import torch
import torch.distributed as dist
from pathlib import Path
from zsar_cli import distributed
from tests.training.test_training import PARTS, PREPROCESS, RECIPE, batches, trainer
from tests.tiny_models import VIT
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import RecognizerModel

assert distributed.own_device("cuda") in ("cuda", "cuda:0")
torch.cuda.set_device(0)
dist.init_process_group("cpu:gloo,cuda:nccl")
torch.manual_seed(0)
start = RecognizerModel(Backbone.from_config(VIT, preprocess=PREPROCESS), PARTS).to("cuda:0")
found = []
for world in (1, 2):  # the second: as if there were others, of which the group knows nothing
    distributed.world = lambda world=world: world
    rows = []
    run = trainer(start, Path("unused"), RECIPE, stream=batches(RECIPE), device="cuda:0")
    run.save_checkpoint = lambda: None
    run.run(report=rows.append)
    found.append([row["total"] for row in rows])
torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(found[0]), rtol=1e-3, atol=1e-3)
dist.destroy_process_group()
print("losses", found)
"""


def test_a_group_of_one_adds_up_gradients_through_nccl(torchrun, tmp_path):
    script = tmp_path / "nccl.py"
    script.write_text(NCCL)
    running = torchrun(script, count=1)
    assert running.wait(150) == 0, running.read("stderr")
    assert "losses" in running.read("stdout")


def test_torchrun_with_one_process_trains_on_the_gpu(torchrun, recipe, tmp_path):
    running = torchrun("train", "-c", recipe, "-o", tmp_path / "run", "--device", DEVICE, count=1)
    assert running.wait(150) == 0, running.read("stderr")
    assert len(losses_of(tmp_path / "run")) == TINY["steps"]


def test_training_goes_on_with_less_where_the_memory_is_full(on_gpu, tmp_path):
    model = RecognizerModel(on_gpu.backbone, PARTS).to(DEVICE)
    noise = np.random.default_rng(0).integers(0, 255, (24, 4, 224, 224, 3), np.uint8)

    def train(size: int) -> tuple[int, dict[str, float]]:
        recipe = replace(RECIPE, frames=4, steps=1, batch_size=size, precision="fp32")
        batch = Batch(0, 0, torch.from_numpy(noise[:size]), torch.arange(size) % len(LABELS))
        run = trainer(model, tmp_path, recipe, stream=lambda _: iter([batch]), device=DEVICE)
        run.save_checkpoint = lambda: None
        bytes_, seen = peak(lambda: watched(run))
        return bytes_, seen.rows[0]

    least, _ = train(2)
    most, expected = train(24)
    assert most > 1.2 * least
    with less_memory((least + most) / 2):
        _, found = train(24)
    for term in ("pos", "neg", "total"):
        assert found[term] == pytest.approx(expected[term], rel=1e-3)


# --- waiting


def test_a_predicted_batch_waits_for_the_gpu_a_few_times(on_gpu, moving, capsys):
    text = Recognizer(on_gpu).embed_labels(ACTIONS)
    clips = [(None, load_clip(ClipRequest(path, preprocess=on_gpu.preprocess))) for path in moving[:4]]
    answer_clips(on_gpu, clips, text)
    with counted_waits() as places:
        answer_clips(on_gpu, clips, text)
    with capsys.disabled():
        print(f"\nwaits of a predicted batch of {len(clips)}: {places.total()} {dict(places)}")
    assert 0 < places.total() <= WAITS_A_BATCH, dict(places)


def test_a_training_step_waits_for_the_gpu_a_few_times(start, tmp_path, capsys):  # noqa: F811
    run = training(start, tmp_path, accumulate=2)
    after: list[Counter[str]] = []
    with counted_waits() as places:
        run.run(report=lambda row: after.append(places.copy()))
    step = after[2] - after[1]
    with capsys.disabled():
        print(f"\nwaits of a training step of two batches: {step.total()} {dict(step)}")
    assert 0 < step.total() <= WAITS_A_STEP, dict(step)
