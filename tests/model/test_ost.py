"""Labels with several texts that are kept apart: OST's descriptors, and ActionCLIP's templates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import published_files as files
from zsar_cli.model.published import ost
from zsar_cli.model.published.load import load_published
from zsar_cli.model.published.ost import transport
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.text.embeddings import PromptEmbeddings, Templates, embed_labels
from zsar_cli.text.labels import Labels
from zsar_cli.text.templates import load_templates

NAMES = ("archery", "brush hair", "arm wrestling")
WORDS = ("bow", "brush", "table", "hand", "raises", "pulls", "turns", "waits")
DESCRIBED = Labels(NAMES, tuple(tuple(f"a {name} {word}" for word in WORDS) for name in NAMES))
PLAIN = Labels(NAMES, tuple((name,) for name in NAMES))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RecognizerModel]:
    """OST's and ActionCLIP's model, from files as their authors write them."""
    folder = tmp_path_factory.mktemp("published")

    @cache
    def loaded(family: str) -> RecognizerModel:
        torch.save(files.clip(), folder / "base.pt")
        path = files.write(folder, family, files.content(family))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ZSAR_CACHE_DIR", str(folder / "cache"))
            model = RecognizerModel(
                load_published(family, path, base=str(folder / "base.pt")), as_published=True
            )
        model.record.templates = "photo" if family == "ost" else "actionclip16"
        return model

    return loaded


@torch.inference_mode()
def kept(model: RecognizerModel) -> Tensor:
    """What is kept of two clips."""
    return model.encode_video(model.encode_frames(files.pixels())).embedding


def drawn(*shape: int) -> Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 1


def test_a_plan_moves_all_of_each_frame_to_all_of_each_descriptor() -> None:
    plan = transport(drawn(3, 5, 8, 4) / 4)
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(dim=-2), torch.full((3, 5, 4), 1 / 4))
    torch.testing.assert_close(plan.sum(dim=-1), torch.full((3, 5, 8), 1 / 8), atol=2e-3, rtol=0)


def planned_by_loops(similarity: list[list[float]]) -> list[list[float]]:
    frames, descriptors = range(len(similarity)), range(len(similarity[0]))
    kernel = [[math.exp(-(1 - value) / 0.1) for value in row] for row in similarity]
    r, c = [1.0 for _ in frames], [1.0 for _ in descriptors]
    for _ in range(100):
        before = r
        r = [1 / len(frames) / sum(kernel[t][k] * c[k] for k in descriptors) for t in frames]
        c = [1 / len(descriptors) / sum(kernel[t][k] * r[t] for t in frames) for k in descriptors]
        if sum(abs(new - old) for new, old in zip(r, before, strict=True)) / len(r) < 1e-2:
            break
    return [[r[t] * kernel[t][k] * c[k] for k in descriptors] for t in frames]


@pytest.mark.parametrize("size", [1.0, 0.3, 0.01])
def test_a_plan_is_that_of_a_plain_loop_whatever_is_planned_beside_it(size: float) -> None:
    similarity = size * drawn(6, 5, 4)
    among_others = torch.cat([similarity, torch.zeros(500, 5, 4)])  # which are ready at once
    for one, plan in zip(similarity, transport(among_others)[:6], strict=True):
        torch.testing.assert_close(plan, torch.tensor(planned_by_loops(one.tolist())), atol=1e-5, rtol=1e-3)


def test_where_all_are_alike_transport_is_the_mean() -> None:
    torch.testing.assert_close(transport(torch.full((2, 8, 4), 0.3)), torch.full((2, 8, 4), 1 / 32))
    rows = drawn(2, 8, 1).expand(2, 8, 4)  # descriptors that say the same
    torch.testing.assert_close(ost.matched(rows), rows.mean(dim=(1, 2)))


def scored_by_loops(model: RecognizerModel, prompts: Callable[[str, int, str], str]) -> Tensor:
    """OST's logits of two clips, a clip, a label and a set at a time."""
    with torch.inference_mode():
        frames = F.normalize(model.encode_frames(files.pixels()).embedding.float(), dim=-1)
        rows = torch.zeros(2, len(NAMES))
        for clip in range(2):
            for label, (name, phrases) in enumerate(zip(NAMES, DESCRIBED.phrases, strict=True)):
                texts = [prompts(name, place, phrase) for place, phrase in enumerate(phrases)]
                vectors = model.backbone.encode_text(texts)
                for part in (vectors[:4], vectors[4:]):
                    similarity = frames[clip] @ part.T
                    plan = torch.tensor(planned_by_loops(similarity.tolist()))
                    pooled = frames[clip].mean(dim=0) @ part.mean(dim=0)
                    rows[clip, label] += 0.5 * ((plan * similarity).sum() + pooled)
        return model.backbone.logit_scale.detach().float() * rows


