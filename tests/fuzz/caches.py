"""Damaged and forged caches: what comes out of one is what went in, or what this model could have put there."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save_file

from tests.fuzz.damage import ODD_VALUES, damage_bytes, damage_tree

KEY = "ab" * 16
TEXTS = [f"text {number}" for number in range(40)]


def _vectors() -> dict[str, np.ndarray]:
    return {text: np.arange(16, dtype=np.float32) + number for number, text in enumerate(TEXTS)}


def make_texts(folder: Path) -> None:
    """A cache of 40 texts."""
    from zsar_cli.text.cache import TextCache

    TextCache(folder).put("m", _vectors())


def use_damaged_texts(folder: Path) -> None:
    """What is found is what was stored; what is stored again is found."""
    from zsar_cli.text.cache import TextCache

    vectors = _vectors()
    for text, vector in TextCache(folder).get("m", TEXTS, 16).items():
        assert (vector == vectors[text]).all(), "a damaged vector was taken for a sound one"
    TextCache(folder).put("m", vectors)
    found = TextCache(folder).get("m", TEXTS, 16)
    assert len(found) == len(TEXTS), "the cache did not mend itself"
    assert all((found[text] == vectors[text]).all() for text in TEXTS)


def forge_texts(path: Path, rng: random.Random, marker: Path) -> str:
    """Rows with checksums that fit, of what no model says."""
    from zsar_cli.text.cache import TextCache

    kind = rng.choice(("wider", "numbers", "narrow", "rows", "sparse", "head", "other"))
    width = {"wider": rng.choice((17, 32, 65536)), "narrow": rng.choice((1, 15))}.get(kind, 16)
    value = rng.choice((float("nan"), float("inf"), 1e38, -0.0, 1e-45))
    path.unlink()
    chosen = rng.sample(TEXTS, rng.randrange(1, len(TEXTS)))
    TextCache(path.parent).put("m", {text: np.full(width, value) for text in chosen})
    if kind == "rows":
        path.write_bytes(path.read_bytes()[:17] + path.read_bytes()[17:105] * rng.choice((100, 20_000)))
    elif kind == "sparse":
        with path.open("rb+") as file:
            file.truncate(rng.choice((1 << 24, 1 << 33, 1 << 42)))
    elif kind == "head":
        path.write_bytes(path.read_bytes()[: rng.randrange(18)])
    elif kind == "other":
        path.write_bytes(b"SQLite format 3\0" + rng.randbytes(rng.randrange(4000)))
    return f"forged {kind}"


def use_forged_texts(folder: Path) -> None:
    """Vectors are of the model's width and finite."""
    from zsar_cli.text.cache import TextCache

    for _ in range(2):
        for vector in TextCache(folder).get("m", TEXTS, 16).values():
            assert vector.shape == (16,), "a vector of another width"
            assert np.isfinite(vector).all(), "a vector that is not finite"
        TextCache(folder).put("m", _vectors())
    found = TextCache(folder).get("m", TEXTS, 16)
    assert len(found) == len(TEXTS), "the cache did not mend itself"


# --- features


@cache
def _model() -> Any:
    from tests.fuzz.files import _tiny_model

    model = _tiny_model().eval()
    model.backbone.fingerprint = lambda: "f"
    return model


def _features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).half() for shape in ((1, 2, 16), (1, 2, 4, 16))]


def feature_file() -> str:
    """Where the one video's features lie."""
    return f"features-f-fp32/ab/{KEY}.safetensors"


def make_features(folder: Path) -> None:
    """A cache of one video."""
    from zsar_cli.features.cache import EncodedClip, FeatureCache
    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.video.times import VideoInfo

    info = VideoInfo(1.0, 8, 8, 2, 2.0)
    clip = EncodedClip(FrameFeatures(*_features()), np.array([[0, 1]]), np.array([[0.0, 0.5]]), info)
    FeatureCache(folder, _model()).put(KEY, clip)


def _found(folder: Path) -> Any:
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.video.pool import ClipRequest
    from zsar_cli.video.sampling import Sampling

    return FeatureCache(folder, _model()).get(KEY, ClipRequest("v.mp4", Sampling(2)))


def use_damaged_features(folder: Path) -> None:
    """Features come out as they went in, or not at all."""
    found = _found(folder)
    if found is not None:
        same = map(torch.equal, (found.features.embedding, found.features.tokens), _features())
        assert all(same), "damaged features were taken for sound ones"
        assert found.info.duration == 1.0
        assert found.indices.tolist() == [[0, 1]]


def forge_features(path: Path, rng: random.Random, marker: Path) -> str:
    """Other tensors, or other facts, with checksums that fit."""
    from zsar_cli.features.cache import _checksum, _checksum_of

    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors, about = load(content), json.loads(header["__metadata__"]["clip"])
    kind = rng.choice(("shape", "kind", "values", "gone", "about", "about", "tree", "long"))
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    if kind == "shape":
        shape = [rng.choice((0, 1, 2, 3, side, 300)) for side in tensor.shape][: rng.choice((1, 4, 4, 4))]
        tensors[name] = torch.ones(shape, dtype=torch.float16)
    elif kind == "kind":
        tensors[name] = tensor.to(rng.choice((torch.float32, torch.bfloat16, torch.int8, torch.bool)))
    elif kind == "values":
        tensors[name] = tensor * rng.choice((float("nan"), float("inf"), 65504.0))
    elif kind == "gone":
        tensors[name + "x"] = tensors.pop(name)
    elif kind == "about":
        about[rng.choice(sorted(about))] = rng.choice(ODD_VALUES)
    elif kind == "tree":
        _, about = damage_tree(about, rng)
    else:
        about["indices"] = [[0, 1]] * rng.choice((1000, 300_000))
    if isinstance(about, dict) and rng.random() < 0.9:
        about["checksums"] = {name: _checksum(tensor) for name, tensor in tensors.items()}
    text = json.dumps(about)
    save_file(tensors, path, {"clip": text, "checksum": _checksum_of(text)})
    return f"forged {kind}"


def use_forged_features(folder: Path) -> None:
    """What is taken for a video's features goes through the model."""
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.features.encoding import map_features

    model, found = _model(), _found(folder)
    if found is not None:
        assert 0 <= found.info.duration <= 1e9
        sound = _sound(folder.parent / "sound-features")
        both = [(KEY, clip) for clip in (found, sound)]
        with torch.no_grad():
            scores = map_features(
                model, both, lambda part, _: model.encode_video(part).embedding, FeatureCache(folder, model)
            )
        assert scores.shape == (2, 1, 16)


def _sound(folder: Path) -> Any:
    if not folder.is_dir():
        make_features(folder)
    return _found(folder)


def damage(path: Path, rng: random.Random, marker: Path) -> str:
    """Bytes."""
    kind, content = damage_bytes(path.read_bytes(), rng)
    path.write_bytes(content)
    return f"bytes {kind}"
