"""Settings of glibc's allocator that keep the memory of a long-lived process flat.

By default, glibc raises the size from which a block is mapped on its own with each large block that
is freed, up to 32 MB; then pictures lie on heaps of many threads, whose gaps never go back.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
MAPPED_BYTES = 2**22  # blocks from here on go back when they are freed; smaller ones cost time
TRIMMED_BYTES = 2**24  # free bytes at the end of a heap that are kept
ARENAS = 2


def limit_allocator() -> bool:
    """Let large blocks go back to the system at once; tell whether this allocator can."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl, for one, has none, and needs none
        return False
    settings = {
        M_MMAP_THRESHOLD: MAPPED_BYTES,
        M_TRIM_THRESHOLD: TRIMMED_BYTES,
        M_ARENA_MAX: ARENAS,
    }
    done = [mallopt(name, value) for name, value in settings.items()]
    return all(done)
