"""Put what the commands print into the docs.

    python -m benchmarks.readme

That is motion-tiny's evaluation (``zsar eval --precision fp32``, some two minutes), the ablation's complete seeds
(from ``benchmarks/results/ablation``), and the table of ``python -m benchmarks.prompts``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import prompts
from benchmarks.ablation import SEEDS, VARIANTS, result_name, tables

ROOT = Path(__file__).resolve().parent.parent
METHOD = ROOT / "docs" / "method.md"
PROMPTS = ROOT / "docs" / "prompts.md"
ABLATION = ROOT / "benchmarks" / "results" / "ablation"


def main() -> None:
    """Rewrite the blocks between the pages' marks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "zsar_cli", "eval", "--precision", "fp32", "--output", folder]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        results = json.loads((Path(folder) / "results.json").read_text())
    replace_block(METHOD, "motion-tiny", evaluation_table(results))
    whole = [s for s in SEEDS if all((ABLATION / f"{result_name(v, s)}.json").exists() for v in VARIANTS)]
    if whole:
        replace_block(METHOD, "ablation", tables(ABLATION, whole))
    replace_block(PROMPTS, "templates", prompts.table())


def evaluation_table(results: dict[str, Any]) -> str:
    """What ``zsar eval`` printed, as Markdown."""
    lines = ["| clips of | among | clips | top-1 | 95% CI |", "|---|---|---:|---:|---:|"]
    for name, part in results["parts"].items():
        low, high = part["top1_interval95"]
        lines.append(
            f"| {name.removesuffix(' of all')} classes | {part['classes']} labels | {part['videos']} "
            f"| {100 * part['top1']:.1f} | {100 * low:.1f}-{100 * high:.1f} |"
        )
    yes = results["open_set"]["scores"]["yes"]
    lines += [
        "",
        f"Harmonic mean of seen and unseen among all labels: {100 * results['summary']['harmonic_mean']:.1f}. "
        f"`unknown` of clips whose label is in no list, against unseen ones: AUROC {100 * yes['auroc']:.1f}, "
        f"FPR at TPR 0.95 {100 * yes['fpr95']:.1f}.",
    ]
    return "\n".join(lines)


def replace_block(page: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name -->`` and ``<!-- /name -->``."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    page.write_text(f"{before}{start}{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
