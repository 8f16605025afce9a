"""Memory between training steps: what one step frees, the next one gets back without asking the kernel."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 512 * 2**20
LARGEST_FROM_HEAP = 32 * 2**20  # glibc's upper limit


@cache
def keep_freed_memory() -> None:
    """Let this process hold up to 512 MiB of freed memory instead of returning it to the kernel after every step.

    By default glibc gives activations back as soon as backward frees them, and the next step pays a page fault for
    every 4 KiB of them anew: 10 to 20 % of an epoch of a small network (mallopt(3)). Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
