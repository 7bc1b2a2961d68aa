"""The method's promises: what moves is separated, an untrained model is CLIP, gradients go where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests import tiny_models
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.load import load_model
from zsar_cli.model.motion import MotionAggregation, MotionSeparation, map_cues, motion_cues
from zsar_cli.model.zsar import Parts, RecognizerModel
from zsar_cli.training.losses import AppearanceProbe, losses, make_probes, separation_loss
from zsar_cli.training.optimizer import make_optimizer, trainable
from zsar_cli.training.prompts import ClassPrompts
from zsar_cli.training.recipe import Recipe
from zsar_cli.video.transforms import Preprocess

PREPROCESS = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
TOWERS = {"vit": tiny_models.VIT, "timm": tiny_models.SIGLIP}  # the latter in the layout of ViT-B-16-SigLIP
PARTS = Parts(width=32, queries=2, layers=2, heads=2)


def make_model(tower: str = "vit", parts: Parts = PARTS, seed: int = 0) -> RecognizerModel:
    torch.manual_seed(seed)
    return RecognizerModel(Backbone.from_config(TOWERS[tower], preprocess=PREPROCESS), parts).eval()


def trained(model: RecognizerModel) -> RecognizerModel:
    """Stand-in for a trained model: every weight that starts at zero is moved away from it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.added_parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
            assert parameter.any(), name
    return model


@pytest.mark.parametrize("tower", TOWERS)
def test_untrained_model_is_frame_averaged_clip_bit_for_bit(tower):
    model = make_model(tower)
    pixels = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        frames = model.backbone.clip.encode_image(pixels.flatten(0, 1)).unflatten(0, (2, 4))
        expected = F.normalize(frames.mean(dim=1), dim=-1)
        assert torch.equal(model(pixels).embedding, expected)
        assert not torch.equal(trained(model)(pixels).embedding, expected)


def test_still_video_has_no_motion():
    model = trained(make_model())
    still = torch.randn(1, 1, 3, 32, 32).expand(2, 5, -1, -1, -1)
    with torch.no_grad():
        features = model.encode_frames(still)
        _, difference, residual = motion_cues(features.tokens)
        assert difference.abs().max() == 0
        assert residual.abs().max() < 1e-5
        assert model.msm(features.tokens).motion.abs().max() < 1e-4


def test_reversing_time_changes_the_embedding_and_not_the_static_part():
    model = trained(make_model())
    pixels = torch.randn(2, 6, 3, 32, 32)
    with torch.no_grad():
        forward, backward = model(pixels), model(pixels.flip(1))
        assert (forward.embedding - backward.embedding).abs().max() > 1e-3
        static, reversed_static = (
            motion_cues(model.encode_frames(p).tokens)[0] for p in (pixels, pixels.flip(1))
        )
        torch.testing.assert_close(static, reversed_static)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("frames", [1, 2, 7, 64])
def test_any_number_of_frames(tower, frames):
    model = trained(make_model(tower))
    with torch.no_grad():
        encoding = model(torch.randn(1, frames, 3, 32, 32))
    patches = 16 if tower == "vit" else 4
    assert encoding.embedding.shape == (1, model.backbone.embed_dim)
    assert encoding.motion_map.shape == (1, frames, patches)
    assert encoding.motion_map.min() >= 0
    torch.testing.assert_close(encoding.embedding.norm(dim=-1), torch.ones(1))


def trained_separation() -> MotionSeparation:
    torch.manual_seed(0)
    msm = MotionSeparation(token_dim=8, width=16)
    with torch.no_grad():
        for norm in (msm.norm_difference, msm.norm_residual):
            norm.gain.normal_()
            norm.log_floor.fill_(-1)
    return msm


def test_fused_maps_of_the_cues_equal_the_maps_of_the_normalised_cues():
    msm = trained_separation()
    norms, maps = (msm.norm_difference, msm.norm_residual), (msm.to_motion, msm.to_saliency[0])
    cues = motion_cues(torch.randn(2, 4, 5, 8))[1:]
    both = torch.cat([norm(cue) for norm, cue in zip(norms, cues, strict=True)], dim=-1)
    for fused, linear in zip(map_cues(cues, norms, maps), maps, strict=True):
        torch.testing.assert_close(fused, linear(both))


def test_motion_separation_follows_its_equations():
    msm, tokens = trained_separation(), torch.randn(2, 4, 5, 8)

    def norm(cue, of):
        return of.gain * cue / (cue.square().mean(dim=-1, keepdim=True) + torch.e**-1).sqrt()

    static, difference, residual = motion_cues(tokens)
    cues = torch.cat([norm(difference, msm.norm_difference), norm(residual, msm.norm_residual)], dim=-1)
    saliency = msm.to_saliency(cues).sigmoid()
    out = msm(tokens)
    torch.testing.assert_close(out.saliency, saliency.squeeze(-1))
    torch.testing.assert_close(out.motion, saliency * msm.to_motion(cues))
    kept = (1 - saliency.mean(dim=1)) * msm.to_static(msm.norm_static(static))
    torch.testing.assert_close(out.static, kept)


