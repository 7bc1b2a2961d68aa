"""Settings of the C library's allocator, for commands that run a tower on the CPU repeatedly."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next batch; without effect on other C libraries.

    By default, glibc returns the activations of every batch to the system and requests them again, page by page. The
    peak memory is unchanged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
