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
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zsar_cli.data.clips import is_rendered
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.video.decode import VideoInfo
from zsar_cli.video.probe import IMAGES
from zsar_cli.video.transforms import normalise
from zsar_cli.video.workers import Clip, ClipRequest, DecodePool, Ready

if TYPE_CHECKING:
    from zsar_cli.model.recognizer import RecognizerModel

Loaded: TypeAlias = "tuple[ClipRequest, str | None, Clip | EncodedClip | VideoError]"  # asked, key, got

logger = logging.getLogger(__name__)

FORMAT = 2
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

    def __init__(self, directory: str | Path, model: RecognizerModel, expected: int = 0) -> None:
        """``expected`` videos will be stored, if that is known. UsageError if ``directory`` cannot be written."""
        self.expected = expected
        self.directory = Path(directory).expanduser()
        self.needs_tokens = model.msm is not None
        self.read = self.added = self.added_bytes = 0
        self._works = True
        backbone = model.backbone
        self._folders = [self.directory / f"features-{key}" for key in backbone.frame_keys]
        self._folder = self._folders[0]
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
        found = (self._load(_path(folder, key)) for folder in self._folders)
        clip = next((clip for clip in found if clip is not None), None)
        self.read += clip is not None
        return clip

    def _load(self, path: Path) -> EncodedClip | None:
        from safetensors import safe_open

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
            wanted = {"embedding": embedding, **({"tokens": tokens} if self.needs_tokens else {})}
            for name, tensor in wanted.items():
                if about["checksums"][name] != _checksum(tensor):
                    raise ValueError("they are not what was written")
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
        return clip

    def put(self, key: str, clip: EncodedClip) -> None:
        """Store the features of one video."""
        from safetensors.torch import save_file

        if not self._works:
            return
        tensors = {"embedding": clip.features.embedding.contiguous()}
        if self.needs_tokens:
            tensors["tokens"] = clip.features.tokens.contiguous()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            logger.warning("features exceed fp16's range and are not cached")
            return
        about = {
            "indices": clip.indices.tolist(),
            "times": clip.times.tolist(),
            "info": asdict(clip.info),
            "warning": clip.warning,
            "checksums": {name: _checksum(tensor) for name, tensor in tensors.items()},
        }
        path, aside = _path(self._folder, key), self._aside / uuid.uuid4().hex
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
        if self.added == 1 and size * self.expected > (free := _free(self.directory)):
            logger.warning(
                "The cache %s will take %s and %s are left on its disk; what does not fit is computed again.",
                self.directory,
                _megabytes(size * self.expected),
                _megabytes(free),
            )

    def summary(self) -> str:
        """What this run read and added, in words, with what it costs on the disk."""
        text = f"{self.directory}: {self.read} videos read"
        if self.added:
            each = _megabytes(self.added_bytes / self.added)
            text += f", {self.added} added ({_megabytes(self.added_bytes)}, {each} a video"
            text += f"; {_megabytes(_free(self.directory))} are left on its disk)"
        return text


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.safetensors"


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of the shape and the bytes: a disk that loses a bit must not change an answer."""
    shape = zlib.crc32(str(tuple(tensor.shape)).encode())
    return zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data, shape)


def load_cached(
    pool: DecodePool,
    requests: Iterable[ClipRequest],
    cache: FeatureCache | None,
    render: Callable[[ClipRequest], Clip | None] = lambda request: None,
) -> Iterator[Loaded]:
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
    videos: Sequence[tuple[str | None, Clip | EncodedClip]],
    function: Callable[[FrameFeatures, list[int]], Tensor],
    cache: FeatureCache | None = None,
) -> Tensor:
    """``function`` of the frame features of B videos with V clips each, a bounded number of frames at a time.

    With a cache the features are those in fp16 that it holds, or will hold: the answer is the same every time.

    Args:
        videos: each with its key in the cache, as :func:`load_cached` gives them.
        function: gets features with leading (n, T) and which video each of the n clips is of; gives (n, ...).

    Returns:
        (B, V, ...).
    """
    results = []
    for start, group in _groups(videos):
        views, frames = _leading(group[0][1])
        of_video = [start + k for k in range(len(group)) for _ in range(views)]
        if cache is None:
            pixels = torch.from_numpy(np.concatenate([clip.pixels for _, clip in group]))  # type: ignore[union-attr]
        else:
            stored = stack_features(encode_clips(model, group, cache))
        at_once = max(1, FRAMES_AT_ONCE // frames)
        for first in range(0, len(of_video), at_once):
            part = slice(first, first + at_once)
            if cache is None:
                features = encode_pixels(model, pixels[part])
            else:
                features = FrameFeatures(
                    to_device(stored.embedding[part], model.backbone.device),
                    to_device(stored.tokens[part], model.backbone.device),
                )
            results.append(function(features, of_video[part]))
    return torch.cat(results).unflatten(0, (len(videos), -1))


@torch.no_grad()
def encode_clips(
    model: RecognizerModel, videos: Sequence[tuple[str | None, Clip | EncodedClip]], cache: FeatureCache
) -> list[EncodedClip]:
    """The videos encoded: those that are not yet go through the tower and into the cache."""
    fresh = [(key, clip) for key, clip in videos if isinstance(clip, Clip)]
    encoded: Iterator[FrameFeatures] = iter(())
    if fresh:
        pixels = torch.from_numpy(np.concatenate([clip.pixels for _, clip in fresh]))
        parts = [
            encode_pixels(model, part) for part in pixels.split(max(1, FRAMES_AT_ONCE // pixels.shape[1]))
        ]
        embeddings = torch.cat([part.embedding.half().cpu() for part in parts]).chunk(len(fresh))
        keep = None if cache.needs_tokens else 0
        tokens = torch.cat([part.tokens[..., :keep, :keep].half().cpu() for part in parts]).chunk(len(fresh))
        encoded = (FrameFeatures(e, t) for e, t in zip(embeddings, tokens, strict=True))
    result = []
    for key, clip in videos:
        if isinstance(clip, Clip):
            clip = EncodedClip(next(encoded), clip.indices, clip.times, clip.info, clip.warning)
            if key is not None:
                cache.put(key, clip)
        result.append(clip)
    return result


def stack_features(clips: Sequence[EncodedClip]) -> FrameFeatures:
    """The features of B videos of V clips each as one batch of B * V clips, fp16."""
    return FrameFeatures(
        torch.cat([clip.features.embedding for clip in clips]),
        torch.cat([clip.features.tokens for clip in clips]),
    )


def encode_pixels(model: RecognizerModel, pixels: Tensor) -> FrameFeatures:
    """The visual tower over clips (B, T, h, w, 3) uint8, which are normalised where the model is."""
    pixels = to_device(pixels, model.backbone.device)
    return model.encode_frames(normalise(pixels, model.preprocess, model.backbone.dtype))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to a GPU by way of pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _groups(videos: Sequence[tuple[Any, Any]]) -> Iterator[tuple[int, Sequence[tuple[Any, Any]]]]:
    """Videos in portions of at most FRAMES_AT_ONCE frames, or of one video; with where each begins."""
    views, frames = _leading(videos[0][1])
    size = max(1, FRAMES_AT_ONCE // (views * frames))
    for start in range(0, len(videos), size):
        yield start, videos[start : start + size]


def _leading(clip: Clip | EncodedClip) -> tuple[int, int]:
    """V and T of a video."""
    shape = clip.pixels.shape if isinstance(clip, Clip) else clip.features.embedding.shape
    return shape[0], shape[1]


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
