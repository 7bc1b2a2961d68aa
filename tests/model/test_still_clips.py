"""What does not move stays plain CLIP: the motion modules add next to nothing to a still clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import tiny_models
from tests.video_files import write_video
from zsar_cli.model.backbone import Backbone, FrameFeatures
from zsar_cli.model.load import load_model
from zsar_cli.model.motion import motion_amount, motion_cues
from zsar_cli.model.parts import Parts
from zsar_cli.model.zsar import RecognizerModel, VideoEncoding
from zsar_cli.video.transforms import Preprocess, normalise

PARTS = Parts(width=32, queries=2, layers=2, heads=2)
FRAMES, SIDE = 8, 128


def pictures(seed: int, moving: bool) -> np.ndarray:
    """A textured square on a textured ground (8, 128, 128, 3); it moves, or noise of a dark room does."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 190, (8, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)
    square = rng.integers(0, 256, (2, 2, 3)).repeat(24, axis=0).repeat(24, axis=1)
    frames = np.stack([ground] * FRAMES).astype(float)
    for number, frame in enumerate(frames):
        place = 8 + 8 * number * moving
        frame[40:88, place : place + 48] = square
    if not moving:
        frames += rng.normal(0, 15, frames.shape)
    return frames.clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Four clips of each kind as they come out of a video file, (4, 8, 128, 128, 3)."""
    folder: Path = tmp_path_factory.mktemp("clips")

    def coded(frames: np.ndarray, name: str) -> np.ndarray:
        path = write_video(folder / name, len(frames), picture=frames, options={"crf": "45", "g": "4"})
        with av.open(str(path)) as file:
            return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])

    noisy = np.stack([coded(pictures(seed, False), f"still{seed}.mp4") for seed in range(4)])
    moving = np.stack([coded(pictures(seed, True), f"moving{seed}.mp4") for seed in range(4)])
    return {"moving": moving, "noisy": noisy, "still": noisy[:, 4:5].repeat(FRAMES, axis=1)}


def make_model(parts: Parts = PARTS) -> RecognizerModel:
    torch.manual_seed(0)
    preprocess = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    model = RecognizerModel(Backbone.from_config(tiny_models.VIT, preprocess=preprocess), parts).eval()
    assert model.project is not None
    torch.nn.init.normal_(model.project.weight, std=0.1)
    return model


def features(model: RecognizerModel, clips: np.ndarray) -> FrameFeatures:
    frames = torch.from_numpy(clips).flatten(0, 1).movedim(-1, 1)
    small = F.interpolate(frames, model.preprocess.size, mode="bilinear", antialias=True)
    pixels = small.movedim(1, -1).unflatten(0, clips.shape[:2])
    with torch.no_grad():
        return model.encode_frames(normalise(pixels, model.preprocess, torch.float32))


def addition(model: RecognizerModel, encoding: VideoEncoding) -> Tensor:
    """How much the motion modules add to each clip's mean frame embedding, (B,)."""
    assert model.project is not None
    assert encoding.refined is not None
    return model.project(encoding.refined).norm(dim=-1)


def train(model: RecognizerModel, moving: FrameFeatures, steps: int) -> None:
    """Have the modules tell moving clips apart, as training does, with a temperature that asks for much."""
    targets = F.normalize(torch.randn(4, model.backbone.embed_dim), dim=-1)
    optimizer = torch.optim.AdamW([p for _, p in model.added_parameters()], lr=6e-3)
    for _ in range(steps):
        loss = F.cross_entropy(30 * model.encode_video(moving).embedding @ targets.T, torch.arange(4))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.3


@pytest.mark.parametrize("aggregation", [True, False], ids=["MAB", "MSM alone"])
@pytest.mark.parametrize("steps", [0, 25], ids=["before training", "trained"])
def test_a_still_clip_gets_under_a_twentieth_of_what_a_moving_one_gets(clips, aggregation, steps):
    model = make_model(Parts(width=32, queries=2, layers=2, heads=2, aggregation=aggregation))
    given = {kind: features(model, frames) for kind, frames in clips.items()}
    if steps:
        train(model, given["moving"], steps)
    with torch.no_grad():
        added = {kind: addition(model, model.encode_video(frames)) for kind, frames in given.items()}
    assert added["still"].max() < 1e-3 * added["moving"].mean()
    assert 0 < added["noisy"].max() < 0.05 * added["moving"].mean()
    assert added["moving"].min() > 0.2 * added["moving"].mean()


def test_still_clips_stay_plain_clip_in_a_model_that_was_trained_for_long(clips):
    model = load_model("motion-tiny")
    model.parts = replace(model.parts, damped=True)
    with torch.no_grad():
        added = {k: addition(model, model.encode_video(features(model, v))) for k, v in clips.items()}
    assert added["still"].max() < 1e-3 * added["moving"].mean()
    assert added["noisy"].max() < 0.05 * added["moving"].mean()
    assert added["moving"].min() > 0.5 * added["moving"].mean()


def test_the_amount_of_motion_follows_its_equation_and_no_scale():
    tokens = torch.randn(2, 4, 5, 8)
    tokens[1] = tokens[1, 2]
    static, _, residual = motion_cues(tokens)
    share = residual[0].square().sum(-1) / tokens[0].square().sum(-1).mean()
    energy = float(share.square().mean())
    expected = [energy / (energy + 0.15**2), 0.0]
    for scale in (1.0, 100.0):
        assert motion_amount(scale * static, scale * residual).tolist() == pytest.approx(expected, abs=1e-6)
    assert motion_amount(0 * static, 0 * residual).tolist() == [0, 0]


def test_folders_of_older_versions_answer_as_they_did(clips, tmp_path):
    old = make_model(Parts(width=32, queries=2, layers=2, heads=2, damped=False))
    old.save(tmp_path)
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("  damped: false\n", ""))
    again = load_model(str(tmp_path))
    given = features(old, clips["noisy"])
    with torch.no_grad():
        before, after = old.encode_video(given), again.encode_video(given)
    assert torch.equal(after.embedding, before.embedding)
    assert addition(again, after).min() > 0.1  # what is mended in new ones
