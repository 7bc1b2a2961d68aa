"""The prompts of all classes at one step of training, embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import RecognizerModel
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

    def backward(self) -> None:
        """Take the gradient on into the text tower, or the residuals."""
        if self.source is not None and self.positive.grad is not None:
            self.source.backward(self.positive.grad)


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
    ) -> None:
        self.model, self.labels, self.templates, self.recipe = model, labels, templates, recipe
        self.pretrained = pretrained
        self._tokens: dict[str, list[Tensor]] = {}  # of all labels, by template, as the text tower takes them
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
        negative = None
        with autocast(self.recipe.precision, backbone.device.type):
            if self.model.uses_negatives:
                with torch.no_grad():
                    negative = backbone.encode_tokens(self._tokenize(no))
            source = self.model.align_positives(self.labels, backbone.encode_tokens(self._tokenize(yes)))
        frozen = None
        if self.recipe.w_keep and self.pretrained is not None:
            frozen = self._by_pretrained(self.pretrained, yes)
        return ClassPrompts(source.detach().requires_grad_(), negative, frozen, source)

    @torch.no_grad()
    def _by_pretrained(self, pretrained: Backbone, template: str) -> Tensor:
        if template not in self._frozen:
            self._frozen[template] = pretrained.encode_tokens(self._tokenize(template))
        return self._frozen[template]

    def _tokenize(self, template: str) -> list[Tensor]:
        if template not in self._tokens:
            phrases = self.model.record.prompted
            texts = [template.replace("{}", phrases.get(label, as_words(label))) for label in self.labels]
            backbone = self.model.backbone
            self._tokens[template] = backbone.prepare_tokens(backbone.tokenize(texts))
        return self._tokens[template]


def draw_templates(templates: Templates, step: int, seed: int) -> tuple[str, str]:
    """Draw the positive and the negative template of a step."""
    rng = np.random.default_rng([seed, step, 7])
    positive = templates.positive[rng.integers(len(templates.positive))]
    return positive, templates.negative[rng.integers(len(templates.negative))]
