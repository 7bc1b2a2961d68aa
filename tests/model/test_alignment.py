"""Scores and losses, held to their equations."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from zsar_cli.model import alignment
from zsar_cli.model.alignment import (
    NegativeAdapter,
    is_usable,
    score_with_bank,
    score_with_negatives,
)
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.training.losses import negative_loss, opposition_loss


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_scores_follow_the_equations():
    video, positive, negative = unit(3, 8), unit(5, 8, seed=1), unit(5, 8, seed=2)
    scale, negative_scale, offset = torch.tensor(20.0), torch.tensor(7.0), torch.tensor(0.3)
    scores = score_with_negatives(
        video, positive, negative, scale=scale, negative_scale=negative_scale, offset=offset, beta=0.5
    )
    margin = 7 * (video @ positive.T - video @ negative.T) + 0.3
    torch.testing.assert_close(scores.yes, margin.sigmoid())
    torch.testing.assert_close(scores.logits, 20 * video @ positive.T + 0.5 * margin.sigmoid().log())
    torch.testing.assert_close(scores.score.sum(dim=-1), torch.ones(3))
    torch.testing.assert_close(scores.unknown, 1 - margin.sigmoid().amax(dim=-1))


def test_adapter_starts_as_identity_and_is_shared_by_classes():
    adapter, positive, negative = NegativeAdapter(8), unit(5, 8), unit(5, 8, seed=1)
    torch.testing.assert_close(adapter(positive, negative), negative)
    torch.nn.init.normal_(adapter.outer.weight)
    moved = adapter(positive, negative)
    torch.testing.assert_close(adapter(positive.flip(0), negative.flip(0)), moved.flip(0))
    assert (moved - negative).abs().max() > 0.1


def test_negative_loss_weighs_the_one_yes_like_all_the_noes():
    target = torch.tensor([0, 1])
    margin = torch.full((2, 100), -5.0)
    margin[[0, 1], [0, 1]] = -5.0  # every no right, every yes wrong
    wrong_yes = negative_loss(margin, target)
    torch.testing.assert_close(
        wrong_yes, 0.5 * (F.softplus(torch.tensor(5.0)) + F.softplus(torch.tensor(-5.0)))
    )
    margin[[0, 1], [0, 1]] = 5.0
    assert negative_loss(margin, target) < 0.01


def test_the_negative_loss_is_the_mean_of_the_yes_and_of_the_noes():
    margin, target = unit(6, 11) * 9, torch.tensor([0, 3, 10, 3, 7, 1])
    true = F.one_hot(target, 11).bool()
    expected = 0.5 * (F.softplus(-margin[true]).mean() + F.softplus(margin[~true]).mean())
    torch.testing.assert_close(negative_loss(margin, target), expected, atol=1e-6, rtol=1e-6)


def test_opposition_is_least_for_opposite_embeddings():
    p = unit(4, 8)
    torch.testing.assert_close(opposition_loss(p, -p), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(opposition_loss(p, p), torch.tensor(2.0))


def test_bank_takes_the_mass_of_videos_that_no_label_fits():
    positive, bank = unit(2, 64), unit(20, 64, seed=1)
    shown, strange = score_with_bank(
        torch.stack([positive[0], bank[3]]), positive, bank, scale=torch.tensor(50.0)
    ).unknown
    assert shown < 0.1
    assert strange > 0.9


def test_bank_phrases_that_repeat_a_label_are_left_out():
    bank = unit(20, 64)
    kept = bank[is_usable(bank, F.normalize(bank[4:5] + 0.01 * unit(1, 64, seed=3), dim=-1))]
    assert len(kept) == 19
    assert not any(torch.equal(row, bank[4]) for row in kept)


def test_the_bank_is_compared_with_the_labels_once(monkeypatch):
    class Plain:
        text_vectors = staticmethod(lambda text: text)

    bank, asked = unit(20, 64), []
    text = PromptEmbeddings(["a", "b"], bank[:2], None, bank)
    monkeypatch.setattr(alignment, "is_usable", lambda *a: asked.append(a) or is_usable(*a))
    assert all(len(text.rivals(Plain())) == 18 for _ in range(3))
    assert len(asked) == 1
    assert len(replace(text, positive=bank[:5]).rivals(Plain())) == 15
