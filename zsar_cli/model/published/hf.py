"""VideoPrism-LvT and PE-AV, whose towers the optional package ``transformers`` computes."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zsar_cli.errors import UsageError, shown
from zsar_cli.files import read_text, require_file
from zsar_cli.model.backbone import Backbone, FrameFeatures
from zsar_cli.model.factory import for_weights
from zsar_cli.model.hub import check_tokenizer_files, offline
from zsar_cli.model.published.family import Family, unit
from zsar_cli.model.published.records import FamilyRecord, PublishedFile, families
from zsar_cli.model.weights import brief, check_finite, read_safetensors

LONGEST_TEXT = 512  # tokens, of a text tower that takes thousands
# Settings of timm's models in a configuration that name another file or address
ELSEWHERE = frozenset(
    ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
)


# Settings of transformers that name code, or ask for another package to read the weights; a kernel of the hub is a
# value of those that end in _implementation
FOREIGN = ("auto_map", "custom_pipelines", "quantization_config")


class Towers(nn.Module):
    """A model of transformers in the place of a CLIP."""

    def __init__(self, model: nn.Module, side: int, embed: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("logit_scale", torch.tensor(math.log(100.0)))
        self.visual = SimpleNamespace(
            image_size=(side, side),
            patch_size=(0, 0),
            grid_size=(0, 0),
            positional_embedding=torch.empty(0, embed),
        )

    def forward(self) -> None:
        """Refuse: the families call the towers."""
        raise NotImplementedError


class _Transformers(Family):
    """A family whose clips and texts are each one embedding, of towers that transformers computes."""

    across_frames = True
    own_text = True
    one_row = True

    def __init__(self, embed: int, frames: int, pad: int) -> None:
        super().__init__()
        self.embed, self.frames, self.pad = embed, frames, pad

    def kept(self, clip: Any, frames: int) -> int:
        """Give E."""
        return self.embed

    def apart(self, clip: Any, rows: Tensor) -> Tensor:
        """Split rows (N, K·E) into the embeddings that lie side by side in them, (N, K, E)."""
        split: Tensor = rows.float().unflatten(-1, (-1, self.embed))
        return split

    def encode_clip(self, clip: Any, pixels: Tensor) -> FrameFeatures:
        """Encode clips (B, T, 3, H, W) as one embedding each."""
        kept = self.video(clip.model, pixels).float()[:, None]
        return FrameFeatures(kept, kept.new_zeros(len(kept), 1, 0, 0))

    def encode_video(self, clip: Any, features: FrameFeatures) -> Tensor:
        """Keep what was encoded."""
        return features.embedding[:, 0].float()

    def encode_text(self, clip: Any, tokens: Tensor) -> Tensor:
        """Encode token ids (C, L), of which :attr:`pad` fills up the short ones: (C, E)."""
        return self.text(clip.model, tokens, (tokens != self.pad).long()).float()

    def video(self, model: Any, pixels: Tensor) -> Tensor:
        """Embed clips (B, T, 3, H, W): (B, E)."""
        raise NotImplementedError

    def text(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids (C, L): (C, E)."""
        raise NotImplementedError


class VideoPrism(_Transformers):
    """VideoPrism-LvT (Zhao et al., ICML 2024). Cosines are divided by the temperature 0.01 of the authors' example."""

    def video(self, model: Any, pixels: Tensor) -> Tensor:
        """Embed clips (B, T, 3, H, W): (B, E) of unit length."""
        return unit(model.get_video_features(pixel_values_videos=pixels).pooler_output.flatten(1))

    def text(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids (C, L): (C, E) of unit length."""
        return unit(model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output)


class PEAV(_Transformers):
    """PE-AV without sound: its video and text towers, compared by their inner product as in ``PeVideoModel``.

    The bias that its logits have is left out, as the softmax over labels does not depend on it.
    """

    unit_text = False
    embeds = False

    def video(self, model: Any, pixels: Tensor) -> Tensor:
        """Embed clips (B, T, 3, H, W): (B, E)."""
        found: Tensor = model.video_head(model.video_encoder(pixel_values_videos=pixels).pooler_output)
        return found

    def text(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids (C, L): (C, E)."""
        found = model.text_model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        head: Tensor = model.text_video_head(found.hidden_states[-1][:, 0])
        return head

    def scale(self, clip: Any) -> Tensor:
        """Give the scale that was learned."""
        scale: Tensor = clip.model.text_video_logit_scale.float().reshape(())
        return scale


class Tokens:
    """A tokenizer of transformers: texts to ids (P, L), padded to ``length``, or else to the longest."""

    clean_fn: ClassVar[Callable[[str], str]] = staticmethod(str)

    def __init__(self, tokenizer: Any, length: int, *, fixed: bool) -> None:
        self.tokenizer, self.length = tokenizer, length
        self.padding = "max_length" if fixed else "longest"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts; what is longer is cut."""
        ids: Tensor = self.tokenizer(
            list(texts), padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt"
        ).input_ids
        return ids


def load_towers(family: str, folder: Path, name: str) -> Backbone:
    """Load a folder that transformers' ``save_pretrained`` wrote: configuration, safetensors and tokenizer.

    Nothing in it is run, and nothing is fetched.

    Args:
        name: what the folder was asked for as; tells which of the released ones it is.

    Raises:
        UsageError: transformers is not installed; or the folder is of another model, damaged, or lacks a file.
    """
    record = families()[family]
    transformers = require_transformers(record)
    config = read_config(folder, record, family)
    model = _read_model(getattr(transformers, str(record.transformers)), folder, record)
    tokenizer = _read_tokenizer(transformers, folder, record)
    if family == "videoprism":
        vision, text = model.config.vision_config, model.config.text_config
        side, frames, embed = _side(vision.image_size), int(vision.num_frames), int(text.hidden_size)
        length = int(text.max_position_embeddings)
        own: Family = VideoPrism(embed, frames, tokenizer.pad_token_id)
    else:
        model = model.video_model  # the towers for sound go
        text = model.config.text_config
        model_args = getattr(model.config.video_config.vision_config, "model_args", None) or {}
        side, embed = _side(model_args.get("img_size", 336)), int(text.hidden_size)
        length = min(int(text.max_position_embeddings), LONGEST_TEXT)
        own = PEAV(embed, record.frames, tokenizer.pad_token_id)
    if len(tokenizer) > int(text.vocab_size):
        raise UsageError(
            f"The tokenizer in {folder} has more tokens than its text tower; is it of another model?"
        )
    model_cfg = {"embed_dim": embed, "text_cfg": {"context_length": length}, "transformers": config}
    backbone = Backbone(Towers(model, side, embed), model_cfg, record.preprocess(side), f"{family}:{folder}")
    backbone.tokenizer = Tokens(tokenizer, length, fixed=family == "videoprism")
    backbone._patch_grid = (1, 1)  # sheets have no heat maps, as there are no patch tokens
    own.name, own.file = family, _released(record, name)
    backbone.family = own
    backbone.eval().fingerprint()
    return backbone


def require_transformers(record: FamilyRecord) -> Any:
    """Import transformers. UsageError where it is not there, or too old to have the model."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"{record.title} needs the transformers package; run `pip install 'zsar-cli[hf]'`."
        ) from error
    with _quiet():
        there = hasattr(transformers, str(record.transformers))
    if not there:
        raise UsageError(
            f"transformers {transformers.__version__} does not have {record.title}; run "
            "`pip install --upgrade 'zsar-cli[hf]'`."
        )
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing, on stdout too, and from connecting."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with offline(), redirect_stdout(io.StringIO()):
        yield


