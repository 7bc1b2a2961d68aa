"""Published files on this machine: downloaded once, checked ever after; pickles read once, kept as safetensors."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from zsar_cli.cache_files import cache_directory
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, checksum, read_text
from zsar_cli.model.hub import HUB_TIMEOUT, download
from zsar_cli.model.published.records import PublishedFile, families
from zsar_cli.model.weights import brief, check_header

logger = logging.getLogger(__name__)
BLOCK = 1 << 20


def fetch(family: str, file: PublishedFile) -> Path:
    """Give the path of a file that has a public address, downloaded before or now.

    It is there whole or not at all. Its SHA-256 lies beside it and is compared each time.

    Raises:
        UsageError: it cannot be downloaded, or it is no longer what was downloaded.
    """
    spec = f"{family}:{file.name}"
    if file.hub is not None:
        path = _from_hub(family, file.hub)
        if families()[family].transformers is None:
            return path
        _fetch_beside(family, file.hub)
        return path.parent
    assert file.url is not None
    folder = cache_directory()
    if folder is None:
        raise UsageError(f"There is no folder to download {spec} to; set ZSAR_CACHE_DIR.")
    path = folder / "published" / f"{family}-{file.name}{Path(file.url).suffix}"
    recorded = path.with_name(f"{path.name}.sha256")
    if not (path.is_file() and recorded.is_file()):
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _download(file.url, path, spec)
        with atomic_write(recorded) as aside:
            Path(aside).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        return path
    if read_text(recorded, limit=1000).partition(" ")[0] != sha256(path):
        raise UsageError(
            f"{path} is no longer what was downloaded ({recorded.name} says so); delete it, and it is fetched again."
        )
    return path


def _from_hub(family: str, repository: str) -> Path:
    """Find or download ``model.safetensors`` of a repository of Hugging Face's, whose cache names files by SHA-256."""
    try:
        path = download(f"{repository}/model.safetensors", f"{family}:{repository}")
    except UsageError as error:
        what = (
            "model.safetensors"
            if families()[family].transformers is None
            else "folder with model.safetensors"
        )
        raise UsageError(
            f"{repository} is not on this machine and could not be downloaded from Hugging Face; fetch its "
            f"{what}, and name the path: --model {family}:PATH."
        ) from error
    stored = path.resolve()
    if len(stored.name) == 64 and sha256(stored) != stored.name:
        raise UsageError(f"{stored} is no longer what was downloaded; delete it, and it is fetched again.")
    return path


def _fetch_beside(family: str, repository: str) -> None:
    """Find or download what a model of transformers has beside its weights; what is missing is told when it is read."""
    for name in (
        "config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "special_tokens_map.json",
        "spiece.model",
    ):
        try:
            download(f"{repository}/{name}", f"{family}:{repository}")
        except UsageError as error:
            logger.info("%s of %s: %s", name, repository, brief(error))


def sha256(path: Path) -> str:
    """Hash a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(4 * BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _download(url: str, path: Path, spec: str) -> str:
    """Download a file to its path, and give its SHA-256."""
    record = families()[spec.partition(":")[0]]
    by_hand = f"fetch it from {record.where} and name its path: --model {spec.partition(':')[0]}:PATH."
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise UsageError(
            f"{spec} is not on this machine, and HF_HUB_OFFLINE forbids to download it; {by_hand}"
        )
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=HUB_TIMEOUT) as answer, atomic_write(path) as aside:
            expected = int(answer.headers.get("Content-Length") or 0)
            logger.info("downloading %s (%.1f GB) from %s", spec, expected / 1e9, url)
            with open(aside, "wb") as out:
                while block := answer.read(BLOCK):
                    size += out.write(block)
                    digest.update(block)
            if size < expected or not size:
                raise OSError(f"{size} of {expected} bytes came")
    except UsageError:
        raise
    except (
        OSError,
        ValueError,
    ) as error:  # URLError and HTTPError are OSErrors; http.client raises ValueErrors
        logger.info("download failed: %r", error)
        raise UsageError(
            f"{spec} is not on this machine and could not be downloaded ({brief(error)}); {by_hand}"
        ) from error
    return digest.hexdigest()


def read_once(
    path: Path, read: Callable[[Path], tuple[dict[str, Tensor], str]]
) -> tuple[dict[str, Tensor], str]:
    """Read a pickled file, or what was kept of it since then, by ``read``'s names and with its wrapper.

    The cache holds safetensors and a ``config.yaml`` that names the file, its size and its time of change.
    A cache that cannot be used costs the time to read the pickle again.
    """
    root = cache_directory()
    if root is None:
        return read(path)
    state = path.stat()
    identity = {"file": str(path.resolve()), "bytes": state.st_size, "changed": state.st_mtime_ns}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    folder = root / "published" / key
    if (found := _kept(folder, identity)) is not None:
        return found
    tensors, wrapper = read(path)
    try:
        _keep(folder, {"format": 1, "wrapper": wrapper, **identity}, tensors)
    except (OSError, UsageError) as error:
        logger.info("%s is not kept as safetensors: %s", path, brief(error))
    return tensors, wrapper


def _kept(folder: Path, identity: dict[str, Any]) -> tuple[dict[str, Tensor], str] | None:
    weights = folder / "model.safetensors"
    try:
        said = yaml.safe_load(read_text(folder / "config.yaml", limit=100_000))
        if said["format"] != 1 or any(said[name] != value for name, value in identity.items()):
            return None
        check_header(weights)
        if said["weights_crc32"] != checksum(weights):
            return None
        return load_file(weights), str(said["wrapper"])
    except Exception as error:  # whatever a damaged file makes yaml and safetensors raise
        logger.info("nothing is kept in %s (%s)", folder, brief(error))
        return None


def _keep(folder: Path, said: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "model.safetensors") as aside:
        # each on its own: safetensors refuses tensors that share their values
        plain = {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        save_file(plain, aside)
        crc = checksum(aside)
    with atomic_write(folder / "config.yaml") as aside:
        Path(aside).write_text(
            yaml.safe_dump({**said, "weights_crc32": crc}, sort_keys=False), encoding="utf-8"
        )
