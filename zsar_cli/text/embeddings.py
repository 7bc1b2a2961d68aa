"""Prompt embeddings, and the file that stores them. torch is imported only when they are computed or read."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write
from zsar_cli.text.cache import TextCache
from zsar_cli.text.labels import Labels, clean_names
from zsar_cli.text.templates import Templates, default_templates, fill, phrase_bank
from zsar_cli.text.words import as_words

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zsar_cli.model.published.family import Groups
    from zsar_cli.model.zsar import RecognizerModel

logger = logging.getLogger(__name__)
FORMAT = "1"
GroupTexts: TypeAlias = "Callable[[Sequence[str], Sequence[Sequence[str]], Groups], Groups]"
AT_ONCE = 128  # texts between two writes to the cache


@dataclass
class PromptEmbeddings:
    """The text embeddings that the scores of C labels need; all are float32 of unit length."""

    labels: list[str]
    positive: Tensor  # (C, E)
    negative: Tensor | None = None  # (C, E)
    bank: Tensor | None = None  # (P, E) other phrases, for models whose negatives mean nothing yet
    model: str = ""
    model_fingerprint: str = ""
    templates: str = ""
    templates_hash: str = ""
    _rivals: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def rivals(self, model: RecognizerModel) -> Tensor | None:
        """Select the phrases of the bank (P', E) that do not all but repeat a label, once; None without a bank."""
        from zsar_cli.model.alignment import is_usable

        if self.bank is not None and self._rivals is None:
            usable = is_usable(model.text_vectors(self.bank), model.text_vectors(self.positive))
            self._rivals = self.bank[usable]
        return self._rivals

    def save(self, path: str | Path) -> None:
        """Write safetensors: the embeddings, and the rest as metadata. UsageError if it cannot be."""
        from safetensors.torch import save_file

        known = {"positive": self.positive, "negative": self.negative, "bank": self.bank}
        tensors = {name: tensor for name, tensor in known.items() if tensor is not None}
        metadata = {
            "zsar_prompt_embeddings": FORMAT,
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "templates": self.templates,
            "templates_hash": self.templates_hash,
        }
        plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
        metadata["checksum"] = _checksum(plain, metadata)
        with atomic_write(path) as aside:
            save_file(plain, aside, metadata)

    @classmethod
    def load(cls, path: str | Path) -> PromptEmbeddings:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: it is missing, damaged, or something else.
        """
        import torch
        from safetensors import safe_open

        from zsar_cli.model.weights import check_header

        if not Path(path).is_file():
            raise UsageError(
                f"The file of prompt embeddings {path} does not exist; create it with `zsar embed-prompts`."
            )
        check_header(Path(path))
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except Exception as error:  # safetensors raises kinds of its own
            raise UsageError(
                f"{path} is not a complete safetensors file; create it again with `zsar embed-prompts`."
            ) from error
        if metadata.get("zsar_prompt_embeddings") != FORMAT:
            raise UsageError(
                f"{path} was not written by `zsar embed-prompts` of this version; create it again."
            )
        if metadata.get("checksum") not in (None, _checksum(tensors, metadata)):
            raise UsageError(f"{path} is damaged; create it again with `zsar embed-prompts`.")
        try:
            labels = json.loads(metadata["labels"])
            positive, negative, bank = (
                tensors["positive"].float(),
                tensors.get("negative"),
                tensors.get("bank"),
            )
        except (KeyError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} is damaged; create it again with `zsar embed-prompts`.") from error
        negative, bank = (None if t is None else t.float() for t in (negative, bank))
        sound = (
            isinstance(labels, list)
            and all(isinstance(label, str) for label in labels)
            and positive.ndim == 2
            and len(positive) == len(labels) > 0
            and (negative is None or negative.shape == positive.shape)
            and (bank is None or (bank.ndim == 2 and bank.shape[1] == positive.shape[1]))
            and all(bool(torch.isfinite(t).all()) for t in (positive, negative, bank) if t is not None)
        )
        if not sound:
            raise UsageError(f"{path} does not hold one finite embedding per label; create it again.")
        labels = list(clean_names((label, f"{path}, label {i}") for i, label in enumerate(labels, start=1)))
        names = ("model", "model_fingerprint", "templates", "templates_hash")
        return cls(labels, positive, negative, bank, **{name: metadata.get(name, "") for name in names})

    def for_model(self, model: RecognizerModel) -> PromptEmbeddings:
        """Move these embeddings to the model's device.

        Raises:
            UsageError: they were made with another model, or lack what the scores of this one need.
        """
        self.check_model(model.name, model.backbone.fingerprint())
        needed = ("negative prompts", self.negative) if model.uses_negatives else ("a phrase bank", self.bank)
        if needed[1] is None:
            raise UsageError(
                f"{model.name} needs {needed[0]}, which these prompt embeddings lack; "
                "create them again with `zsar embed-prompts`."
            )
        return self.to(model.backbone.device)

    def to(self, device: torch.device | str) -> PromptEmbeddings:
        """Move these embeddings to a device."""
        negative, bank = (None if t is None else t.to(device) for t in (self.negative, self.bank))
        return replace(self, positive=self.positive.to(device), negative=negative, bank=bank)

    def check_model(self, model: str, fingerprint: str = "") -> None:
        """Raise UsageError that names both models unless these embeddings were made with this one.

        The fingerprint of the weights decides where both are known: a model may have moved.
        """
        same = (
            self.model_fingerprint == fingerprint
            if self.model_fingerprint and fingerprint
            else self.model == model
        )
        if not same:
            other = " of other weights" if self.model == model else ""
            raise UsageError(
                f"The prompt embeddings were made with {self.model}{other}, but the model is {model}; "
                f"create them again with `zsar embed-prompts --model {model}`."
            )


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Compute CRC-32 of everything else in a file of embeddings: a flipped bit would change answers unnoticed."""
    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode(), crc)
        crc = zlib.crc32(tensor.float().contiguous().numpy().tobytes(), crc)
    said = json.dumps(sorted((key, value) for key, value in metadata.items() if key != "checksum"))
    return f"{zlib.crc32(said.encode(), crc):08x}"