def read_config(folder: Path, record: FamilyRecord, family: str) -> dict[str, Any]:
    """Read and check ``config.json``: of this model, and naming neither code nor other files."""
    path = folder / "config.json"
    try:
        require_file(path, "The configuration")
        config = json.loads(read_text(path, limit=1_000_000))
        kind = config.get("model_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} describes no model of transformers: {brief(error)[:150]}.") from error
    if (folder / "adapter_config.json").exists():
        raise UsageError(f"{folder} has an adapter, which is not read; merge it into the model first.")
    if kind != record.model_type:
        raise UsageError(f"{folder} holds a model of the kind {shown(kind)} and not {record.title}.")
    for settings in _settings(config):
        timm = settings.get("model_args") if isinstance(settings.get("model_args"), dict) else {}
        named = [name for name in FOREIGN if settings.get(name)]
        named += [
            name for name in settings if name.endswith("_implementation") and "/" in str(settings[name])
        ]
        named += [name for name in timm if name in ELSEWHERE]  # type: ignore[union-attr]
        architecture = settings.get("architecture")
        if architecture is not None and not re.fullmatch(r"\w[\w.]*", str(architecture)):
            named.append("architecture")
        if named:
            raise UsageError(f"{path} names code or files elsewhere ({named[0]}), which are not read.")
    return {
        key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")
    }


def _settings(config: Any) -> Iterator[dict[str, Any]]:
    """Yield a configuration and all inside it."""
    if isinstance(config, dict):
        yield config
        for value in config.values():
            yield from _settings(value)
    elif isinstance(config, list):
        for value in config:
            yield from _settings(value)


def _read_model(kind: Any, folder: Path, record: FamilyRecord) -> Any:
    """Read the weights; each must have its place, and each place its weights."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UsageError(f"{folder} has no model.safetensors; weights of other forms are not read.")
    tensors = read_safetensors(path)
    check_finite(tensors, path)
    try:
        with for_weights(tensors, path), _quiet():
            model, said = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except UsageError:
        raise
    except Exception as error:  # whatever a wrong configuration or shape sets off in transformers or timm
        raise UsageError(f"{folder} is not a whole {record.title}: {brief(error)[:200]}.") from error
    wrong = [f"{name} is missing" for name in sorted(said["missing_keys"])]
    wrong += [f"{shown(name)} has no place in it" for name in sorted(said["unexpected_keys"])]
    wrong += [f"{name[0]} has another shape" for name in said["mismatched_keys"]]
    if wrong:
        raise UsageError(f"{folder} is not a whole {record.title}: {wrong[0]}.")
    return model.eval()


def _read_tokenizer(transformers: Any, folder: Path, record: FamilyRecord) -> Any:
    check_tokenizer_files(folder)
    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own
        raise UsageError(f"The tokenizer in {folder} cannot be read: {brief(error)[:150]}.") from error
    if tokenizer.pad_token_id is None:
        raise UsageError(
            f"The tokenizer in {folder} has no token for padding; it is not that of {record.title}."
        )
    return tokenizer


def _released(record: FamilyRecord, name: str) -> PublishedFile | None:
    """Find the released model of that name, or of that name of a folder."""
    last = name.rstrip("/").rpartition("/")[2]
    return next((file for file in record.files if file.name.rpartition("/")[2] == last), None)


def _side(size: Any) -> int:
    """Read the size of square frames."""
    return int(size[0] if isinstance(size, list | tuple) else size)
