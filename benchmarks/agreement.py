"""How near the answers of ONNX Runtime, in fp32 and in int8, are to those of torch in fp32.

    python -m benchmarks.agreement [VIDEO ...] [--avx2] [--quick]

Three tables: motion-tiny on the clips of the unseen classes of motion-shapes; small towers of every kind and every
published family, with random weights, on some of these clips; and on videos, motion-tiny and a random ViT-B/16.

``--avx2`` computes as on a processor that has AVX2 and no VNNI. torch and its libraries use no newer instructions then;
ONNX Runtime cannot be told so. int8 is quantized as on such a processor: a bit is left out, and no sum of two products
overflows 16 bits. So its sums are whole numbers that both kinds of instructions give alike.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from benchmarks.material import WORK, embed_pixels, make_clip_model, rendered
from benchmarks.report import machine, table_lines

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from benchmarks.__main__ import Setup
    from benchmarks.report import Results
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.labels import Labels
    from zsar_cli.video.transforms import Preprocess

    Clips = Callable[[Preprocess], Sequence[np.ndarray]]  # as a model sees them: arrays of (n, T, h, w, 3)

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
HEADER = [
    "model",
    "precision",
    "runs in",
    "least cosine",
    "same top-1, %",
    "largest difference of a score",
    "on average",
]


@dataclass(frozen=True)
class Answers:
    """What a model makes of V clips: embeddings (V, E) and scores (V, C)."""

    embeddings: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Agreement:
    """Two models' answers beside each other: cosine of embeddings, top-1, differences of scores.

    ``apart`` is how far apart the scores of two labels were in fp32 that changed places at the top, at most.
    """

    cosine: float
    same: float
    apart: float
    difference: float
    average: float

    def cells(self) -> list[str]:
        same = f"{self.same:.2f}" + (f" (else {self.apart:.1e} apart)" if self.same < 100 else "")
        return [f"{self.cosine:.7f}", same, f"{self.difference:.1e}", f"{self.average:.1e}"]


def answers(model: RecognizerModel, clips: Clips, labels: Labels) -> Answers:
    """Ask a model about clips."""
    import torch

    from zsar_cli.text.embeddings import embed_labels
    from zsar_cli.text.templates import default_templates

    with torch.no_grad():
        side = embed_labels(model, labels, default_templates(model), bank=False)
        video = embed_pixels(model, clips(model.preprocess))
        scores = model.score(video, side.positive, side.negative).logits.float().softmax(-1)
        return Answers(model.video_vectors(video).flatten(1).double(), scores)


def agreement(found: Answers, exact: Answers) -> Agreement:
    """Compare answers with those of torch in fp32."""
    from torch.nn.functional import cosine_similarity

    difference = (found.scores - exact.scores).abs()
    best = found.scores.argmax(-1)
    apart = exact.scores.amax(-1) - exact.scores.gather(-1, best[:, None])[:, 0]
    return Agreement(
        cosine_similarity(found.embeddings, exact.embeddings).min().item(),
        100 * (best == exact.scores.argmax(-1)).float().mean().item(),
        apart.max().item(),
        difference.max().item(),
        difference.mean().item(),
    )


def in_precision(model: RecognizerModel, precision: str) -> RecognizerModel:
    """Copy a model in fp32, as it runs in this precision: in fp32 in ONNX Runtime, if its tower has a graph."""
    model = deepcopy(model)
    model.backbone.set_precision(precision, fine=model.parts.separation)
    model.backbone.use_engine()
    return model


def compare(
    model: RecognizerModel, clips: Clips, labels: Labels, precisions: Sequence[str]
) -> Iterator[tuple[str, str, Agreement]]:
    """Compare each precision that a model has with torch in fp32: its name, what it ran in, and how they agree."""
    exact = answers(model, clips, labels)
    for precision in precisions:
        if precision == "int8" and not model.backbone.takes_int8:
            continue
        with engine_from_the_first_frame():
            other = in_precision(model, precision)
            found = answers(other, clips, labels)
        loaded = other.backbone._engine is not None and other.backbone._engine._tower is not None
        yield precision, "ONNX Runtime" if loaded else "torch", agreement(found, exact)


@contextmanager
def engine_from_the_first_frame() -> Iterator[None]:
    """Let ONNX Runtime run the tower at once, from graphs that are made anew."""
    from zsar_cli.model import onnx_engine

    with (
        tempfile.TemporaryDirectory(prefix="zsar-graphs-") as folder,
        mock.patch.dict(os.environ, ZSAR_CACHE_DIR=folder),
        mock.patch.multiple(onnx_engine, LOADED_AFTER=0, TRACED_AFTER=0),
    ):
        yield


def rows_of(name: str, model: RecognizerModel, clips: Clips, labels: Labels) -> list[list[str]]:
    """Make a table's rows of a model."""
    found = compare(model, clips, labels, ["fp32", "int8"])
    return [[name, precision, where, *agrees.cells()] for precision, where, agrees in found]


# --- models and clips


def bundled() -> dict[str, RecognizerModel]:
    """Load motion-tiny, and its backbone as a plain CLIP."""
    from zsar_cli.model.load import load_model
    from zsar_cli.model.zsar import RecognizerModel

    plain = RecognizerModel(load_model("motion-tiny").backbone).eval()
    return {"motion-tiny": load_model("motion-tiny"), "motion-tiny without motion": plain}