def embed_labels(
    model: RecognizerModel,
    labels: Labels | Sequence[str],
    templates: Templates | None = None,
    *,
    negatives: bool = False,
    bank: bool | None = None,
    cache: TextCache | None = None,
    learned: bool = True,
) -> PromptEmbeddings:
    """Embed labels for a model's scores, on its device: the one way, wherever labels are compared with videos.

    The phrases of the bank are put into the positive templates of the labels, as in NegLabel (Jiang et al., ICLR
    2024): a phrase must differ from a label by its words, not by its template.

    Args:
        labels: with the phrases that stand for them; plain names stand for themselves.
        templates: by default those the model was trained with, else ``video``.
        negatives: embed negative prompts even where the scores do not use them.
        bank: embed the phrase bank; by default where the scores use it.
        learned: add what the model has learned of classes of its own; without, as the text tower has them.
    """
    import torch

    if not isinstance(labels, Labels):
        labels = Labels(tuple(labels), tuple((as_words(label),) for label in labels))
    labels = as_trained(labels, model.record.prompted)
    templates = templates or default_templates(model)
    encode = model.backbone.encode_text

    group: GroupTexts | None = None
    if (family := model.published) is not None:
        group = partial(family.group_texts, default=templates == default_templates(model))

    def embed(wanted: Labels, negatives: bool) -> PromptEmbeddings:
        return embed_prompts(
            encode, wanted, templates, negatives=negatives, cache=cache, model_id=model.name, group=group
        )

    found = embed(labels, negatives or model.uses_negatives)
    if not model.uses_negatives if bank is None else bank:
        phrases = phrase_bank()
        each = {len(own) for own in labels.phrases}  # the bank has the same prompts as described labels
        times = family.descriptors if family is not None and each == {family.descriptors} else 1
        found.bank = embed(Labels(phrases, tuple((phrase,) * times for phrase in phrases)), False).positive
    found = found.to(model.backbone.device)
    if learned:
        with torch.no_grad():
            found.positive = model.align_positives(found.labels, found.positive)
    return found


def as_trained(labels: Labels, prompted: Mapping[str, str]) -> Labels:
    """Give the classes of a model's training the phrases of its training, save where they are described otherwise.

    Args:
        prompted: what prompts called each of those classes.
    """
    phrases = (
        (prompted[name],) if name in prompted and own == (as_words(name),) else own
        for name, own in zip(labels.names, labels.phrases, strict=True)
    )
    return Labels(labels.names, tuple(phrases))


