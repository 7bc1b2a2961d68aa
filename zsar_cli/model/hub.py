"""From the name of a model to its architecture, preprocessing settings and checked weights."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zsar_cli.errors import UsageError
from zsar_cli.files import existing, read_text, require_file
from zsar_cli.model.architecture import PreprocessSettings, check_architecture
from zsar_cli.model.names import OPEN_CLIP_CONFIG as CONFIG
from zsar_cli.model.names import SUFFIXES, listed, no_model
from zsar_cli.model.weights import Weights, brief, read_weights
from zsar_cli.schemas import check

logger = logging.getLogger(__name__)

HUB_TIMEOUT = 10.0  # seconds for the hub's first answer
HUB_SAFETENSORS, HUB_PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


@dataclass(frozen=True)
class WeightsSource:
    """Everything that a model is built from."""

    spec: str  # the name it can be found by again: paths are absolute
    arch: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    tokenizer: str | None  # what load_tokenizer takes
    path: str
    weights: Weights
    local: bool  # named by its path: then nothing about it comes from a hub


def find_source(spec: str) -> WeightsSource:
    """Resolve ``ARCH/TAG``, ``ARCH/path/to/weights`` or a directory with ``open_clip_config.json``; read the weights.

    Raises:
        UsageError: nothing is found under the name, with what comes closest; or the weights cannot be read.
    """
    whole = existing(spec)
    if whole and (whole / CONFIG).is_file():
        return _from_directory(whole, None)
    if whole and whole.is_file() and (whole.parent / CONFIG).is_file():
        return _from_directory(whole.parent, whole)

    import open_clip

    arch, _, rest = spec.partition("/")
    architectures = open_clip.list_models()
    if arch not in architectures:
        raise UsageError(no_model(spec, architectures))
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not rest:
        raise UsageError(
            f"{arch} is an architecture without weights; use one of {listed(f'{arch}/{tag}' for tag in tags)} "
            f"or {arch}/path/to/weights."
        )
    model_cfg = deepcopy(open_clip.get_model_config(arch))
    tag_cfg = open_clip.get_pretrained_cfg(arch, rest)
    if tag_cfg:
        path = download(tag_cfg["hf_hub"], spec)
        settings, quick_gelu = dict(tag_cfg), bool(tag_cfg.get("quick_gelu"))
    else:
        found = existing(rest)
        if found is None:
            close = difflib.get_close_matches(rest, tags, n=3, cutoff=0.5) or tags
            known = f"Its tags: {listed(close)}." if close else "It has no tags."
            raise UsageError(f"{arch} has no pretrained tag {rest[:100]!r}, and no such file exists. {known}")
        path = found.resolve()
        settings, quick_gelu = _settings_of_file(arch, model_cfg, path)
        spec = f"{arch}/{path}"
    weights = read_weights(path, f"{arch}/openai" if "openai" in tags else "")
    if (quick_gelu or weights.openai) and not model_cfg.get("quick_gelu"):
        model_cfg["quick_gelu"] = True
    return WeightsSource(
        spec, arch, model_cfg, settings, arch if tag_cfg else None, str(path), weights, not tag_cfg
    )


def moved(spec: str, place: str) -> str:
    """Name a backbone whose weights lie at ``place`` now: a file, a folder, or ``ARCH/path`` as it stands.

    A bare file, or a folder that holds a file of the old name, is read as the architecture that it was before.
    """
    found = existing(place)
    if found is None or (found / CONFIG).is_file() or (found.is_file() and (found.parent / CONFIG).is_file()):
        return place
    import open_clip

    arch, _, old = spec.partition("/")
    inside = found / Path(old).name
    weights = inside if found.is_dir() and inside.is_file() else found
    return f"{arch}/{weights.resolve()}" if arch in open_clip.list_models() else str(weights)


def from_anywhere(spec: str) -> str:
    """Make the path in a backbone's name absolute, if there is one."""
    whole = existing(spec)
    if whole is not None and any((folder / CONFIG).is_file() for folder in (whole, whole.parent)):
        return str(whole.absolute())
    arch, _, rest = spec.partition("/")
    path = existing(rest) if rest else None
    if path is None:
        return spec
    import open_clip

    tagged = arch in open_clip.list_models() and open_clip.get_pretrained_cfg(arch, rest)
    return spec if tagged else f"{arch}/{path.absolute()}"