def test_described_labels_are_scored_by_transport_as_a_plain_loop_does(
    load: Callable[[str], RecognizerModel],
) -> None:
    model = load("ost")

    def sentence(name: str, place: int, phrase: str) -> str:
        return (
            f"This is a video about {phrase}" if place < 4 else f"A video of {name} usually includes {phrase}"
        )

    text = embed_labels(model, DESCRIBED, bank=False)
    found = model.score(kept(model), text.positive).logits
    torch.testing.assert_close(found, scored_by_loops(model, sentence), atol=1e-4, rtol=1e-4)
    other = embed_labels(model, DESCRIBED, Templates("mine", ("see {}!",), ()), bank=False)
    found = model.score(kept(model), other.positive).logits
    expected = scored_by_loops(model, lambda name, place, phrase: f"see {phrase}!")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_labels_without_descriptors_are_scored_as_by_a_plain_clip(
    load: Callable[[str], RecognizerModel], caplog: pytest.LogCaptureFixture
) -> None:
    model = load("ost")
    with torch.inference_mode():
        video = F.normalize(model.encode_frames(files.pixels()).embedding.mean(dim=1), dim=-1)
    torch.testing.assert_close(model.video_vectors(kept(model)), video)
    torch.testing.assert_close(kept(RecognizerModel(model.backbone)), video)  # as training starts from it
    text = embed_labels(model, PLAIN, bank=False)
    scale = model.backbone.logit_scale.detach().float()
    torch.testing.assert_close(
        model.score(kept(model), text.positive).logits, scale * video @ text.positive.T
    )
    assert not caplog.records
    some = Labels(NAMES, (*DESCRIBED.phrases[:2], DESCRIBED.phrases[2][:3]))
    with caplog.at_level(logging.INFO):
        text = embed_labels(model, some, bank=False)
    assert text.positive.shape == (3, 64)
    assert "4 spatial and 4 temporal" in caplog.text


def test_actionclip_averages_the_probabilities_of_its_templates(
    load: Callable[[str], RecognizerModel],
) -> None:
    model = load("actionclip")
    frames, head = kept(model).chunk(2, dim=-1)
    video = F.normalize(frames + head, dim=-1)
    expected, templates = torch.zeros(2, len(NAMES)), load_templates("actionclip16").positive
    scale = model.backbone.logit_scale.detach().float()
    for template in templates:
        with torch.inference_mode():
            vectors = model.backbone.encode_text([template.replace("{}", name) for name in NAMES])
        expected += (scale * video @ vectors.T).softmax(dim=-1) / len(templates)
    text = embed_labels(model, PLAIN, bank=False)
    assert text.positive.shape == (3, 16 * 64)
    scores = model.score(kept(model), text.positive)
    torch.testing.assert_close(scores.score, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(scores.logits.softmax(dim=-1), expected, atol=1e-6, rtol=1e-5)
    apart = text.positive.unflatten(1, (16, 64))
    logits = scale * torch.einsum("be,cke->bkc", video, apart).mean(dim=0)  # of two views those are averaged
    both = model.score(kept(model)[None], text.positive).score[0]
    torch.testing.assert_close(both, logits.softmax(dim=-1).mean(dim=0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("family", "labels"), [("ost", DESCRIBED), ("ost", PLAIN), ("actionclip", PLAIN)])
def test_prompt_embeddings_of_texts_kept_apart_are_saved_with_bank_and_negatives(
    load: Callable[[str], RecognizerModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    labels: Labels,
) -> None:
    monkeypatch.setattr("zsar_cli.text.embeddings.phrase_bank", lambda: ("sleeping", "a red car"))
    model = load(family)
    text = embed_labels(model, labels, negatives=True)
    text.save(tmp_path / "text.safetensors")
    read = PromptEmbeddings.load(tmp_path / "text.safetensors")
    assert read.bank is not None
    assert read.bank.shape == (2, text.positive.shape[1])
    first, last = read.bank[:, :64], read.bank[:, -64:]
    assert torch.equal(first, last) == (labels is PLAIN and family == "ost")  # in the prompts of the labels
    scores = [model.score(kept(model), t.positive, t.negative, t.rivals(model)) for t in (text, read)]
    torch.testing.assert_close(scores[0].unknown, scores[1].unknown)
    assert ((scores[0].yes > 0) & (scores[0].yes < 1)).all()
