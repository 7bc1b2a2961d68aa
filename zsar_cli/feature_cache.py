"""A cache of frame features on disk: what the visual tower says of a video does not change with the labels.

One safetensors file a video, memory-mapped when it is read. A file is written aside and renamed, so a run may be
stopped at any moment and several processes may share a folder: at worst two of them compute the same thing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zsar_cli.data.clips import is_rendered
from zsar_cli.errors import UsageError
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.video.decode import VideoInfo
from zsar_cli.video.probe import IMAGES
from zsar_cli.video.transforms import normalise
from zsar_cli.video.workers import Clip, ClipRequest, DecodePool, Ready

if TYPE_CHECKING:
    from zsar_cli.model.recognizer import RecognizerModel

logger = logging.getLogger(__name__)

FORMAT = 1
FRAMES_AT_ONCE = 512  # that go through the visual tower together, however many views a video has
LEFT_BEHIND = 86400  # s after which a file aside is taken for what a killed run left


@dataclass
class EncodedClip:
    """A video's features as they were stored, in fp16, and what its record says besides; see :class:`Clip`.

    ``features``: embedding (V, T, E) and tokens (V, T, N, D) of its V clips; N is 0 where no tokens were wanted.
    """

    features: FrameFeatures
    indices: np.ndarray
    times: np.ndarray
    info: VideoInfo
    warning: str | None = None


class FeatureCache:
    """Frame features by video (path, size, time of change), how it is shown, and the tower with its weights.

    Patch tokens are stored only for models that look at motion: at ViT-B/16 they are 300 times the embeddings.
    What cannot be read counts as missing. A disk that is full costs time and a logged warning, never the run.
    """

    def __init__(self, directory: str | Path, model: RecognizerModel) -> None:
        """``UsageError`` if nothing can be written into ``directory``."""
        self.directory = Path(directory).expanduser()
        self.needs_tokens = model.msm is not None
        self.read = self.added = self.added_bytes = 0
        self._works = True
        backbone = model.backbone
        self._folder = self.directory / f"features-{backbone.fingerprint()}-{backbone.precision}"
        self._aside = self._folder / "aside"
        try:
            self._aside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"The cache {directory} cannot be used: {error.strerror}. Choose another folder."
            ) from error
        if not os.access(self._aside, os.W_OK):
            raise UsageError(f"The cache {directory} cannot be written; choose another folder.")
        _sweep(self._aside)

    def key(self, request: ClipRequest) -> str | None:
        """Names the features of one video as ``request`` shows it; None if the file cannot be looked at.

        Taken before decoding: a file that changes meanwhile is found under its new key only.
        """
        if request.seed is not None:
            raise ValueError("frames that are drawn by chance cannot be cached")
        identity = _identity(request.path)
        if identity is None:
            return None
        shown = {k: v for k, v in asdict(request).items() if k not in ("path", "augmentation", "seed")}
        content = json.dumps([FORMAT, identity, shown], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def get(self, key: str) -> EncodedClip | None:
        """The features under ``key``, memory-mapped; None if they are not there or not whole."""
        from safetensors import safe_open

        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["clip"])
                embedding = file.get_tensor("embedding")
                if not self.needs_tokens:
                    tokens = embedding.new_zeros(*embedding.shape[:2], 0, 0)
                elif "tokens" in file.keys():  # noqa: SIM118 - not a dict
                    tokens = file.get_tensor("tokens")
                else:
                    return None
            clip = EncodedClip(
                FrameFeatures(embedding, tokens),
                np.asarray(about["indices"], np.int64),
                np.asarray(about["times"], float),
                VideoInfo(**about["info"]),
                about["warning"],
            )
        except Exception as error:  # safetensors raises kinds of its own
            logger.info("the cached features %s are damaged (%s) and are computed again", path, error)
            return None
        self.read += 1
        return clip

    def put(self, key: str, features: FrameFeatures, clip: Clip) -> None:
        """Store the features of one video: embedding (V, T, E) and tokens (V, T, N, D), any dtype and device."""
        from safetensors.torch import save_file

        if not self._works:
            return
        tensors = {"embedding": features.embedding}
        if self.needs_tokens:
            tensors["tokens"] = features.tokens
        tensors = {name: tensor.half().contiguous().cpu() for name, tensor in tensors.items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            logger.warning("features exceed fp16's range and are not cached")
            return
        about = {
            "indices": clip.indices.tolist(),
            "times": clip.times.tolist(),
            "info": asdict(clip.info),
            "warning": clip.warning,
        }
        path, aside = self._path(key), self._aside / uuid.uuid4().hex
        try:
            path.parent.mkdir(exist_ok=True)
            save_file(tensors, aside, {"clip": json.dumps(about)})
            with open(aside, "rb+") as file:
                os.fsync(file.fileno())
            size = aside.stat().st_size
            os.replace(aside, path)
        except Exception as error:  # OSError; safetensors wraps it in a kind of its own
            with contextlib.suppress(OSError):
                aside.unlink()
            self._works = False
            logger.warning("Nothing more is cached in %s: %s", self.directory, str(error).splitlines()[0])
            return
        self.added += 1
        self.added_bytes += size

    def summary(self) -> str:
        """What this run read and added, in words, with what it costs on the disk."""
        text = f"{self.directory}: {self.read} videos read"
        if self.added:
            each = _megabytes(self.added_bytes / self.added)
            text += f", {self.added} added ({_megabytes(self.added_bytes)}, {each} a video"
            text += f"; {_megabytes(_free(self.directory))} are left on its disk)"
        return text

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


def load_cached(
    pool: DecodePool,
    requests: Iterable[ClipRequest],
    cache: FeatureCache | None,
    render: Callable[[ClipRequest], Clip | None] = lambda request: None,
) -> Iterator[tuple[ClipRequest, str | None, Any]]:
    """For each request, in order: itself, its key, and an EncodedClip from the cache, else what the pool makes of it.

    The pool gives a Clip or a VideoError. ``render`` may give a Clip that needs no decoding.
    """
    asked: queue.SimpleQueue[tuple[ClipRequest, str | None]] = queue.SimpleQueue()

    def jobs() -> Iterator[Any]:
        for request in requests:
            key = cache.key(request) if cache is not None else None
            asked.put((request, key))
            found: Any = cache.get(key) if cache is not None and key is not None else None
            found = found or render(request)
            yield request if found is None else Ready(found)

    for result in pool.imap(jobs()):
        yield (*asked.get(), result)


@torch.no_grad()
def map_features(
    model: RecognizerModel,
    clips: Sequence[Clip | EncodedClip],
    function: Callable[[FrameFeatures, list[int]], Tensor],
    cache: FeatureCache | None = None,
    keys: Sequence[str | None] | None = None,
) -> Tensor:
    """``function`` of the frame features of B videos with V clips each, a bounded number of frames at a time.

    Videos that come encoded need no tower; what it makes of the others goes into the cache under ``keys``.

    Args:
        function: gets features with leading (n, T) and which video each of the n clips is of; gives (n, ...).

    Returns:
        (B, V, ...).
    """
    found: list[Tensor | None] = [None] * len(clips)
    encoded = [k for k, clip in enumerate(clips) if isinstance(clip, EncodedClip)]
    fresh = [k for k, clip in enumerate(clips) if isinstance(clip, Clip)]
    for group in _groups(encoded, clips):
        stored: list[Any] = [clips[k].features for k in group]  # type: ignore[union-attr]
        together = FrameFeatures(
            torch.cat([x.embedding for x in stored]), torch.cat([x.tokens for x in stored])
        )
        _spread(found, group, [function(part, rows) for part, rows in _parts(model, together, group)])
    for group in _groups(fresh, clips):
        pixels = torch.from_numpy(np.concatenate([clips[k].pixels for k in group]))  # type: ignore[union-attr]
        results, kept = [], []
        for part, rows in _parts(model, pixels, group):
            features = encode_pixels(model, part)
            if cache is not None:
                kept.append(FrameFeatures(features.embedding.half().cpu(), features.tokens.half().cpu()))
            results.append(function(features, rows))
        _spread(found, group, results)
        if cache is not None and keys is not None:
            embeddings = torch.cat([x.embedding for x in kept]).chunk(len(group))
            tokens = torch.cat([x.tokens for x in kept]).chunk(len(group))
            for k, embedding, patches in zip(group, embeddings, tokens, strict=True):
                key, clip = keys[k], clips[k]
                if key is not None and isinstance(clip, Clip):
                    cache.put(key, FrameFeatures(embedding, patches), clip)
    return torch.stack([value for value in found if value is not None])


def encode_pixels(model: RecognizerModel, pixels: Tensor) -> FrameFeatures:
    """The visual tower over clips (B, T, h, w, 3) uint8, which it normalises."""
    device = model.backbone.device
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    pixels = pixels.to(device, non_blocking=True)
    return model.encode_frames(normalise(pixels, model.preprocess, model.backbone.dtype))


def _groups(places: list[int], clips: Sequence[Any]) -> Iterator[list[int]]:
    """``places`` in portions of at most FRAMES_AT_ONCE frames, or of one video."""
    if not places:
        return
    shape = _leading(clips[places[0]])
    size = max(1, FRAMES_AT_ONCE // (shape[0] * shape[1]))
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _leading(clip: Clip | EncodedClip) -> tuple[int, ...]:
    """(V, T) of a video."""
    return tuple((clip.pixels if isinstance(clip, Clip) else clip.features.embedding).shape[:2])


def _parts(model: RecognizerModel, what: Any, group: list[int]) -> Iterator[tuple[Any, list[int]]]:
    """Pixels or features of a group's videos, FRAMES_AT_ONCE at most, each with the video of every clip."""
    rows = what if isinstance(what, Tensor) else what.embedding
    clips, frames = rows.shape[:2]
    of_video = [k for k in group for _ in range(clips // len(group))]
    size = max(1, FRAMES_AT_ONCE // frames)
    for start in range(0, clips, size):
        place = slice(start, start + size)
        if isinstance(what, Tensor):
            yield what[place], of_video[place]
        else:
            device = model.backbone.device
            yield (
                FrameFeatures(what.embedding[place].to(device), what.tokens[place].to(device)),
                of_video[place],
            )


def _spread(found: list[Tensor | None], group: list[int], results: list[Tensor]) -> None:
    """Results of the clips of a group to its videos' places, (V, ...) each."""
    for k, value in zip(group, torch.cat(results).chunk(len(group)), strict=True):
        found[k] = value


def _identity(path: str) -> list[Any] | None:
    """What tells a file, or a folder of frames, from any other and from its earlier states."""
    if is_rendered(path):
        from zsar_cli.data import motion_shapes

        return [path, hashlib.sha256(Path(motion_shapes.__file__).read_bytes()).hexdigest()]
    try:
        status = os.stat(path)
        identity: list[Any] = [os.path.realpath(path), status.st_size, status.st_mtime_ns]
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                frames = [e for e in entries if Path(e.name).suffix.lower() in IMAGES]
            stats = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in frames)
            identity.append(stats)
    except (OSError, ValueError):
        return None
    return identity


def _sweep(folder: Path) -> None:
    """Remove what killed runs left aside long ago."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if time.time() - entry.stat().st_mtime > LEFT_BEHIND:
                os.unlink(entry.path)


def _free(directory: Path) -> int:
    import shutil

    return shutil.disk_usage(directory).free


def _megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
