"""``make fuzz``: thousands of damaged files; prints the counts, and every defect with the case that shows it."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.files import fuzz_files
from tests.fuzz.models import fuzz_models
from tests.fuzz.videos import Findings, fuzz_videos

MEMORY = 12_000_000_000  # bytes of addresses, after which a case counts as a defect


def main() -> int:
    """Run both, print, and exit with 1 where there was a defect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2500, help="damaged videos")
    parser.add_argument("--files", type=int, default=5200, help="damaged text and tensor files")
    parser.add_argument(
        "--models", type=int, default=3000, help="model folders, weights and recipes made to do harm"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides every case")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes")
    parser.add_argument("--keep", type=Path, help="folder for the cases that showed a defect")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    logging.getLogger("zsar_cli").setLevel(logging.ERROR)  # what is damaged is told of, thousands of times
    with tempfile.TemporaryDirectory(prefix="zsar-fuzz-") as scratch:
        folder = options.keep or Path(scratch)
        os.environ["ZSAR_CACHE_DIR"] = str(Path(scratch) / "cache")
        defects = 0
        for name in ("files", "models", "videos"):
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            before = time.monotonic()
            if name == "videos":
                from tests.tiny_models import make_tiny_clip

                model = make_tiny_clip(Path(scratch) / "clip")
                found = fuzz_videos(model, place, options.videos, options.seed, workers=options.workers)
            elif name == "models":
                found = fuzz_models(place, options.models, options.seed)
            else:
                found = fuzz_files(place, options.files, options.seed)
            _report(name, found, options.seed, time.monotonic() - before)
            defects += len(found.defects)
    return 1 if defects else 0


def _report(name: str, found: Findings, seed: int, seconds: float) -> None:
    print(
        f"{name}: {found.cases} damaged (seed {seed}) in {seconds:.0f} s, {len(found.defects)} defects",
        flush=True,
    )
    for outcome, count in found.outcomes.most_common():
        print(f"  {count:6d}  {outcome}")
    print(f"  slowest: {found.slowest[0]:.1f} s, {os.path.basename(found.slowest[1])}")
    for defect in found.defects:
        print(f"  DEFECT {defect}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
