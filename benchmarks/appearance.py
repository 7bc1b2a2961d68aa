"""How well motion and appearance are separated: what linear probes read from a model's motion and static embeddings.

    python -m benchmarks.appearance motion-tiny      # or a folder of zsar train

The clips are those of motion-shapes with one shape; each shows one of 8 backgrounds and one of 4 outlines, whatever it
does. A logistic regression is fitted to half of the clips and its accuracy taken on the others.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from zsar_cli.data import motion_shapes

CLIPS, BACKGROUNDS = 1200, 8
OUTLINES = ("disc", "square", "triangle", "cross")
# What is read, from which embedding: MSM's motion tokens, MAB's queries, MSM's static tokens
READ = {
    "background from motion": ("motion", "background"),
    "shape from motion": ("motion", "shape"),
    "background after MAB": ("refined", "background"),
    "shape after MAB": ("refined", "shape"),
    "movement after MAB": ("refined", "movement"),
    "movement from static": ("static", "movement"),
}


class _WithOutline:
    """A random generator whose one choice between names is made already: the shape's outline."""

    def __init__(self, draws: np.random.Generator, outline: str) -> None:
        self._draws, self._outline = draws, outline

    def choice(self, options: list[Any]) -> Any:
        return self._outline if isinstance(options[0], str) else self._draws.choice(options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draws, name)


def draw(
    kind: motion_shapes.MotionClass, background: int, outline: str, seed: int, frames: int
) -> np.ndarray:
    """A clip of a class before a certain background, its shape of a certain outline: (frames, 48, 48, 3) uint8."""
    style, size = motion_shapes.PLAIN, motion_shapes.SIZE
    draws: Any = _WithOutline(np.random.default_rng([1, seed]), outline)
    t = ((np.arange(frames) + 0.5) / frames).astype(np.float32)
    speed = np.float32(draws.uniform(*style.speed))
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    screen_y, screen_x = np.meshgrid(axis, axis, indexing="ij")
    pan_x, pan_y, zoom = (move[:, None, None] for move in motion_shapes._camera(kind.second, t, speed, draws))
    x, y = screen_x[None] * zoom + pan_x, screen_y[None] * zoom + pan_y
    image = motion_shapes._background(x[:, 0], y[:, :, 0], style, np.random.default_rng([2, background]))
    for body in motion_shapes._bodies(kind, t, speed, style, draws):
        cover, colour = body(x, y, 2 / size * zoom)
        image += cover[..., None] * (colour - image)
    image += draws.normal(0, 0.01, image.shape[:3]).astype(np.float32)[..., None]
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, dtype=np.uint8)


def probe_clips(count: int, frames: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw clips, and what each shows: its background, its shape, and the first part of its class."""
    kinds = [kind for kind in motion_shapes.classes() if kind.subject == "shape"]
    rng = np.random.default_rng(0)
    classes, backgrounds, outlines = (
        rng.integers(n, size=count) for n in (len(kinds), BACKGROUNDS, len(OUTLINES))
    )
    movements = [kind.first for kind in kinds]
    clips = np.stack(
        [
            draw(kinds[c], b, OUTLINES[o], n, frames)
            for n, (c, b, o) in enumerate(zip(classes, backgrounds, outlines, strict=True))
        ]
    )
    return clips, {"background": backgrounds, "shape": outlines, "movement": np.array(movements)[classes]}


def probe(model: Any, count: int = CLIPS) -> dict[str, float]:
    """Accuracy of each probe of READ, from 0 to 1; none of a model without MSM."""
    if model.msm is None:
        return {}
    clips, shown = probe_clips(count, model.frames)
    found = _embeddings(model, clips)
    return {
        name: _accuracy(found[embedding], shown[what])
        for name, (embedding, what) in READ.items()
        if embedding != "refined" or model.mab is not None
    }


def chance(count: int = CLIPS) -> dict[str, float]:
    """Accuracy of the most frequent answer to each."""
    shown = probe_clips(count, 1)[1]
    most = {
        what: float(np.unique(values, return_counts=True)[1].max() / count) for what, values in shown.items()
    }
    return {name: most[what] for name, (_, what) in READ.items()}


def _embeddings(model: Any, clips: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    found: dict[str, list[Any]] = {"motion": [], "refined": [], "static": []}
    with torch.no_grad():
        for part in np.array_split(clips, -(-len(clips) // 64)):
            encoding = model(model.backbone.normalise(torch.from_numpy(part), torch.float32))
            for name, parts in found.items():
                parts.append(getattr(encoding, name))
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def _accuracy(embeddings: np.ndarray, answers: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    half = len(answers) // 2
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(probe.fit(embeddings[:half], answers[:half]).score(embeddings[half:], answers[half:]))


def main() -> None:
    """Print what probes read from one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="motion-tiny")
    from zsar_cli.model.load import load_model

    found, most = probe(load_model(parser.parse_args().model)), chance()
    print("| a linear probe reads | accuracy | chance |\n|---|---:|---:|")
    for name, accuracy in found.items():
        print(f"| {name} | {100 * accuracy:.1f} | {100 * most[name]:.1f} |")


if __name__ == "__main__":
    main()
