"""The backbone: any image-text model that open_clip can build, with one call for frames and one for texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsar_cli.errors import UsageError
from zsar_cli.model.factory import build, for_weights, load_weights, preprocess_of, token_count, token_width
from zsar_cli.model.hub import find_source, load_tokenizer, offline
from zsar_cli.model.onnx_engine import Engine, has_int8_layers, runtime_installed
from zsar_cli.model.precision import DTYPES, cast, check_precision, device_memory, resolve_precision
from zsar_cli.model.text_tower import encode_tokens, trim, warn_truncated
from zsar_cli.model.weights import hash_tensors
from zsar_cli.portions import Portion
from zsar_cli.video.transforms import Preprocess, statistics, to_floats

TEXTS_AT_ONCE = 128
FRAMES_AT_ONCE = 512  # however many views a video has
VALUES = 16  # of a patch token that are in memory at a time, as multiples of its width: a block's MLP and attention
# At a time: a CPU is slower where the activations of many frames do not fit its caches
CPU_PIXELS = 8 * 224 * 224


@dataclass
class FrameFeatures:
    """The visual features of F frames."""

    embedding: Tensor  # (F, E) pooled and projected, not normalised
    tokens: Tensor  # (F, N, D) last patch tokens, after the tower's final norm


class Backbone(nn.Module):
    """An open_clip model, its tokenizer and its preprocessing. Make one with :func:`load_backbone`."""

    _mean: Tensor
    _std: Tensor

    def __init__(self, clip: nn.Module, model_cfg: dict[str, Any], preprocess: Preprocess, spec: str) -> None:
        super().__init__()
        self.clip: Any = clip
        self.family: Any = None  # what a published family adds to the CLIP; see zsar_cli.model.published
        self.model_cfg = model_cfg
        self.preprocess = preprocess
        self.spec = spec
        self.precision = "fp32"
        self.fine = False
        self.embed_dim = int(model_cfg["embed_dim"])
        self.token_dim = token_width(self.clip.visual)
        self.context_length = int(model_cfg["text_cfg"].get("context_length", 77))
        self._tokenizer: Any = None
        self._tokenizer_source: str | None = None  # an architecture or "local-dir:..."; None: from model_cfg
        self._fingerprint: tuple[tuple[int, ...], str] | None = None
        self._patch_grid: tuple[int, int] | None = None
        self._frames_at_once: Portion | None = None
        self._engine: Engine | None = None
        self.texts_at_once = Portion(TEXTS_AT_ONCE, "texts")
        mean, std = statistics(preprocess)  # move with the weights: a list would be copied for every batch
        self.register_buffer("_mean", mean, persistent=False)
        self.register_buffer("_std", std, persistent=False)

    @classmethod
    def from_config(
        cls, model_cfg: dict[str, Any], preprocess: Preprocess | None = None, spec: str = "custom"
    ) -> Backbone:
        """Build an architecture given as open_clip's ``model_cfg``, with random weights (drawn from torch's generator).

        Raises:
            UsageError: the configuration describes no model.
        """
        clip = build(model_cfg, spec)
        if preprocess is None:
            preprocess = preprocess_of({}, clip)
        return cls(clip, deepcopy(model_cfg), preprocess, spec).eval()

    # --- what it is

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.clip.logit_scale.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the towers compute in; pixels should come in it."""
        return DTYPES[self.precision]

    @property
    def logit_scale(self) -> Tensor:
        """The temperature tau that the weights were trained with: float32 scalar, about 100 for CLIP."""
        scale: Tensor = self.clip.logit_scale
        return scale.float().exp().reshape(())

    @property
    def tokenizer(self) -> Any:
        """open_clip's tokenizer of this architecture, made when it is first needed.

        Raises:
            UsageError: it needs a download, or a package, that is not there.
        """
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._tokenizer_source, self.model_cfg)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def fingerprint(self) -> str:
        """Hash weights and architecture, 16 hex digits, whatever file or precision they are in.

        SHA-256 over the configuration, and of each tensor the name, the shape and up to 512 values spread evenly.
        """
        versions = tuple(p._version for p in self.parameters())  # in place: training, load_state_dict
        if self._fingerprint is None or self._fingerprint[0] != versions:
            tensors, described = self.clip.state_dict(), self.model_cfg
            if self.family is not None:
                tensors |= self.family.state_dict(prefix="family.")
                described = described | {"family": self.family.name}
            self._fingerprint = (versions, hash_tensors(described, tensors))
        return self._fingerprint[1]

    @property
    def kept(self) -> Callable[[int], int] | None:
        """Of a family whose clips are one row each, that row's width for a number of frames; else None."""
        if self.family is None or not self.family.one_row:
            return None
        return partial(self.family.kept, self.clip)

    @property
    def text_width(self) -> int | None:
        """E, the width of what a text is encoded as; None of a family that keeps something else."""
        return self.embed_dim if self.unit_text else None

    @property
    def unit_text(self) -> bool:
        """Tell whether a text is encoded as a vector of unit length."""
        return self.family is None or bool(self.family.unit_text)

    @property
    def reads_one_text(self) -> bool:
        """Tell whether what a text is encoded as cannot be averaged with that of others."""
        return self.family is not None and bool(self.family.one_text)

    @property
    def text_key(self) -> str:
        """Names what a text's embedding depends on besides the text; the text cache is kept by it."""
        return f"{self.fingerprint()}-{'fp32' if self.precision == 'int8' else self.precision}"

    @property
    def frame_keys(self) -> tuple[str, ...]:
        """Name what a frame's features depend on besides its pixels; the feature cache is kept by the first.

        Features under the other keys are at least as exact, and serve too: training stores those of fp32.
        """
        serving: tuple[str, ...] = (self.precision,)
        if self.precision == "int8":
            serving = ("int8-fine", "fp32") if self.fine else ("int8", "int8-fine", "fp32")
        return tuple(f"{self.fingerprint()}-{precision}" for precision in serving)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of a frame's patch tokens, as the tower itself lays them out."""
        if self._patch_grid is None:  # it has seen no frame yet
            blank = torch.zeros(1, 3, *self.preprocess.size, device=self.device)
            with torch.no_grad():
                self._encode_frames(blank)
        assert self._patch_grid is not None
        return self._patch_grid

    @property
    def frames_at_once(self) -> Portion:
        """How many frames go through the visual tower together: what a quarter of the memory holds, at most 512."""
        if self._frames_at_once is None:
            tokens = token_count(self.clip.visual, self.preprocess.size) if self.family is None else 256
            size = 4 if self.dtype == torch.float32 else 2
            of_frame = tokens * self.token_dim * VALUES * size
            room = device_memory(self.device) // 4 // of_frame
            self._frames_at_once = Portion(max(1, min(FRAMES_AT_ONCE, room)), "frames")
        return self._frames_at_once

    # --- frames and texts

    def normalise(self, pixels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Turn uint8 (..., h, w, 3) on the model's device into what the towers take, (..., 3, h, w)."""
        return to_floats(pixels, self._mean, self._std, dtype or self.dtype)

    def encode_clips(self, pixels: Tensor) -> FrameFeatures:
        """Run the visual tower once over clips (B, T, 3, H, W), whose frames may attend to one another.

        Returns:
            embedding (B, T, E), not normalised, and tokens (B, T, N, D); of a family that keeps one row of a clip,
            (B, 1, W) and no tokens.

        Raises:
            UsageError: the weights are for another number of frames.
        """
        shape = pixels.shape[:2]
        if not self._sees_clips:
            flat = self.encode_frames(pixels.flatten(0, 1))
            embedding, tokens = (torch.unflatten(x, 0, shape) for x in (flat.embedding, flat.tokens))
            return FrameFeatures(embedding, tokens)
        if self.family.frames not in (None, shape[1]):
            raise UsageError(
                f"{self.spec} sees {self.family.frames} frames of a clip and not {shape[1]}; use --frames "
                f"{self.family.frames}."
            )
        at_once = 1 if self.device.type == "cpu" else len(pixels)
        parts = pixels.to(self.device).float().split(at_once)
        lower = torch.autocast(self.device.type, self.dtype) if self.precision != "fp32" else nullcontext()
        with lower:
            return _join([self.family.encode_clip(self.clip, part) for part in parts])

    def encode_frames(self, pixels: Tensor) -> FrameFeatures:
        """Run the visual tower once over frames.

        Args:
            pixels: (F, 3, H, W), normalised as :attr:`preprocess` says.

        Returns:
            The pooled embedding (F, E), which is what ``encode_image`` gives, and the patch tokens (F, N, D)
            in rows from the top left; class and other extra tokens are left out.
        """
        if not len(pixels):
            raise ValueError("there are no frames to encode")
        at_once = max(1, CPU_PIXELS // (pixels.shape[-2] * pixels.shape[-1]))
        if self._engine is not None and (found := self._engine.encode(self, pixels, at_once)) is not None:
            return FrameFeatures(*found)
        if self.device.type == "cpu" and len(pixels) > at_once and not torch.is_grad_enabled():
            return _join([self._encode_frames(part) for part in pixels.split(at_once)])
        return self._encode_frames(pixels)

    def _encode_frames(self, pixels: Tensor) -> FrameFeatures:
        found = self.clip.forward_intermediates(
            image=pixels.to(device=self.device, dtype=self.dtype),
            image_indices=1,  # the last block only
            normalize=False,
            normalize_intermediates=True,
            image_output_fmt="NCHW",  # the one form that transformers and convolutional towers all give
        )
        last = found["image_intermediates"][-1]
        self._patch_grid = (int(last.shape[-2]), int(last.shape[-1]))  # plain numbers also while it is traced
        tokens = last.flatten(2).transpose(1, 2)
        return FrameFeatures(
            found["image_features"], tokens.contiguous()
        )  # contiguous, as in a feature cache

    def encode_text(self, texts: Sequence[str], *, warn: bool = True) -> Tensor:
        """Embed texts (P, E), float32 of unit length; gradients flow.

        What is longer than the text tower reads is cut, with a warning that quotes it unless ``warn`` is False.
        """
        if not texts:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return self.encode_tokens(self.tokenize(texts, warn=warn))

    def tokenize(self, texts: Sequence[str], *, warn: bool = True) -> Tensor:
        """Tokenize texts (P, L); what is longer than the text tower's context is cut, with a warning."""
        tokens: Tensor = self.tokenizer(list(texts))
        if warn:
            # Where a row ends in 0, which pads, nothing was cut, and its text need not be tokenized again
            last = tokens[:, -1].tolist()
            self.warn_truncated([text for text, token in zip(texts, last, strict=True) if token])
        return tokens

    def prepare_tokens(self, tokens: Tensor) -> list[Tensor]:
        """Split token ids (P, L) into parts for the text tower, on its device and without needless padding."""
        own = self.family is not None and self.family.own_text
        split = tokens.split(TEXTS_AT_ONCE)
        return [
            (part if own else trim(self.clip, self.model_cfg["text_cfg"], part)).to(self.device)
            for part in split
        ]

    def encode_tokens(self, tokens: Tensor | Sequence[Tensor]) -> Tensor:
        """Embed token ids (P, L), or what :meth:`prepare_tokens` made of them: (P, E), float32 of unit length.

        Gradients flow. Of a published family whose texts depend on the video, to what it keeps of a text (P, W).
        """
        split = self.prepare_tokens(tokens) if isinstance(tokens, Tensor) else tokens
        if self.family is not None and self.family.own_text:
            return torch.cat([self.family.encode_text(self.clip, part) for part in split])
        return torch.cat(
            [F.normalize(row.float(), dim=-1) for part in split for row in self._encode_texts(part)]
        )

    def _encode_texts(self, tokens: Tensor) -> Iterator[Tensor]:
        def encode(rows: slice) -> Tensor:
            return encode_tokens(self.clip, self.model_cfg["text_cfg"], tokens[rows])

        return self.texts_at_once.map(len(tokens), encode)

    def warn_truncated(self, texts: Sequence[str]) -> None:
        """Log a warning that names the texts longer than the text tower's context, if there are any."""
        warn_truncated(self.spec, texts, self.context_length, lambda: self.tokenizer)

    # --- how it runs

    def set_precision(self, precision: str, *, fine: bool = False) -> Backbone:
        """Cast the weights to ``fp32``, ``bf16`` or ``fp16`` (no autocast), as open_clip does, or to ``int8``.

        Layer norms keep float32 weights and compute in float32 except in timm's towers; so does the temperature.
        In int8 it is the blocks of the visual tower that change, see :mod:`zsar_cli.model.onnx_graph`, and there is no
        way back: the weights are gone.

        Args:
            fine: whether int8 takes sixteen bits of all activations, as models need that look at patch tokens.

        Raises:
            UsageError: an unknown precision, or int8 where the tower or the processor does not have it.
        """
        check_precision(precision, tuple(DTYPES))
        if precision == self.precision and (precision != "int8" or fine == self.fine):
            return self
        if self.precision == "int8":
            raise UsageError(f"The weights of {self.spec} are in int8; load them again for {precision}.")
        fingerprint = self.fingerprint()  # of the weights as they are before they are rounded
        if precision == "int8":
            self._round_to_int8(fine)
        elif not self._sees_clips:  # those run under autocast
            cast(self.clip, precision)
        self.precision = precision
        self._fingerprint = (tuple(p._version for p in self.parameters()), fingerprint)
        return self

    def use_engine(self) -> None:
        """Let the visual tower run in ONNX Runtime on a CPU where that pays, while its weights stay as they are."""
        if self.precision == "fp32" and self.device.type == "cpu" and not self._sees_clips:
            self._engine = Engine()

    @property
    def takes_int8(self) -> bool:
        """Tell whether ``--precision int8`` runs here: on a CPU with ONNX Runtime, for this visual tower."""
        here = self.device.type == "cpu" and runtime_installed()
        return here and not self._sees_clips and has_int8_layers(self.clip.visual)

    @property
    def _sees_clips(self) -> bool:
        return self.family is not None and bool(self.family.across_frames)

    def _round_to_int8(self, fine: bool) -> None:
        if self.device.type != "cpu" or not runtime_installed():
            raise UsageError("int8 needs a CPU and the packages onnxruntime and onnx; use --precision auto.")
        if self.precision != "fp32":
            raise UsageError(f"The weights of {self.spec} are in {self.precision}; load them again for int8.")
        if not self.takes_int8:
            raise UsageError(f"The visual tower of {self.spec} does not support int8; use --precision auto.")
        self._engine = Engine.in_int8(self, fine)
        self.fine = fine

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: activations inside the towers are computed again when needed."""
        self.clip.set_grad_checkpointing(enable)


def _join(parts: Sequence[FrameFeatures]) -> FrameFeatures:
    return FrameFeatures(
        torch.cat([part.embedding for part in parts]), torch.cat([part.tokens for part in parts])
    )


def load_backbone(spec: str, *, device: str = "cpu", precision: str = "fp32") -> Backbone:
    """Load a backbone by its name.

    Args:
        spec: ``ARCH/TAG`` (open_clip's tags; downloaded once), ``ARCH/path/to/weights``, or a directory with
            ``open_clip_config.json`` and weights.
        precision: as :func:`resolve_precision` takes it.

    QuickGELU is used where the tag, the weights file or a configuration beside it says that the weights were
    trained with it; ``ARCH-quickgelu/path`` forces it.

    Raises:
        UsageError: an unknown architecture or tag, no such file, a damaged one, weights of another architecture,
            or no way to download.
    """
    check_precision(precision)
    source = find_source(spec)
    with for_weights(source.weights.tensors, source.path), offline() if source.local else nullcontext():
        clip = build(source.model_cfg, source.spec)
    load_weights(clip, source)
    backbone = Backbone(
        clip, source.model_cfg, preprocess_of(source.preprocess_cfg, clip), source.spec
    ).eval()
    backbone._tokenizer_source = source.tokenizer
    backbone.fingerprint()
    del source  # and the tensors of the file, before others are made of the model's
    return backbone.set_precision(resolve_precision(precision, device, backbone)).to(device)
