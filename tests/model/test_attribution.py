"""Where a label is seen: which patches speak for it."""

from __future__ import annotations

import pytest
import torch

from zsar_cli.model.attribution import appearance_heat, label_directions, motion_heat, why_no_label_heat
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.load import load_model
from zsar_cli.model.parts import Parts
from zsar_cli.model.zsar import RecognizerModel


@pytest.fixture(scope="module")
def plain(tiny_clip_dir):
    return load_model(str(tiny_clip_dir))


@pytest.fixture(scope="module")
def motion(tiny_clip_dir):
    torch.manual_seed(0)
    model = RecognizerModel(
        load_model(str(tiny_clip_dir)).backbone, Parts(width=32, heads=2, layers=1)
    ).eval()
    torch.nn.init.normal_(model.project.weight, std=0.1)
    return model


def features(model, frames: int = 4) -> FrameFeatures:
    torch.manual_seed(1)
    rows, columns = model.backbone.patch_grid
    tokens = torch.randn(1, rows * columns, model.backbone.token_dim).repeat(frames, 1, 1)
    tokens[:, 5] = torch.randn(frames, model.backbone.token_dim)  # one patch alone changes
    return FrameFeatures(torch.randn(frames, model.backbone.embed_dim), tokens)


def directions(model) -> torch.Tensor:
    torch.manual_seed(2)
    return label_directions(
        torch.nn.functional.normalize(torch.randn(3, model.backbone.embed_dim), dim=-1), [2, 0]
    )


def test_what_motion_adds_is_where_something_moves_and_sums_to_the_score_over_the_still_clip(motion):
    seen, wanted = features(motion), directions(motion)
    with torch.inference_mode():  # as predict runs
        heat = motion_heat(motion, seen, wanted)
        clip = FrameFeatures(seen.embedding[None], seen.tokens[None])
        still = FrameFeatures(clip.embedding, clip.tokens.mean(1, keepdim=True).expand_as(clip.tokens))
        gain = (motion.encode_video(clip).embedding - motion.encode_video(still).embedding)[0]
        expected = (motion.log_scale.exp() * wanted @ gain).tolist()
    assert heat.shape == (2, 4, *motion.backbone.patch_grid)
    patches = heat.flatten(2)
    assert float(patches[..., 5].abs().sum()) == pytest.approx(float(patches.abs().sum()), rel=1e-3)
    added = patches.mean(dim=(1, 2))
    assert added.tolist() == pytest.approx(expected, rel=0.1, abs=0.05)
    assert (heat[0] - heat[1]).abs().max() > 0.1  # another label, another where


def test_a_plain_clip_says_which_patches_look_like_a_label(plain):
    torch.manual_seed(3)
    frames = torch.full((4, *plain.preprocess.size, 3), 128, dtype=torch.uint8)
    height, width = (
        side // rows for side, rows in zip(plain.preprocess.size, plain.backbone.patch_grid, strict=True)
    )
    frames[1, height : 2 * height, :width] = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    wanted = directions(plain)
    with torch.inference_mode():
        heat, tokens = appearance_heat(plain, frames, wanted)
        again, _ = appearance_heat(plain, frames, 2 * wanted)
    assert heat.shape == (2, 4, *plain.backbone.patch_grid)
    assert tokens.shape[:2] == (4, heat[0, 0].numel())
    assert (heat[0, 1] - heat[0, 0]).abs().argmax() == plain.backbone.patch_grid[1]  # the first of row 1
    assert again.numpy() == pytest.approx(2 * heat.numpy(), rel=1e-3, abs=1e-4)
    assert not any(p.grad is not None for p in plain.parameters())


def test_a_label_is_told_from_the_others_or_alone_from_other_phrases():
    texts = torch.eye(4)
    assert label_directions(texts[:3], [0])[0].tolist() == [1, -0.5, -0.5, 0]
    assert label_directions(texts[:1], [0], texts[2:])[0].tolist() == [1, 0, -0.5, -0.5]
    assert label_directions(texts[:1], [0]).tolist() == [[1, 0, 0, 0]]


def test_a_tower_whose_blocks_are_not_known_has_no_heat_for_a_label(plain, motion, monkeypatch):
    assert why_no_label_heat(plain) is why_no_label_heat(motion) is None
    monkeypatch.setattr("zsar_cli.model.attribution.STACKS", ())
    assert "blocks" in why_no_label_heat(plain)
    assert appearance_heat(plain, torch.zeros(1, *plain.preprocess.size, 3), directions(plain)) is None
    assert why_no_label_heat(motion) is None  # its own tokens will do