def _from_directory(directory: Path, weights: Path | None) -> WeightsSource:
    """Read a directory in the form that open_clip pushes to the hub."""
    model_cfg, preprocess_cfg = _read_config(directory / CONFIG)
    if weights is None:
        # the preferred name first, then by name, and safetensors before anything that needs unpickling
        found = sorted(
            (path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file()),
            key=lambda path: (path.suffix != ".safetensors", path.name != HUB_SAFETENSORS, path.name),
        )
        if not found:
            raise UsageError(f"{directory} has {CONFIG} but no weights ({', '.join(SUFFIXES)}).")
        weights = found[0]
    directory, weights = directory.resolve(), weights.resolve()
    only = len([p for p in directory.iterdir() if p.suffix in SUFFIXES]) == 1
    there = any((directory / name).is_file() for name in TOKENIZER_FILES[:2])
    tokenizer = f"{FOLDER}{directory}" if there else None
    return WeightsSource(
        spec=str(directory if only else weights),
        arch=directory.name,
        model_cfg=model_cfg,
        preprocess_cfg=preprocess_cfg,
        tokenizer=tokenizer,
        path=str(weights),
        weights=read_weights(weights),
        local=True,
    )


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (model_cfg, preprocess_cfg) of an ``open_clip_config.json``."""
    try:
        require_file(path, "The configuration")
        config = json.loads(read_text(path, limit=1_000_000))
        model_cfg, preprocess_cfg = config["model_cfg"], config.get("preprocess_cfg") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} does not describe an open_clip model: {str(error)[:150]}.") from error
    check(PreprocessSettings, preprocess_cfg, f"{path}: preprocess_cfg")
    check_architecture(model_cfg, f"{path}: model_cfg")
    return model_cfg, preprocess_cfg


def _settings_of_file(arch: str, model_cfg: dict[str, Any], path: Path) -> tuple[dict[str, Any], bool]:
    """Find preprocessing settings and QuickGELU for weights that come as a bare file.

    A configuration beside the file says so itself if it is of this architecture; else the settings are those
    most of the architecture's published weights share (open_clip would take OpenAI's for all of them).
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    beside = path.parent / CONFIG
    if beside.is_file():
        other_cfg, preprocess_cfg = _read_config(beside)
        if all(other_cfg.get(key) == model_cfg.get(key) for key in ("embed_dim", "vision_cfg")):
            return preprocess_cfg, bool(other_cfg.get("quick_gelu"))
    base = arch.removesuffix("-quickgelu")
    published = [get_pretrained_cfg(base, tag) for tag in list_pretrained_tags_by_model(base)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    shared = Counter(tuple(cfg[key] for key in keys) for cfg in published).most_common(1)
    settings = dict(zip(keys, shared[0][0], strict=True)) if shared else {}
    if base == arch and "openai" in path.name.lower() and any(cfg.get("quick_gelu") for cfg in published):
        logger.warning(
            "If %s holds OpenAI's weights, name it %s-quickgelu/...: they were trained with QuickGELU, "
            "and a plain state dict does not say so.",
            path.name,
            arch,
        )
    return settings, False


# --- downloads


def download(hub_name: str, spec: str) -> Path:
    """Find the file of a pretrained tag in the hub's cache, or download it there (the cache is open_clip's).

    ``hub_name`` is "owner/repository/file" or "owner/repository/". Safetensors are preferred. What is cached is
    used without asking the hub. Hub and library check a download's size; its SHA-256, which the hub publishes
    for large files, is checked here.

    Raises:
        UsageError: the hub cannot be reached, or what came is damaged.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, name = hub_name.rpartition("/")
    names = [HUB_SAFETENSORS, HUB_PICKLE] if name in ("", HUB_PICKLE) else [name]
    if names == [name] and name.endswith((".bin", ".pth", ".pt")):
        names.insert(0, f"{Path(name).stem}.safetensors")
    for candidate in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, candidate)
        if isinstance(cached, str):
            return Path(cached)
    for candidate in names:
        try:
            # one question without the retries that would take most of a minute where there is no network
            url = huggingface_hub.hf_hub_url(repository, candidate)
            published = huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
            logger.info(
                "downloading %s (%.1f GB) from %s", candidate, (published.size or 0) / 1e9, repository
            )
            path = Path(huggingface_hub.hf_hub_download(repository, candidate))
        except EntryNotFoundError:
            continue
        except Exception as error:  # HTTP, sockets, proxies, disks: each library has its own
            raise _no_download(spec, error) from error
        _check_sha256(path, published.etag)
        return path
    raise UsageError(
        f"The weights of {spec} are no longer on the hub ({repository}); give a path: ARCH/path."
    )


def _no_download(spec: str, error: Exception) -> UsageError:
    logger.info("download failed: %r", error)
    if isinstance(error, OSError) and error.errno == 28:
        return UsageError(
            f"The disk is too full to download {spec}; free some space, or set HF_HOME to another disk."
        )
    return UsageError(
        f"{spec} is not on this machine and the model hub cannot be reached to download it. "
        f"Give a path to its weights ({spec.partition('/')[0]}/path/to/weights) or use the bundled model motion-tiny."
    )


def _check_sha256(path: Path, etag: str | None) -> None:
    """Compare a file with the hub's etag, which is the SHA-256 of a large file (and shorter for a small one)."""
    if etag is None or not re.fullmatch(r"[0-9a-f]{64}", etag):
        return
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    if digest.hexdigest() != etag:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise UsageError(
            f"The download of {path.name} was damaged and has been deleted; run the command again."
        )


FOLDER = "local-dir:"  # begins a source that is a folder with a tokenizer's files
TOKENIZER_FILES = (
    *(
        "tokenizer_config.json",
        "tokenizer.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
    ),
    *("config.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
TOKENIZER_BYTES = 100_000_000


@contextmanager
def offline() -> Iterator[None]:
    """Keep the libraries of Hugging Face from connecting; what is in their cache they still find."""
    from huggingface_hub import constants

    switches: list[tuple[Any, str]] = [(constants, "HF_HUB_OFFLINE")]
    if "transformers.utils.hub" in sys.modules:  # older versions have one of their own
        switches.append((sys.modules["transformers.utils.hub"], "_is_offline_mode"))
    before = [(module, name, getattr(module, name, None)) for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@cache
def _clip_tokenizer(length: int, **options: Any) -> Any:
    """Make CLIP's own tokenizer, once for all models that have it: unpacking its 49,000 merges takes 0.1 s."""
    import open_clip

    return open_clip.SimpleTokenizer(context_length=length, **options)


def load_tokenizer(source: str | None, model_cfg: dict[str, Any]) -> Any:
    """Load the tokenizer of a text tower: CLIP's own, or one from a folder, from the hub's cache or from the hub.

    Args:
        source: an architecture of open_clip's, whose tokenizer may be downloaded; "local-dir:" and a folder with the
            tokenizer's files; None for a model on disk, whose tokenizer must be in the cache.

    Raises:
        UsageError: it is not there, or the ``transformers`` package is not.
    """
    import open_clip

    text_cfg = model_cfg["text_cfg"]
    length = int(text_cfg.get("context_length", 77))
    options = text_cfg.get("tokenizer_kwargs") or {}
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        return _clip_tokenizer(length, **options)
    folder = Path(source.removeprefix(FOLDER)) if source and source.startswith(FOLDER) else None
    try:
        import transformers  # noqa: F401 - open_clip needs it for this tokenizer
    except ImportError as error:
        raise UsageError(
            f"The tokenizer {name} needs the transformers package; run `pip install transformers`."
        ) from error
    if folder is not None:
        check_tokenizer_files(folder)
    elif source is not None:
        _require_tokenizer_files(name)
    local = folder is not None or source is None
    try:
        with offline() if local else nullcontext():
            return open_clip.tokenizer.HFTokenizer(
                str(folder or name),
                context_length=length,
                tokenizer_mode=text_cfg.get("tokenizer_mode"),
                trust_remote_code=False,
                local_files_only=local,
                **options,
            )
    except Exception as error:  # transformers, tokenizers and the hub each raise their own
        raise UsageError(
            f"The tokenizer {name} of this model cannot be loaded from {'this machine' if local else 'the hub'}: "
            f"{brief(error)[:150]}. `hf download {name}` fetches it."
        ) from error


def check_tokenizer_files(folder: Path) -> None:
    """Raise UsageError where a file of a tokenizer is none, or far too large."""
    for path in (folder / name for name in TOKENIZER_FILES):
        if path.exists():
            require_file(path, "The tokenizer's file")
            if path.stat().st_size > TOKENIZER_BYTES:
                raise UsageError(f"{path} is too large for a tokenizer; is this the right file?")


def _require_tokenizer_files(name: str) -> None:
    """Fail at once, and in words, where a tokenizer is neither cached nor to be had."""
    import huggingface_hub

    if isinstance(huggingface_hub.try_to_load_from_cache(name, "tokenizer_config.json"), str):
        return
    try:
        url = huggingface_hub.hf_hub_url(name, "tokenizer_config.json")
        huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
    except Exception as error:
        raise UsageError(
            f"The tokenizer {name} is not on this machine and the model hub cannot be reached to download it. "
            "Use a model with CLIP's own tokenizer (PE-Core-B-16, ViT-B-16) or the bundled model motion-tiny."
        ) from error
