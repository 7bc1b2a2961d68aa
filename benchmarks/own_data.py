"""What training on classes of one's own brings: zero-shot, a linear probe and ``zsar train`` on three small data sets.

``make own-data`` (some ten minutes on two cores). Each set has 5 classes of 20 clips to learn from, a fifth of
which chooses the step and the probe's L2, and 20 clips a class to test on that choose nothing. The base model is
motion-tiny; each seed renders other clips and starts from other weights.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.own_videos import SETS, write_set
from benchmarks.report import processor

SEEDS = (0, 1, 2)
MODEL = "motion-tiny"
TRAIN, TEST = 20, 20  # clips a class


@dataclass(frozen=True)
class Result:
    """Top-1 on clips that chose nothing."""

    zero_shot: float
    probe: float
    trained: float


def measure(name: str, seed: int, folder: Path) -> Result:
    """Render a set, train on it, and test what came out."""
    from zsar_cli.data.dataset import load_dataset
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.load import load_model
    from zsar_cli.text.embeddings import embed_labels
    from zsar_cli.training import baselines, holdout
    from zsar_cli.video.pool import DecodePool

    data, run = folder / "data", folder / "run"
    write_set(name, data, train=TRAIN, val=TEST, seed=seed)
    (data / "val").rename(data / "test")
    command = [
        "train",
        "--data",
        str(data),
        "--model",
        MODEL,
        "--output",
        str(run),
        "--seed",
        str(seed),
    ]
    subprocess.run([sys.executable, "-m", "zsar_cli", "--quiet", *command], check=True)
    train, test = (load_dataset(data, split=split) for split in ("train", "test"))
    rest, held_out = holdout.hold_out(train.items, 0.2, seed=seed)
    base, trained = load_model(MODEL), load_model(str(run))
    cache = FeatureCache(folder / "features", base)
    with DecodePool(2) as pool:
        averages = [
            baselines.frame_averages(base, items, 8, pool, cache) for items in (rest, held_out, test.items)
        ]
        found = [
            holdout.top1(
                model, test.items, embed_labels(model, test.classes, bank=False), frames=8, pool=pool, batch_size=16,
                cache=cache,
            )
            for model in (base, trained)
        ]  # fmt: skip
    probe = baselines.linear_probe(averages[0], averages[1], len(test.classes))
    return Result(found[0], baselines.accuracy(probe, *averages[2]), found[1])


def table(results: dict[str, list[Result]]) -> str:
    """Markdown: the mean over the seeds, with the lowest and the highest."""

    def cell(values: list[float]) -> str:
        return f"{statistics.mean(values):.0%} ({min(values):.0%} to {max(values):.0%})"

    lines = ["| classes | zero-shot | linear probe | trained |", "|---|---|---|---|"]
    for name, found in results.items():
        columns = ([getattr(result, kind) for result in found] for kind in ("zero_shot", "probe", "trained"))
        lines.append(f"| {name} | " + " | ".join(map(cell, columns)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    options = parser.parse_args()
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            for name in options.sets:
                result = measure(name, seed, Path(folder, f"{name}-{seed}"))
                results.setdefault(name, []).append(result)
                print(f"{name}, seed {seed}: {result}", file=sys.stderr, flush=True)
    print(table(results))
    print(
        f"\nTop-1 on {5 * TEST} clips, mean of {len(options.seeds)} seeds (lowest to highest). {processor()}."
    )


if __name__ == "__main__":
    main()
