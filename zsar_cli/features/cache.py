"""A cache of frame features on disk: they do not change with the labels.

One safetensors file a video. A file is written aside and renamed, so a run may be stopped at any moment and several
processes may share a folder: at worst two of them compute the same thing. What is read may be anybody's: it is used
only where it has the checksums, shapes and ranges of what this model would store.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zsar_cli.cache_files import is_folder, make_folder, read_file, sweep, write_file
from zsar_cli.data.clips import is_rendered, renderer
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.factory import token_count
from zsar_cli.video.address import is_remote, public
from zsar_cli.video.find import is_image
from zsar_cli.video.pool import ClipRequest
from zsar_cli.video.times import VideoInfo

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel


logger = logging.getLogger(__name__)

FORMAT = 3
MOST_CLIPS, MOST_FRAMES = 192, 1024  # of a video, where nothing says how many it has
LONGEST = 1e9  # s, pixels or frames: more is not believed


@dataclass
class EncodedClip:
    """A video's features as they were stored, in fp16, with what its record needs; see :class:`Clip`.

    ``features``: embedding (V, T, E) and tokens (V, T, N, D) of its V clips; N is 0 where no tokens were wanted.
    ``pixels`` and ``look``: as in :class:`Clip`, where they are wanted besides.
    """

    features: FrameFeatures
    indices: np.ndarray
    times: np.ndarray
    info: VideoInfo
    warning: str | None = None
    pixels: np.ndarray | None = None
    look: np.ndarray | None = None


class FeatureCache:
    """Frame features by video (path, size, time of change), how it is shown, and the tower with its weights.

    Patch tokens are stored only for models with motion modules: at ViT-B/16 they take 300 times the embeddings.
    What cannot be read counts as missing. A disk that is full costs time and a logged warning, never the run.
    """

    def __init__(self, directory: str | Path, model: RecognizerModel, expected: int = 0) -> None:
        """Open the cache; ``expected`` videos will be stored. UsageError if ``directory`` cannot be written."""
        self.expected = expected
        self.directory = Path(os.path.expanduser(directory))
        if str(self.directory).startswith("~"):
            raise UsageError(
                f"The cache {directory} cannot be used: there is no such home folder. Choose another folder."
            )
        self.needs_tokens = model.msm is not None
        self.read = self.added = self.added_bytes = 0
        self._works, self._damaged = True, 0
        backbone = model.backbone
        self._widths = (
            backbone.embed_dim,
            token_count(backbone.clip.visual, model.preprocess.size),
            backbone.token_dim,
        )
        self._kept: Callable[[int], int] | None = backbone.kept  # the width of a clip that is one row
        self._folders = [self.directory / f"features-{key}" for key in backbone.frame_keys]
        self._folder = self._folders[0]
        self._aside = self._folder / "aside"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"The cache {directory} cannot be used: {reason}. Choose another folder."
            ) from error
        if not os.access(self.directory, os.W_OK):
            raise UsageError(f"The cache {directory} cannot be written; choose another folder.")
        try:
            make_folder(self._folder)
            make_folder(self._aside)
        except OSError as error:
            self._give_up(error)
        else:
            sweep(self._aside)

    def key(self, request: ClipRequest) -> str | None:
        """Name the features of one video as ``request`` shows it; None if the file cannot be looked at.

        Taken before decoding: a file that changes meanwhile is found under its new key only.
        """
        if request.seed is not None:
            raise ValueError("frames that are drawn by chance cannot be cached")
        identity = _identity(request.path)
        if identity is None:
            return None
        # Named one by one: how a video is decoded, such as in how many threads, is no part of what it shows
        shown: dict[str, Any] = {
            "sampling": asdict(request.sampling),
            "preprocess": asdict(request.preprocess),
            "crops": request.crops,
            "decoder": request.decoder,
        }
        if request.indices is not None:
            shown["indices"] = request.indices
        if os.path.isdir(request.path):  # only the times of a folder of frames rest on it
            shown["image_rate"] = request.image_rate
        if shown["sampling"]["seconds"] is None:
            del shown["sampling"]["seconds"]
        if (
            shown["sampling"]["way"] == "segments"
        ):  # in the words of version 0.1.0, so that its caches are read
            del shown["sampling"]["way"]
            shown["sampling"] |= {"mode": "segments", "stride": 4}
        content = json.dumps([FORMAT, identity, shown], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def get(self, key: str, request: ClipRequest | None = None) -> EncodedClip | None:
        """Read the features under ``key``; None if they are not there, not whole, or not of what ``request`` shows."""
        for folder in self._folders:
            path = _path(folder, key)
            if not (is_folder(folder) and is_folder(path.parent)):
                continue
            try:
                clip = self._load(path, request)
            except FileNotFoundError:
                continue
            except Exception as error:  # whatever a file of anybody's makes json and safetensors raise
                self._tell_damage(path, error)
                continue
            if clip is not None:
                self.read += 1
                return clip
        return None

    def _load(self, path: Path, request: ClipRequest | None) -> EncodedClip | None:
        """Load a file; None where it is undamaged and has no tokens, which this model needs."""
        width, count, token_width = self._widths
        clips = request.sampling.views * request.crops if request else MOST_CLIPS
        frames = request.sampling.frames if request else MOST_FRAMES
        room = 65536 + 64 * clips * frames  # for what a header says of indices and times
        most = clips * frames * (width + count * token_width)
        if self._kept is not None:
            most = clips * self._kept(frames)
        content = read_file(path, room + 2 * most)
        start = 8 + int.from_bytes(content[:8], "little")
        if start > room:
            raise ValueError("the header is too long")
        header = json.loads(content[8:start])
        stored = header.pop("__metadata__")
        if stored["checksum"] != _checksum_of(stored["clip"]):
            raise ValueError("they are not what was written")
        about = json.loads(stored["clip"])
        if request is None:
            clips, frames = header["embedding"]["shape"][:2]
        views = (request.sampling.views, frames) if request else None
        if self._kept is not None:  # a row a clip
            frames, width = 1, self._kept(frames)
        shapes = {"embedding": (clips, frames, width), "tokens": (clips, frames, count, token_width)}
        if not self.needs_tokens:
            del shapes["tokens"]
        elif "tokens" not in header:
            return None
        if max(entry["data_offsets"][1] for entry in header.values()) != len(content) - start:
            raise ValueError("there is more or less than was written")
        tensors = {name: _tensor(content, start, header[name], shape) for name, shape in shapes.items()}
        for name, tensor in tensors.items():
            if about["checksums"][name] != _checksum(tensor) or not _is_finite(tensor):
                raise ValueError("they are not what was written")
        embedding = tensors["embedding"]
        tokens = tensors["tokens"] if self.needs_tokens else embedding.new_zeros(clips, frames, 0, 0)
        return _described(FrameFeatures(embedding, tokens), about, views)

    def put(self, key: str, clip: EncodedClip) -> None:
        """Store the features of one video."""
        from safetensors.torch import save

        if not self._works:
            return
        tensors = {"embedding": clip.features.embedding.contiguous()}
        if self.needs_tokens:
            tensors["tokens"] = clip.features.tokens.contiguous()
            self._widths = (
                self._widths[0],
                tensors["tokens"].shape[2],
                self._widths[2],
            )  # the tower decides
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            logger.warning("features exceed the range of fp16 and are not cached")
            return
        about = {
            "indices": clip.indices.tolist(),
            "times": clip.times.tolist(),
            "info": asdict(clip.info),
            "warning": clip.warning,
            "checksums": {name: _checksum(tensor) for name, tensor in tensors.items()},
        }
        text = json.dumps(about)
        content = save(tensors, {"clip": text, "checksum": _checksum_of(text)})
        path = _path(self._folder, key)
        try:
            make_folder(path.parent)
            write_file(path, content, self._aside)
        except OSError as error:
            self._give_up(error)
            return
        size = len(content)
        self.added += 1
        self.added_bytes += size
        free = _free(self.directory)
        if self.added == 1 and free is not None and size * self.expected > free:
            logger.warning(
                "The cache %s will need %s, but its disk has only %s free; what does not fit is computed again.",
                self.directory,
                _megabytes(size * self.expected),
                _megabytes(free),
            )

    def summary(self) -> str:
        """Describe what this run read and added, with its size on the disk."""
        text = f"{self.directory}: {self.read} videos read"
        if self.added:
            each = _megabytes(self.added_bytes / self.added)
            text += f", {self.added} added ({_megabytes(self.added_bytes)}, {each} a video"
            free = _free(self.directory)
            text += f"; {_megabytes(free)} are left on its disk)" if free is not None else ")"
        return text

    def _give_up(self, error: OSError) -> None:
        self._works = False
        where = f" ({error.filename})" if error.filename else ""
        logger.warning("Nothing more is cached in %s: %s%s.", self.directory, error.strerror or error, where)

    def _tell_damage(self, path: Path, error: Exception) -> None:
        self._damaged += 1
        logger.log(
            logging.WARNING if self._damaged == 1 else logging.INFO,
            "Cached features that are damaged or of another model are computed again, such as %s (%s).",
            path,
            (str(error).splitlines() or [type(error).__name__])[0][:200],
        )


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.safetensors"


def _checksum(tensor: Tensor) -> int:
    """Compute CRC-32 of the shape and the bytes: a disk that loses a bit must not change an answer."""
    shape = zlib.crc32(str(tuple(tensor.shape)).encode())
    return zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data, shape)


def _tensor(content: bytearray, start: int, entry: Any, shape: tuple[int, ...]) -> Tensor:
    """View fp16 values of a safetensors file, without a copy. ValueError where they are not of this shape."""
    first, end = entry["data_offsets"]
    if (
        entry["dtype"] != "F16"
        or tuple(entry["shape"]) != shape
        or 0 in shape
        or end - first != 2 * math.prod(shape)
        or not 0 <= first <= end <= len(content) - start
    ):
        raise ValueError("they are not of this shape")
    values = torch.frombuffer(content, dtype=torch.float16, count=math.prod(shape), offset=start + first)
    return values.view(shape)


def _is_finite(tensor: Tensor) -> bool:
    """Test fp16 for infinities and NaN by its bits: five times faster than torch.isfinite on a CPU."""
    exponents = tensor.view(torch.int16).numpy() & 0x7C00
    return int(exponents.max()) < 0x7C00


def _checksum_of(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _described(features: FrameFeatures, about: Any, views: tuple[int, int] | None) -> EncodedClip:
    """Check what was stored beside the features. ValueError, or another, where no video could have it."""
    indices, times = np.asarray(about["indices"]), np.asarray(about["times"])
    clips, frames = features.embedding.shape[:2]
    if views is None:
        views = len(indices), frames
    sound = indices.shape == times.shape == views and clips % len(indices) == 0
    sound = sound and indices.dtype.kind == "i" and times.dtype.kind in "fi"
    if not (sound and indices.min() >= 0 and np.isfinite(times).all() and abs(times).max() <= LONGEST):
        raise ValueError("their times make no sense")
    info = VideoInfo(**about["info"])
    for field in fields(info):
        value = getattr(info, field.name)
        if (
            type(value).__name__ not in (field.type, field.type.replace("float", "int"))
            or not 0 <= value <= LONGEST
        ):
            raise ValueError(f"a {field.name} of {str(value)[:20]}")
    warning = about["warning"]
    if warning is not None and not (
        isinstance(warning, str) and warning.isprintable() and len(warning) < 1000
    ):
        raise ValueError("their warning is no line of text")
    return EncodedClip(features, indices.astype(np.int64), times.astype(float), info, warning)


def _code_hash(module: ModuleType) -> str:
    """Hash the code that renders a clip: the module, and its neighbours where it is one of a package."""
    file = Path(str(module.__file__))
    parts = [file] if file.stem == "motion_shapes" else sorted(file.parent.glob("*.py"))
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def _identity(path: str) -> list[Any] | None:
    """Identify a file, or a folder of frames, and its present state."""
    if is_rendered(path):
        return [path, _code_hash(renderer(path))]
    if is_remote(path):
        return _object_identity(path)
    try:
        status = os.stat(path)
        identity: list[Any] = [os.path.realpath(path), status.st_size, status.st_mtime_ns]
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                frames = [e for e in entries if is_image(e.name)]
            stats = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in frames)
            identity.append(stats)
    except (OSError, ValueError):
        return None
    return identity


def _object_identity(url: str) -> list[Any] | None:
    """Identify an object in a storage; None where it cannot be asked for, or would not tell that it changed."""
    from zsar_cli.video.storage import state_of

    try:
        state = state_of(url)
    except VideoError:
        return None
    return None if state.tag is None else [public(url), state.size, state.tag]


def _free(directory: Path) -> int | None:
    """Return the free bytes of the disk; None where the folder has gone meanwhile."""
    import shutil

    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def _megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
