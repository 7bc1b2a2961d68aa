"""From videos to frame features: read from the cache, or decoded and run through the visual tower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zsar_cli.errors import VideoError
from zsar_cli.features.cache import EncodedClip, FeatureCache
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.precision import arithmetic
from zsar_cli.video.address import is_remote, public
from zsar_cli.video.given import Given
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool, Ready, load_clip
from zsar_cli.video.states import with_states

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel

Loaded: TypeAlias = "tuple[ClipRequest, str | None, Clip | EncodedClip | VideoError]"  # asked, key, got


def load_cached(
    pool: DecodePool,
    requests: Iterable[ClipRequest],
    cache: FeatureCache | None,
    render: Callable[[ClipRequest], Clip | None] = lambda request: None,
    *,
    pixels: bool = False,
) -> Iterator[Loaded]:
    """Yield each request, its key, and its EncodedClip from the cache, else the pool's result; in order.

    The pool gives a Clip or a VideoError. ``render`` may give a Clip that needs no decoding. With ``pixels``, what the
    cache has is decoded as well, for its pixels; where that fails, the EncodedClip has none.
    """

    def asked() -> Iterator[_CachedRequest]:
        for request in requests if cache is None else with_states(requests, lambda request: request.path):
            if isinstance(request.path, Given):  # nothing says later whether it is the same, so it has no key
                given, request = request.path, replace(request, path=request.path.source)
                copied = isinstance(given.source, str)  # frames at hand are not kept until their turn comes
                named = replace(request, path=given.name)
                yield _CachedRequest(
                    named, request if copied else Ready(_loaded(request)), copy=given if copied else None
                )
                continue
            key = cache.key(request) if cache is not None else None
            stored = cache.get(key, request) if cache is not None and key is not None else None
            ready = (None if pixels else stored) or render(request)
            named = replace(request, path=public(request.path)) if is_remote(request.path) else request
            yield _CachedRequest(named, request if ready is None else Ready(ready), key, stored)

    for item, result in pool.imap(asked(), lambda item: item.read):
        if item.copy is not None:
            item.copy.done()
        if pixels and item.stored is not None:
            pictures = getattr(result, "pixels", None), getattr(result, "look", None)
            result = replace(item.stored, pixels=pictures[0], look=pictures[1])
        yield item.request, item.key, result


@dataclass(frozen=True)
class _CachedRequest:
    """A request, what the pool gets of it, and what is known of it before."""

    request: ClipRequest  # as its answer calls it
    read: ClipRequest | Ready
    key: str | None = None
    stored: EncodedClip | None = None
    copy: Given | None = None  # to be removed once it is read


def _loaded(request: ClipRequest) -> Clip | VideoError:
    """Load a clip of frames at hand, which are not sent to another process whole."""
    try:
        return load_clip(request)
    except VideoError as error:
        return error


@torch.no_grad()
def map_features(
    model: RecognizerModel,
    videos: Sequence[tuple[str | None, Clip | EncodedClip]],
    function: Callable[[FrameFeatures, list[int]], Tensor],
    cache: FeatureCache | None = None,
) -> Tensor:
    """Map the frame features of B videos with V clips each through ``function``, a bounded number of frames at a time.

    With a cache the features are those in fp16 that it holds, or will hold: the answer is the same every time.

    Args:
        videos: each with its key in the cache, as :func:`load_cached` gives them.
        function: gets features with leading (n, T) and which video each of the n clips is of; gives (n, ...).

    Returns:
        (B, V, ...).
    """
    results: list[Tensor] = []
    for start, group in _groups(videos, model.backbone.frames_at_once.size):
        views, frames = _leading(group[0][1])
        of_video = [start + k for k in range(len(group)) for _ in range(views)]
        if cache is None:
            pixels = torch.from_numpy(np.concatenate([clip.pixels for _, clip in group]))
        else:
            stored = stack_features(encode_clips(model, group, cache))

        def mapped(part: slice) -> Tensor:
            if cache is None:
                features = encode_pixels(model, pixels[part])  # noqa: B023 - called in this round
            else:
                features = FrameFeatures(
                    to_device(stored.embedding[part], model.backbone.device),  # noqa: B023
                    to_device(stored.tokens[part], model.backbone.device),  # noqa: B023
                )
            return function(features, of_video[part])  # noqa: B023

        with arithmetic(model.backbone.precision):
            results += model.backbone.frames_at_once.map(len(of_video), mapped, frames)
    return torch.unflatten(torch.cat(results), 0, (len(videos), -1))


@torch.no_grad()
def encode_clips(
    model: RecognizerModel, videos: Sequence[tuple[str | None, Clip | EncodedClip]], cache: FeatureCache
) -> list[EncodedClip]:
    """Encode the videos that are not encoded yet, and put them into the cache."""
    fresh = [(key, clip) for key, clip in videos if isinstance(clip, Clip)]
    encoded: Iterator[FrameFeatures] = iter(())
    if fresh:
        pixels = torch.from_numpy(np.concatenate([clip.pixels for _, clip in fresh]))
        keep = None if cache.needs_tokens else 0

        def encode(part: slice) -> tuple[Tensor, Tensor]:
            found = encode_pixels(model, pixels[part])
            return found.embedding.half().cpu(), found.tokens[..., :keep, :keep].half().cpu()

        parts = list(model.backbone.frames_at_once.map(len(pixels), encode, pixels.shape[1]))
        embeddings, tokens = (torch.cat(kind).chunk(len(fresh)) for kind in zip(*parts, strict=True))
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
    """Stack the features of B videos of V clips each to one batch of B * V clips, fp16."""
    return FrameFeatures(
        torch.cat([clip.features.embedding for clip in clips]),
        torch.cat([clip.features.tokens for clip in clips]),
    )


def encode_pixels(model: RecognizerModel, pixels: Tensor) -> FrameFeatures:
    """Run the visual tower over clips (B, T, h, w, 3) uint8, which are normalised where the model is."""
    pixels = to_device(pixels, model.backbone.device)
    with arithmetic(model.backbone.precision):
        return model.encode_frames(model.backbone.normalise(pixels))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to the device; to a GPU from pinned memory, without waiting for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors to the CPU in one transfer, so that the host waits once; floats come back as float32."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    together = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _groups(videos: Sequence[tuple[Any, Any]], most: int) -> Iterator[tuple[int, Sequence[tuple[Any, Any]]]]:
    """Group videos into portions of at most so many frames, or of one video; with where each begins."""
    views, frames = _leading(videos[0][1])
    size = max(1, most // (views * frames))
    for start in range(0, len(videos), size):
        yield start, videos[start : start + size]


def _leading(clip: Clip | EncodedClip) -> tuple[int, int]:
    """Return V and T of a video."""
    shape = clip.pixels.shape if isinstance(clip, Clip) else clip.features.embedding.shape
    return shape[0], shape[1]
