"""Number and waiting policy of OpenMP threads, which must be set before torch is imported."""

from __future__ import annotations

import os

from zsar_cli.resources import affinity, available_cores

SPINS = "3000"  # some 20 microseconds: where nothing else runs, others are seldom longer behind
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}  # of the user's own choice


def set_up_threads() -> None:
    """Limit threads to the cores of this process, and make them sleep at long barriers.

    OpenMP respects the affinity, but neither a container's quota nor the other processes of torchrun. By default,
    its threads spin for milliseconds at a barrier: if other work preempts one thread, the spinning ones use up the
    time that it needs.
    """
    if not WAITING & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS  # GNU's OpenMP, which comes with torch on Linux
        os.environ["KMP_BLOCKTIME"] = "0"  # Intel's and LLVM's
    cores = available_cores()
    if cores < affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