def random_models(folder: Path) -> Iterator[tuple[str, RecognizerModel]]:
    """Make small models with random weights: every kind of tower, and every published family."""
    from tests import published_files, tiny_models
    from zsar_cli.model.published.records import families
    from zsar_cli.model.zsar import RecognizerModel, TrainingRecord

    for tower in tiny_models.TOWERS:
        backbone = tiny_models.tiny_backbone(tower)
        yield tower, RecognizerModel(backbone, record=TrainingRecord(templates="plain")).eval()
    load = published_files.loader(folder)
    for family in published_files.EXPECTED:
        model = load(family).eval()
        model.record.templates = families()[family].templates
        yield families()[family].title, model


def unseen(step: int = 1) -> tuple[int, Clips]:
    """Render every ``step``-th clip of the unseen classes of motion-shapes; gives how many there are too."""
    from zsar_cli.data import motion_shapes

    ids = motion_shapes.clip_ids("unseen")[::step]
    return len(ids), cache(lambda preprocess: list(rendered(ids, "unseen", 8, preprocess)))


def of_videos(paths: Sequence[str]) -> Clips:
    """Take a clip of each video, 8 frames."""
    from zsar_cli.video.pool import ClipRequest, load_clip

    def clips(preprocess: Preprocess) -> list[np.ndarray]:
        return [load_clip(ClipRequest(path, preprocess=preprocess)).pixels for path in paths]

    return cache(clips)


def readable(paths: Sequence[str]) -> list[str]:
    """Leave out the videos that cannot be read, and say so."""
    from zsar_cli.errors import VideoError
    from zsar_cli.video.pool import ClipRequest, load_clip

    kept = []
    for path in paths:
        try:
            load_clip(ClipRequest(path))
            kept.append(path)
        except VideoError as error:
            print(f"{path}: {error}", file=sys.stderr)
    return kept


# --- tables


def measure(setup: Setup, results: Results) -> None:
    """Whether motion-tiny, and its backbone as plain CLIP, answer as in fp32 on the unseen classes of motion-shapes."""
    from zsar_cli.data import motion_shapes
    from zsar_cli.model.onnx_engine import runtime_installed
    from zsar_cli.text.labels import load_labels

    labels = load_labels(None, motion_shapes.class_labels("unseen"))
    count, clips = unseen(8 if setup.quick else 1)
    precisions = ["fp32", "int8", "bf16", "fp16"] if runtime_installed() else ["bf16", "fp16"]
    rows = []
    for name, model in bundled().items():
        for precision, where, agrees in compare(model, clips, labels, precisions):
            rows.append([name, precision, where, *agrees.cells()])
            if precision == "int8":
                results.ratio(f"{name} in int8: same top-1 as in fp32, %", agrees.same, at_least=99)
                results.ratio(
                    f"{name} in int8: largest difference of a score", agrees.difference, at_most=0.01
                )
    results.table(
        f"lower precisions against fp32: {count} clips of the unseen classes of motion-shapes",
        HEADER,
        rows,
        {"rows": rows},
    )


def tables(videos: Sequence[str], quick: bool, work: Path) -> Iterator[str]:
    """Yield the lines of each table."""
    from tests.published_files import LABELS
    from zsar_cli.data import motion_shapes
    from zsar_cli.model.load import load_model
    from zsar_cli.text.labels import load_labels

    labels = load_labels(None, motion_shapes.class_labels("unseen"))
    count, clips = unseen(54 if quick else 1)
    models = bundled()
    rows = [row for name, model in models.items() for row in rows_of(name, model, clips, labels)]
    yield from table_lines(f"{count} clips of the unseen classes of motion-shapes", HEADER, rows)

    labels, (count, clips) = load_labels(None, LABELS), unseen(54)
    with tempfile.TemporaryDirectory(prefix="zsar-models-") as folder:
        rows = [
            row for name, model in random_models(Path(folder)) for row in rows_of(name, model, clips, labels)
        ]
    yield from table_lines(f"{count} of these clips: small models with random weights", HEADER, rows)

    if kept := readable(videos):
        clips = of_videos(kept)
        large = load_model(str(make_clip_model(work / "vit-b-16")))
        rows = rows_of("motion-tiny", models["motion-tiny"], clips, labels)
        rows += rows_of("ViT-B/16, random weights", large, clips, labels)
        yield from table_lines(f"{len(kept)} videos", HEADER, rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", metavar="VIDEO")
    parser.add_argument("--avx2", action="store_true", help="compute as a processor without VNNI does")
    parser.add_argument("--quick", action="store_true", help="12 clips of motion-shapes instead of all 648")
    parser.add_argument("--work", type=Path, default=WORK, help="where the random ViT-B/16 is kept")
    asked = parser.parse_args()
    if asked.avx2:
        os.environ |= AVX2  # before torch is imported
    about = machine()
    from onnxruntime import __version__ as runtime

    from zsar_cli.model import onnx_engine

    wide = onnx_engine.adds_in_32_bits() and not asked.avx2
    limited = ", limited to AVX2" if asked.avx2 else ""
    print(f"{about['cpu']}{limited}; torch {about['torch']}, ONNX Runtime {runtime}\n")
    with mock.patch.object(onnx_engine, "adds_in_32_bits", return_value=wide):
        for line in tables(asked.videos, asked.quick, asked.work):
            print(line, flush=True)


if __name__ == "__main__":
    main()
