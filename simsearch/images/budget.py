"""Memory that all decoders of this process may take together."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_SHARE = 4  # decoders may take one part in so many of the machine's memory
MIN_BUDGET_BYTES = 2**29
UNKNOWN_MEMORY_BYTES = 2**33
CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


class MemoryBudget:
    """A number of bytes that threads share: one waits until enough are free.

    Parameters
    ----------
    size
        Bytes that may be taken at the same time. Who needs more waits until all are free, and
        then works alone.
    """

    def __init__(self, size: int) -> None:
        self.size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold so many bytes."""
        held = min(size, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()


@lru_cache(maxsize=1)
def decoding_budget() -> MemoryBudget:
    """Return the budget of this process: a quarter of the memory that it may use."""
    return MemoryBudget(max(MIN_BUDGET_BYTES, memory_bytes() // MEMORY_SHARE))


def memory_bytes() -> int:
    """Return how much memory this machine, or this container, has."""
    sizes = []
    with suppress(AttributeError, ValueError, OSError):  # as on Windows
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no container, or "max"
            sizes.append(int(Path(file).read_text("ascii")))
    return min((size for size in sizes if size > 0), default=UNKNOWN_MEMORY_BYTES)
