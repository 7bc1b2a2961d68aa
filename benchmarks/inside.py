"""Where the time of one video goes, and what the caches save; measured within this process."""

from __future__ import annotations

import shutil
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Figure, interleaved

if TYPE_CHECKING:
    from benchmarks.__main__ import Setup
    from benchmarks.report import Results


def measure(setup: Setup, results: Results) -> None:
    """Decode, transform, tower, MSM + MAB and text, a video of 8 frames."""
    import torch

    from zsar_cli.features.encoding import encode_pixels
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.labels import load_labels
    from zsar_cli.video.decode import read_frames
    from zsar_cli.video.pool import ClipRequest, load_clip
    from zsar_cli.video.sampling import segment_indices
    from zsar_cli.video.transforms import resize_and_crop

    recognizer = Recognizer.load(setup.motion)
    model, text = recognizer.model, load_labels(None, ["arm wrestling", "tai chi"])
    small, large = setup.turns[0][0], setup.turns[0][-1]

    def decode(path: str) -> Any:
        return read_frames(path, lambda count: segment_indices(count, 8).tolist())

    frames = {path: decode(path).frames for path in (small, large)}
    pixels = torch.from_numpy(load_clip(ClipRequest(small, preprocess=model.preprocess)).pixels)
    with torch.inference_mode():
        features = encode_pixels(model, pixels)
        figures = interleaved(
            {
                "decode, 320x240": lambda: decode(small),
                "decode, 1920x1080": lambda: decode(large),
                "resize and crop, 320x240": lambda: resize_and_crop(frames[small], model.preprocess),
                "resize and crop, 1920x1080": lambda: resize_and_crop(frames[large], model.preprocess),
                "normalise": lambda: model.backbone.normalise(pixels),
                "visual tower": lambda: encode_pixels(model, pixels),
                "MSM + MAB": lambda: model.encode_video(features),
                "text tower, a prompt": lambda: model.backbone.encode_text(["a video of tai chi"] * 16),
            },
            setup.rounds,
        )
        figures["text tower, a prompt"].values[:] = [v / 16 for v in figures["text tower, a prompt"].values]
        side = recognizer.embed_labels(text)
        figures |= interleaved(
            {
                "scores": lambda: model.score(
                    model.encode_video(features).embedding, side.positive, side.negative
                )
            },
            setup.rounds,
        )
    results.table(
        "where the time of a video goes: the whole method on ViT-B/16, 8 frames, milliseconds",
        ["", f"ms, in {model.backbone.precision}"],
        [[name, Figure([1000 * v for v in figure.values]).text(1)] for name, figure in figures.items()],
        dict(figures),
    )
    share = 100 * figures["MSM + MAB"].median / figures["visual tower"].median
    results.ratio("MSM + MAB, % of the tower's time", share, at_most=8)


def measure_caches(setup: Setup, results: Results) -> None:
    """A second predict with the same labels, and with other labels on the same videos."""
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.prediction.clips import ClipOptions
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.resources import default_workers
    from zsar_cli.text.cache import TextCache
    from zsar_cli.text.embeddings import embed_prompts
    from zsar_cli.text.labels import Labels
    from zsar_cli.text.templates import load_templates
    from zsar_cli.video.pool import DecodePool

    folder = tempfile.mkdtemp(prefix="features", dir=setup.work)
    recognizer = Recognizer.load(setup.motion)
    recognizer.cache = FeatureCache(folder, recognizer.model)
    paths = [path for turn in setup.turns for path in turn][:: 8 if setup.quick else 1][:64]

    def names(start: int, count: int) -> Labels:
        labels = tuple(f"doing thing number {start + k}" for k in range(count))
        return Labels(labels, tuple((label,) for label in labels))

    def ask(number: int) -> float:
        start = time.perf_counter()
        with DecodePool(default_workers()) as pool:
            side = recognizer.embed_labels(names(1000 * number, 5))
            found = list(recognizer.run(paths, side, pool, ClipOptions()))
        assert len(found) == len(paths)
        return time.perf_counter() - start

    every, paths = paths, paths[:4]
    ask(0)  # what only the first call of all costs is not to count against the videos
    paths = every
    shutil.rmtree(folder)
    recognizer.cache = FeatureCache(folder, recognizer.model)
    first = Figure([ask(1)])
    again = Figure([ask(2 + k) for k in range(setup.rounds)])
    added = recognizer.cache.added_bytes / max(1, recognizer.cache.added) / 1e6

    texts, templates = TextCache(tempfile.mkdtemp(prefix="texts", dir=setup.work)), load_templates("kinetics")
    labels = names(0, 40 if setup.quick else 400)

    def embed() -> float:
        start = time.perf_counter()
        backbone = recognizer.model.backbone
        embed_prompts(backbone.encode_text, labels, templates, negatives=True, cache=texts)
        return time.perf_counter() - start

    text_first, text_again = Figure([embed()]), Figure([embed() for _ in range(setup.rounds)])
    rows = {
        f"{len(paths)} videos, the first time": first,
        f"{len(paths)} videos from --cache, other labels": again,
        f"{len(labels.names)} labels, kinetics templates, the first time": text_first,
        f"{len(labels.names)} labels, kinetics templates, again": text_again,
    }
    results.table(
        "asking again, loading aside: the whole method on ViT-B/16, 8 frames, seconds",
        ["", "seconds"],
        [[name, figure.text(3)] for name, figure in rows.items()],
        dict(rows),
    )
    results.note(f"--cache takes {added:.1f} MB a video here.")
    results.ratio("cached videos with other labels", first.median / again.median, at_least=20)
    results.ratio("the same labels again", text_first.median / text_again.median, at_least=5)
    shutil.rmtree(folder)
