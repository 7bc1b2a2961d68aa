"""The picture and the figures of docs/thresholds.md: what each ``--min-confidence`` gives, on motion-shapes.

python -m benchmarks.thresholds
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from zsar_cli.evaluation.report import read_records
from zsar_cli.evaluation.thresholds import figure, judged_records
from zsar_cli.plots import save

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "thresholds.png"


def main() -> None:
    """Evaluate the bundled model on known and unknown clips, print its bounds and draw them."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["eval", "--model", "motion-tiny", "--data", "motion-shapes", "--protocol", "open-set"]
        command += ["--precision", "fp32", "--output", folder]
        subprocess.run([sys.executable, "-m", "zsar_cli", *command], check=True)
        records = read_records(Path(folder))
        print(json.dumps(json.loads((Path(folder) / "results.json").read_text())["thresholds"], indent=2))
    answers = judged_records([*records["known"], *records["unknown"]])
    save(figure(answers, "motion-tiny on clips of 27 unseen classes, and of classes in no list"), PICTURE)
    print(f"Written to {PICTURE}.")


if __name__ == "__main__":
    main()
