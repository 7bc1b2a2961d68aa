"""How many threads torch takes, and how they wait for each other: settings that OpenMP reads as torch is imported."""

from __future__ import annotations

import os

from zsar_cli.resources import affinity, available_cores

SPINS = "3000"  # some 20 microseconds: where nothing else runs, others are seldom longer behind
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}  # of the user's own choice


def set_up_threads() -> None:
    """Stay within the cores that this process is given, and sleep where a thread waits long.

    OpenMP knows the affinity, but neither a container's quota nor the other processes of torchrun. And by its default
    a thread that has done its part spins for milliseconds until the others have: where somebody else's work holds up
    one of them, the rest burn the time that it would need.
    """
    if not WAITING & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS  # GNU's OpenMP, which comes with torch on Linux
        os.environ["KMP_BLOCKTIME"] = "0"  # Intel's and LLVM's
    cores = available_cores()
    if cores < affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