def embed_prompts(
    encode_text: Callable[[Sequence[str]], Tensor],
    labels: Labels,
    templates: Templates,
    *,
    negatives: bool,
    cache: TextCache | None = None,
    model_id: str = "",
    group: GroupTexts | None = None,
) -> PromptEmbeddings:
    """Embed labels: each template with each phrase, encoded, averaged over the label and normalised again.

    That is the prompt ensembling of CLIP (Radford et al. 2021, section 3.1.4). No gradients.

    Args:
        encode_text: texts to (P, E) of unit length, as ``Backbone.encode_text``; a Backbone's own method also
            brings the model's fingerprint, the key for the cache, and its warning about texts that are cut.
        negatives: whether to embed the negative templates too.
        model_id: the model's name, for the file; and the cache's key where ``encode_text`` brings none.
        group: puts the texts of each label in groups, as ``Family.group_texts`` does; each is averaged, and the
            means lie side by side. By default all are in one.
    """
    import torch
    from torch.nn import functional as F

    # [kind][label][group] -> texts
    wanted = [[[fill(templates.positive, phrases)] for phrases in labels.phrases]]
    if group is not None:
        filled = [[fill(templates.positive, [phrase]) for phrase in own] for own in labels.phrases]
        wanted = [group([as_words(name) for name in labels.names], labels.phrases, filled)]
    if negatives:
        wanted.append([[fill(templates.negative, phrases)] for phrases in labels.phrases])
    texts = list(
        dict.fromkeys(text for kind in wanted for of_label in kind for part in of_label for text in part)
    )
    backbone: Any = getattr(encode_text, "__self__", None)
    if (
        getattr(backbone, "reads_one_text", False)
        and max(sum(map(len, of_label)) for of_label in wanted[0]) > 1
    ):
        raise UsageError(
            f"{model_id} encodes one prompt per label and cannot average prompts: give one template and one "
            "phrase per label."
        )
    vectors = _encode(encode_text, texts, cache, getattr(backbone, "text_key", model_id))
    place = {text: index for index, text in enumerate(texts)}
    means = [
        torch.stack(
            [
                torch.stack([vectors[[place[text] for text in part]].mean(dim=0) for part in of_label])
                for of_label in kind
            ]
        )
        for kind in wanted
    ]
    if getattr(backbone, "unit_text", True):
        means = [F.normalize(mean, dim=-1) for mean in means]
    means = [mean.flatten(1) for mean in means]
    return PromptEmbeddings(
        labels=list(labels.names),
        positive=means[0],
        negative=_as_wide(means[1], means[0]) if negatives else None,
        model=model_id or getattr(backbone, "spec", ""),
        model_fingerprint=backbone.fingerprint() if hasattr(backbone, "fingerprint") else "",
        templates=templates.name,
        templates_hash=templates.hash,
    )


def _as_wide(rows: Tensor, positive: Tensor) -> Tensor:
    """Repeat embeddings (P, E) as often as labels (C, K·E) have some side by side; those as wide stay as they are."""
    return rows.repeat(1, positive.shape[1] // rows.shape[1])


def _encode(
    encode_text: Callable[[Sequence[str]], Tensor],
    texts: list[str],
    cache: TextCache | None,
    key: str,
) -> Tensor:
    """Embed texts (P, E), float32 on the CPU, from the cache where it has them."""
    import torch

    backbone: Any = getattr(encode_text, "__self__", None)
    width = getattr(backbone, "text_width", None)
    known: dict[str, Any] = cache.get(key, texts, width) if cache is not None else {}
    if hasattr(backbone, "warn_truncated"):  # once for all texts, and the same whether they are cached or not
        backbone.warn_truncated(texts)
        encode_text = partial(backbone.encode_text, warn=False)
    missing = [text for text in texts if text not in known]
    if cache is not None:
        logger.info("texts: %d from the cache, %d to embed", len(known), len(missing))
    for start in range(0, len(missing), AT_ONCE):
        part = missing[start : start + AT_ONCE]
        with torch.no_grad():
            vectors = dict(zip(part, encode_text(part).float().cpu().numpy(), strict=True))
        known.update(vectors)
        if cache is not None:
            cache.put(key, vectors)  # at once, so that a run that is stopped keeps them
    widths = {len(vector) for vector in known.values()}
    if len(widths) > 1 and cache is not None:  # two models under one key, which only a wrong key can bring
        return _encode(encode_text, texts, None, key)
    return torch.stack([torch.from_numpy(known[text]) for text in texts])
