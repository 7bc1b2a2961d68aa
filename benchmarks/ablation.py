"""What each part of the method adds, on motion-shapes: the same small CLIP trained with and without it.

    python -m benchmarks.ablation            # every variant, 3 seeds; goes on where it was stopped
    python -m benchmarks.ablation --table    # only the tables of what is there

All variants start from the same weights (of their seed), see the same clips in the same order and take the same
number of steps: those of ``benchmarks/ablation.yaml``. The tables go to standard output and into ``--output``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.appearance import READ, chance, probe
from zsar_cli.resources import available_cores

HERE = Path(__file__).parent
# Every variant as the fields of the recipe that it changes; results are named by their place, so new ones go last.
VARIANTS: dict[str, dict[str, Any]] = {
    "frame average": {"parts": {"separation": False, "aggregation": False, "negatives": "none"}},
    "+ MSM": {"parts": {"aggregation": False, "negatives": "none"}},
    "+ MSM + MAB": {"parts": {"negatives": "none"}},
    "+ MSM + MAB + negatives (the whole method)": {},
    "whole, without MAB's gate": {"parts": {"gated": False}},
    "whole, negatives fixed": {"parts": {"negatives": "fixed"}},
    "whole, without L_dis": {"w_dis": 0.0},
}
BASELINE, WHOLE = (list(VARIANTS)[k] for k in (0, 3))
SEEDS = [0, 1, 2]
COLUMNS = ("seen", "unseen", "generalised", "shifted", "AUROC", "FPR95")


def run(variant: str, seed: int, output: Path, steps: int | None) -> None:
    """Train one variant with one seed and write its numbers to ``output``."""
    import torch

    from zsar_cli.model.load import load_model
    from zsar_cli.training.recipe import load_recipe
    from zsar_cli.training.run import Environment, run_training

    torch.set_num_threads(1)  # runs stand side by side, a core each
    recipe = load_recipe(str(HERE / "ablation.yaml"), seed=seed, steps=steps, **VARIANTS[variant])
    folder = output / "runs" / result_name(variant, seed)
    shutil.rmtree(folder, ignore_errors=True)
    summary = run_training(Environment(recipe, folder, checkpoint_every=recipe.steps or 1000))
    model = load_model(str(folder))
    model.record.name = variant
    numbers = measure(model) | {"loss": summary.loss, "minutes": summary.seconds / 60, "steps": summary.steps}
    (output / f"{result_name(variant, seed)}.json").write_text(json.dumps(numbers, indent=1))
    shutil.rmtree(folder)


def result_name(variant: str, seed: int) -> str:
    """The file of one run."""
    return f"{list(VARIANTS).index(variant)}-seed{seed}"


def measure(model: Any) -> dict[str, Any]:
    """The numbers of one model, each what ``zsar eval`` prints of it (the same clips, prompts and metrics)."""
    from zsar_cli.data import motion_shapes
    from zsar_cli.evaluation.inference import score_records
    from zsar_cli.evaluation.metrics import harmonic_mean
    from zsar_cli.evaluation.summary import detect_unknown, summarise
    from zsar_cli.text.embeddings import embed_labels

    clips = {split: embed_split(model, split) for split in ("seen", "unseen", "shifted", "neither")}
    everything = motion_shapes.class_labels("all")

    def records(split: str, labels: tuple[str, ...], order: str = "as they are") -> list[dict[str, Any]]:
        place = {label: number for number, label in enumerate(labels)}
        targets = [place.get(label, -1) for label, _ in motion_shapes.clip_ids(split)]
        return score_records(model, clips[split][order], targets, embed_labels(model, labels, bank=True))

    def top1(split: str, labels: tuple[str, ...]) -> float:
        return summarise(records(split, labels), labels)["top1"]

    unseen = motion_shapes.class_labels("unseen")
    ordered = [motion_shapes.find_class(label).needs_order for label, _ in motion_shapes.clip_ids("unseen")]
    unknown = detect_unknown(records("unseen", unseen), records("neither", unseen))
    return {
        "seen": top1("seen", motion_shapes.class_labels("seen")),
        "unseen": top1("unseen", unseen),
        "generalised": harmonic_mean(top1("seen", everything), top1("unseen", everything)),
        "shifted": top1("shifted", unseen),
        "AUROC": unknown["yes"]["auroc"],
        "FPR95": unknown["yes"]["fpr95"],
        "unknown": unknown,
        "probes": probe(model),
        "order": {
            order: float(
                np.mean([r["rank"] == 0 for r in np.array(records("unseen", unseen, order))[ordered]])
            )
            for order in ("as they are", "shuffled", "reversed", "one repeated")
        },
    }


def embed_split(model: Any, split: str) -> dict[str, Any]:
    """Video embeddings (clips, E) of a split: frames as they are, shuffled, reversed, and the middle one only."""
    import torch

    from zsar_cli.data import motion_shapes
    from zsar_cli.model.backbone import FrameFeatures

    ids, frames = motion_shapes.clip_ids(split), model.record.frames
    orders = {
        "as they are": lambda number: np.arange(frames),
        "shuffled": lambda number: np.random.default_rng([0, number]).permutation(frames),
        "reversed": lambda number: np.arange(frames)[::-1].copy(),
        "one repeated": lambda number: np.full(frames, frames // 2),
    }
    found: dict[str, list[Any]] = {name: [] for name in orders}
    with torch.no_grad():
        for start in range(0, len(ids), 32):
            numbers = range(start, min(start + 32, len(ids)))
            clips = [motion_shapes.render(*ids[n], split=split, frames=frames) for n in numbers]
            pixels = np.stack(clips)
            features = model.encode_frames(model.backbone.normalise(torch.from_numpy(pixels), torch.float32))
            rows = torch.arange(len(numbers))[:, None]
            for name, order in orders.items():
                places = torch.from_numpy(np.stack([order(n) for n in numbers]))
                shown = FrameFeatures(features.embedding[rows, places], features.tokens[rows, places])
                found[name].append(model.encode_video(shown).embedding)
    return {name: torch.cat(parts) for name, parts in found.items()}


# --- tables ---------------------------------------------------------------------------------------------------


def tables(output: Path, seeds: list[int]) -> str:
    """Markdown, over the runs of these seeds that are there.

    The variants, ways to say "unknown" of the whole method, and what the order of the frames is worth.
    """
    done: dict[str, list[dict[str, Any]]] = {}
    for variant in VARIANTS:
        files = [output / f"{result_name(variant, seed)}.json" for seed in seeds]
        done[variant] = [json.loads(file.read_text()) for file in files if file.exists()]
    lines = [
        "| | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
        *(
            f"| {variant} | " + " | ".join(cell([run[c] for run in runs]) for c in COLUMNS) + " |"
            for variant, runs in done.items()
            if runs
        ),
    ]
    whole = done[WHOLE]
    if whole:
        lines += ["", "| `unknown` of the whole method by | AUROC | FPR95 |", "|---|---:|---:|"]
        names = {
            "yes": "negative prompts (what `predict` answers)",
            "softmax": "max softmax",
            "energy": "energy",
            "bank": "phrase bank",
        }
        for kind, name in names.items():
            runs = [run["unknown"][kind] for run in whole if kind in run["unknown"]]
            lines.append(
                f"| {name} | {cell([r['auroc'] for r in runs])} | {cell([r['fpr95'] for r in runs])} |"
            )
        lines += ["", "| unseen classes that order tells apart | " + " | ".join(whole[0]["order"]) + " |"]
        lines.append("|---|" + "---:|" * len(whole[0]["order"]))
        for variant in (BASELINE, WHOLE):
            cells = [cell([run["order"][order] for run in done[variant]]) for order in whole[0]["order"]]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    lines += probe_table(done)
    count = max((len(runs) for runs in done.values()), default=0)
    steps = next((runs[0]["steps"] for runs in done.values() if runs), 0)
    spread = f"mean ± standard deviation over {count} seeds" if count > 1 else "of one seed only"
    lines += ["", f"Percent, {spread}, {steps} steps each."]
    return "\n".join(lines)


def probe_table(done: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What linear probes read from motion and static embeddings, of the variants that have them."""
    rows = {name: runs for name, runs in done.items() if any(run.get("probes") for run in runs)}
    if not rows:
        return []
    lines = ["", "| a linear probe reads | " + " | ".join(READ) + " |", "|---|" + "---:|" * len(READ)]
    for name, runs in rows.items():
        cells = [cell([run["probes"][what] for run in runs if what in run["probes"]]) for what in READ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "| the most frequent answer | " + " | ".join(cell([v]) for v in chance().values()) + " |"]


def cell(values: list[float]) -> str:
    """Mean and spread in percent."""
    if not values:
        return "–"
    spread = f" ± {100 * np.std(values):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=HERE / "results" / "ablation")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, help="Other than the recipe's, to try things out.")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--table", action="store_true", help="Only print the tables of what is there.")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.table:
        missing = [
            (variant, seed, options.output, options.steps)
            for seed in options.seeds
            for variant in VARIANTS
            if not (options.output / f"{result_name(variant, seed)}.json").exists()
        ]
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for job in [pool.apply_async(run, task) for task in missing]:
                job.get()
    text = tables(options.output, options.seeds)
    (options.output / "ablation.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
