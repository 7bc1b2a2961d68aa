"""Starting several processes of one job, as people do with torchrun."""

from __future__ import annotations

import os
import subprocess
import sys


def torchrun(
    *arguments: object, count: int = 2, restarts: int = 0, timeout: float = 230, **options
) -> subprocess.CompletedProcess[str]:
    """``torchrun ARGUMENTS`` on this machine; ``-m zsar_cli COMMAND ...``, or a script."""
    return subprocess.run(
        [*command(count, restarts), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def command(count: int = 2, restarts: int = 0) -> list[str]:
    """How torchrun is called."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(count), "--max-restarts", str(restarts)),
    ]
