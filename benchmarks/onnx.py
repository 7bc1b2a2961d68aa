"""How near the answers of an exported folder are to those of ``zsar predict``, in an environment without zsar.

    python -m benchmarks.onnx VIDEO ... [--model motion-tiny] [--labels camera] [--precision fp32] [--venv DIR]
    python -m benchmarks.onnx --families

The first makes an empty environment with onnxruntime, numpy and av (from the package index; ``--venv`` takes one that
is there), exports the model, runs ``run.py`` there and ``zsar predict --window 0`` here, and prints the largest
difference of scores, yes and unknown of each video.

The second exports each published family, small and with random weights, in each form that there is, and prints the
largest difference of an output from the model's own on random frames, or why there is no such form. VideoPrism and
PE-AV need transformers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks.report import machine

PACKAGES = ("onnxruntime", "numpy", "av")
FORMS = {"fp32": {}, "--labels-as-input": {"labels_as_input": True}, "int8": {"precision": "int8"}}


def zsar(*arguments: object) -> str:
    command = [sys.executable, "-m", "zsar_cli", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return done.stdout


def environment(folder: Path) -> Path:
    """Make an environment with three packages; its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def records(lines: str) -> dict[str, dict]:
    found = (json.loads(line) for line in lines.splitlines())
    return {record["video"]: record for record in found if "predictions" in record}


def difference(ours: dict, theirs: dict) -> float:
    """The largest of the scores and yes of the labels that both name, and of unknown."""
    known = {found["label"]: found for found in theirs["predictions"]}
    pairs = [(ours["unknown"], theirs["unknown"])]
    for found in ours["predictions"]:
        if other := known.get(found["label"]):
            pairs += [(found[key], other[key]) for key in ("score", "yes")]
    return max(abs(a - b) for a, b in pairs)


def family_models(folder: Path) -> Iterator[tuple[str, str, str | None]]:
    """Write a file of each published family; its name, the model and the CLIP that it was trained from."""
    import torch

    from tests import published_files as files
    from tests import transformers_models
    from zsar_cli.model.published.records import families

    vectors = torch.nn.functional.normalize(files.draw("labels", (5, 64)), dim=-1)
    base = folder / "base.pt"
    for family, record in families().items():
        if record.transformers is None:
            torch.save(files.tcclip_state()[0] if family == "tcclip" else files.clip(), base)
            path = files.write(folder, family, files.content(family, vectors))
            yield family, f"{family}:{path}", str(base)
        elif find_spec("transformers") is not None:
            transformers_models.make(family, folder / family)
            yield family, f"{family}:{folder / family}", None


def export_families() -> None:
    """Export each published family in each form, and print a row for it."""
    from tests.published_files import LABELS
    from zsar_cli.errors import UsageError
    from zsar_cli.export.folder import ExportOptions, export_folder
    from zsar_cli.recognizer import Recognizer

    print(f"\n| family | T | {' | '.join(FORMS)} |\n|---|---|{'---|' * len(FORMS)}")
    with tempfile.TemporaryDirectory(prefix="zsar-bench-") as name:
        for family, model, base in family_models(Path(name)):
            recognizer = Recognizer.load(model, device="cpu", precision="fp32", backbone=base)
            embeddings = recognizer.embed_labels(LABELS, negatives=True)
            out, frames, cells = Path(name) / "out", "", []
            for form in FORMS.values():
                asked = ExportOptions(**form)
                try:
                    found = export_folder(recognizer.model, embeddings, out, asked, overwrite=True)
                    frames = frames or ("free" if found.free_frames else "fixed")
                    cells.append(f"{found.difference:.1e}")
                except UsageError as error:
                    cells.append(f"no: {str(error).replace(model, family)}")
            print(f"| {family} | {frames} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--families", action="store_true", help="export each published family instead")
    parser.add_argument("--model", default="motion-tiny")
    parser.add_argument("--labels", default="camera")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"])
    parser.add_argument("--venv", type=Path, help="an environment that has the three packages")
    asked = parser.parse_args()
    print(machine())
    if asked.families:
        export_families()
        return
    if not asked.videos:
        parser.error("name some videos, or --families")
    with tempfile.TemporaryDirectory(prefix="zsar-bench-") as name:
        folder = Path(name)
        python = asked.venv / "bin" / "python" if asked.venv else environment(folder / "venv")
        about = ("--model", asked.model, "--labels", asked.labels)
        zsar("embed-prompts", *about, "--onnx", folder / "out", "--precision", asked.precision)
        run = subprocess.run(
            [python, "-I", folder / "out" / "run.py", *asked.videos],
            check=False,
            capture_output=True,
            text=True,
        )
        ours = records(run.stdout)
        theirs = records(zsar("predict", *asked.videos, *about, "--window", "0", "--format", "jsonl"))
    print(
        f"\n| video | answer of run.py ({asked.precision}) | same top-1 | largest difference |\n|---|---|---|---|"
    )
    worst = 0.0
    for video in asked.videos:
        if video not in ours or video not in theirs:
            print(
                f"| {Path(video).name} | read by predict: {video in theirs}, by run.py: {video in ours} | | |"
            )
            continue
        found, best = difference(ours[video], theirs[video]), ours[video]["predictions"][0]
        worst = max(worst, found)
        same = best["label"] == theirs[video]["predictions"][0]["label"]
        print(
            f"| {Path(video).name} | {best['label']} {best['score']:.4f} | {'yes' if same else 'NO'} | {found:.1e} |"
        )
    print(f"\nLargest difference: {worst:.1e}")


if __name__ == "__main__":
    main()
