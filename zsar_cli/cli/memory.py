"""How the C library hands out memory, for commands that run a tower on the CPU over and over."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next batch; elsewhere this does nothing.

    As it comes, it gives the activations of every batch back to the system and takes them anew, page by page. What the
    process holds at most stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