def test_closed_gate_keeps_static_context_out():
    torch.manual_seed(0)
    msm, mab = MotionSeparation(8, 16), MotionAggregation(16, queries=2, layers=2, heads=2)
    separation = msm(torch.randn(2, 4, 9, 8))
    with torch.no_grad():
        before = mab(separation, (1, separation.motion.shape[2]))
        separation.static = torch.randn_like(separation.static)
        torch.testing.assert_close(mab(separation, (1, separation.motion.shape[2])), before, rtol=0, atol=0)
        for layer in mab.layers:
            layer.alpha.fill_(1.0)
        assert (mab(separation, (1, separation.motion.shape[2])) - before).abs().max() > 1e-3


def fitted_probe(motion: torch.Tensor, static: torch.Tensor) -> AppearanceProbe:
    """The probe that least squares give."""
    probe = AppearanceProbe(motion.shape[-1])
    with torch.no_grad():
        probe.mean.copy_(static.mean(0))
        appearance = F.normalize(static - probe.mean, dim=-1)
        found = torch.linalg.lstsq(F.pad(motion, (0, 1), value=1), appearance).solution
        probe.map.weight.copy_(found[:-1].T)
        probe.map.bias.copy_(found[-1])
    return probe


def test_separation_loss_is_the_appearance_that_a_linear_probe_reads_from_motion():
    torch.manual_seed(0)
    static, other = torch.randn(256, 4) + 3, torch.randn(256, 4)
    turned = static @ torch.linalg.qr(torch.randn(4, 4))[0]  # no map of it hides it
    for motion, low, high in ((other, 0, 0.1), (turned, 0.7, 1), (turned + 2 * other, 0.1, 0.5)):
        found = separation_loss(motion, static, fitted_probe(motion, static)).item()
        assert low <= found <= high


def test_separation_loss_moves_motion_alone_and_fits_the_probe():
    torch.manual_seed(0)
    motion, static = torch.randn(8, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    probe = AppearanceProbe(4)
    loss = separation_loss(motion, static, probe)
    loss.backward()
    assert loss.item() == 0  # a probe that reads nothing yet
    assert static.grad is None
    assert not motion.grad.any()
    assert all(parameter.grad.any() for parameter in probe.parameters())
    torch.nn.init.eye_(probe.map.weight)
    separation_loss(motion, static, probe).backward()
    appearance = F.normalize(static.detach(), dim=-1)
    read_right = (motion * appearance).sum(-1, keepdim=True) > 0
    torch.testing.assert_close(motion.grad, appearance * read_right / 8)


@pytest.mark.parametrize("damped", [True, False])
def test_a_still_clip_leaves_the_gradient_of_the_separation_bounded(damped):
    norms = {}
    for weight in (0.0, 1.0):
        model = make_model(parts=replace(PARTS, damped=damped))
        model.probes = make_probes(model)
        for probe in model.probes.values():
            torch.nn.init.eye_(probe.map.weight)
        torch.nn.init.normal_(model.project.weight, std=0.1)
        make_optimizer(model, recipe := Recipe(w_dis=weight, parts=model.parts))
        clips = torch.randn(4, 4, 3, 32, 32)
        clips[0] = clips[0, 0] + 1e-6 * torch.randn_like(clips[0])  # as rounding leaves it
        texts = model.backbone.encode_text(["a", "b", "c", "d"]).detach()
        terms = losses(model, model(clips), torch.arange(4), ClassPrompts(texts, texts), recipe)
        terms["total"].backward()
        grads = [
            p.grad.norm()
            for name, p in model.named_parameters()
            if p.grad is not None and "probes" not in name
        ]
        norms[weight] = float(torch.stack(grads).norm())
    assert norms[1.0] < 2 * norms[0.0]


@pytest.mark.parametrize("tune", ["full", "modules"])
@pytest.mark.parametrize("negatives", ["learned", "fixed", "none"])
def test_gradients_reach_every_trainable_parameter_and_no_other(tune, negatives):
    model = trained(make_model(parts=Parts(width=32, queries=2, layers=2, heads=2, negatives=negatives)))
    recipe = Recipe(tune=tune, parts=model.parts)
    model.probes = make_probes(model)
    make_optimizer(model, recipe)
    texts = model.backbone.encode_text(["a", "b", "c"])
    negative = model.backbone.encode_text(["no a", "no b", "no c"]) if model.uses_negatives else None
    if tune == "modules":
        texts = texts.detach()
    encoding = model(torch.randn(3, 4, 3, 32, 32))
    terms = losses(model, encoding, torch.tensor([0, 1, 2]), ClassPrompts(texts, negative), recipe)
    terms["total"].backward()
    for name, parameter in model.named_parameters():
        if trainable(name, recipe):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_nothing_is_trained_that_the_loss_does_not_reach(weight):
    """DistributedDataParallel waits for the gradient of every trained parameter."""
    parts = replace(PARTS, aggregation=False, negatives="none")
    recipe = Recipe(w_dis=weight, parts=parts)
    model = make_model(parts=parts)
    model.probes = make_probes(model) if weight else None
    make_optimizer(model, recipe)
    texts = model.backbone.encode_text(["a", "b"])
    losses(model, model(torch.randn(2, 3, 3, 32, 32)), torch.arange(2), ClassPrompts(texts, None), recipe)[
        "total"
    ].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_saved_model_loads_to_the_same_answers(tmp_path):
    model = trained(make_model())
    model.beta = 0.5
    model.save(tmp_path / "run")
    again = load_model(str(tmp_path / "run"))
    pixels = torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(pixels).embedding, again(pixels).embedding)
    assert again.parts == model.parts
    assert again.beta == 0.5
