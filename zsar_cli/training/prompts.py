"""The prompts of all classes at one step of training, embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.text.class_lists import class_names, list_names
from zsar_cli.text.embeddings import embed_labels
from zsar_cli.text.templates import Templates
from zsar_cli.text.words import as_words
from zsar_cli.training.optimizer import autocast
from zsar_cli.training.recipe import Recipe


@dataclass
class ClassPrompts:
    """The embeddings of all classes at one step, each (C, E) of unit length.

    The losses of a step's batches add up their gradient in ``positive``; :meth:`backward` then takes it through the
    text tower once, however many batches there were.
    """

    positive: Tensor
    negative: Tensor | None  # without gradient: the shared adapter learns instead
    frozen: Tensor | None = None  # by the pretrained text tower, for L_keep
    source: Tensor | None = (
        None  # ``positive`` with its graph, where text tower or class residuals are trained
    )
    rivals: Tensor | None = None  # (C, C) bool: the classes that each is told from; None where from all

    def backward(self) -> None:
        """Take the gradient on into the text tower, or the residuals."""
        if self.source is not None and self.positive.grad is not None:
            self.source.backward(self.positive.grad)


@dataclass(frozen=True)
class Wording:
    """What the classes of a data set are called besides their names, and which of them exclude each other.

    Attributes:
        phrasings: of a class, each with the same meaning; one is drawn at each step.
        groups: of each class: those of other groups may be true of the same clip.
        foreign: how many labels of other activities, never true, are beside the classes at each step.
    """

    phrasings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Sequence[str] = ()
    foreign: int = 0

    def rivals(self) -> Tensor | None:
        """Tell which classes, and foreign labels after them, a clip of each class is told from: (C, C + foreign)."""
        if not self.groups:
            return None
        _, group = np.unique(self.groups, return_inverse=True)
        same = torch.from_numpy(group[:, None] == group[None])
        return torch.cat([same, torch.ones(len(group), self.foreign, dtype=torch.bool)], dim=1)


class PromptEncoder:
    """Embeds the classes of a run at each step.

    Where the text tower is trained, in a positive and a negative template that are drawn anew; where it is frozen,
    as the mean over all templates, computed once.
    """

    def __init__(
        self,
        model: RecognizerModel,
        labels: Sequence[str],
        templates: Templates,
        recipe: Recipe,
        pretrained: Backbone | None,
        wording: Wording,
    ) -> None:
        self.model, self.labels, self.templates, self.recipe = model, labels, templates, recipe
        self.pretrained, self.wording = pretrained, wording
        rivals = wording.rivals()
        self.rivals = None if rivals is None else rivals.to(model.backbone.device)
        self._tokens: dict[str, list[Tensor]] = {}  # of all labels, by template, as the text tower takes them
        self._rows: dict[str, Tensor] = {}  # of single texts
        self._frozen: dict[str, Tensor] = {}  # embeddings by the pretrained text tower, by template
        self._mean: ClassPrompts | None = None

    def encode(self, step: int) -> ClassPrompts:
        """Embed all classes for a step."""
        return self._of_templates(step) if self.recipe.tune == "full" else self._of_frozen_tower()

    def _of_frozen_tower(self) -> ClassPrompts:
        if self._mean is None:
            found = embed_labels(self.model, self.labels, self.templates, bank=False, learned=False)
            self._mean = ClassPrompts(found.positive, found.negative)
        if self.model.residual is None:
            return self._mean
        source = self.model.align_positives(self.labels, self._mean.positive)
        return ClassPrompts(
            source.detach().requires_grad_(), self._mean.negative, self._mean.positive, source
        )

    def _of_templates(self, step: int) -> ClassPrompts:
        yes, no = draw_templates(self.templates, step, self.recipe.seed)
        backbone = self.model.backbone
        negative, labels, phrases = None, self.labels, None
        if self.wording.phrasings or self.wording.foreign:
            phrases = self._draw_phrases(step)
            labels = [*labels, *phrases[len(labels) :]]
        with autocast(self.recipe.precision, backbone.device.type):
            if self.model.uses_negatives:
                with torch.no_grad():
                    negative = backbone.encode_tokens(self._tokenize(no, phrases))
            source = self.model.align_positives(labels, backbone.encode_tokens(self._tokenize(yes, phrases)))
        frozen = None
        if self.recipe.w_keep and self.pretrained is not None:
            frozen = self._by_pretrained(self.pretrained, yes)
        return ClassPrompts(source.detach().requires_grad_(), negative, frozen, source, self.rivals)

    def _draw_phrases(self, step: int) -> list[str]:
        """Draw a phrasing of each class, and foreign labels."""
        rng = np.random.default_rng([self.recipe.seed, step, 11])
        known, called = self.wording.phrasings, self.model.record.prompted
        phrases = []
        for label in self.labels:
            others = known.get(label)
            phrases.append(
                others[int(rng.integers(len(others)))] if others else called.get(label, as_words(label))
            )
        if self.wording.foreign:
            strange = foreign_labels(tuple(self.labels))
            phrases += [strange[n] for n in rng.permutation(len(strange))[: self.wording.foreign]]
        return phrases

    @torch.no_grad()
    def _by_pretrained(self, pretrained: Backbone, template: str) -> Tensor:
        if template not in self._frozen:
            self._frozen[template] = pretrained.encode_tokens(self._tokenize(template))
        return self._frozen[template]

    def _tokenize(self, template: str, phrases: Sequence[str] | None = None) -> list[Tensor]:
        """Tokenize a template with each class in it, or with ``phrases``, as the text tower takes them."""
        if phrases is not None:
            return self.model.backbone.prepare_tokens(self._tokenize_each(template, phrases))
        if template not in self._tokens:
            called = self.model.record.prompted
            texts = [template.replace("{}", called.get(label, as_words(label))) for label in self.labels]
            backbone = self.model.backbone
            self._tokens[template] = backbone.prepare_tokens(backbone.tokenize(texts))
        return self._tokens[template]

    def _tokenize_each(self, template: str, phrases: Sequence[str]) -> Tensor:
        """Tokenize phrases that change from step to step, each once a run: (P, L)."""
        texts = [template.replace("{}", phrase) for phrase in phrases]
        new = list(dict.fromkeys(text for text in texts if text not in self._rows))
        if new:
            self._rows.update(zip(new, self.model.backbone.tokenize(new), strict=True))
        return torch.stack([self._rows[text] for text in texts])


def draw_templates(templates: Templates, step: int, seed: int) -> tuple[str, str]:
    """Draw the positive and the negative template of a step."""
    rng = np.random.default_rng([seed, step, 7])
    positive = templates.positive[rng.integers(len(templates.positive))]
    return positive, templates.negative[rng.integers(len(templates.negative))]


@cache
def foreign_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """List the names of the built-in class lists that share no word with these labels, but for the commonest."""
    known = {word for label in labels for word in _content_words(label)}
    names = (name for of_list in list_names() for name in class_names(of_list))
    return tuple(dict.fromkeys(name for name in names if not known & _content_words(name)))


def _content_words(text: str) -> set[str]:
    return {
        word
        for word in as_words(text).lower().split()
        if word not in ("a", "an", "the", "of", "to", "in", "on")
    }
