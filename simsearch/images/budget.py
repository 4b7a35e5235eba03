"""Memory that all decoders of this process may take together."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

MEMORY_SHARE = 4  # decoders may take one part in so many of the machine's memory
MIN_BUDGET_BYTES = 2**29
CHECK_SECONDS = 0.25  # between looks whether anybody waits for a reservation
UNKNOWN_MEMORY_BYTES = 2**33
CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


class Budget(Protocol):
    """What decoders ask for memory."""

    def reserve(self, size: int) -> AbstractContextManager[None]:
        """Hold so many bytes."""


class MemoryBudget:
    """A number of bytes that threads share: one waits until enough are free, in order.

    Parameters
    ----------
    size
        Bytes that may be taken at the same time. Who needs more waits until all are free, and
        then works alone.
    """

    def __init__(self, size: int) -> None:
        self.size = self._free = size
        self._waiting: deque[object] = deque()  # the first one is next, however much it needs
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int, check: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold so many bytes; `check` is called while there are too few, and may raise."""
        held = min(size, self.size)
        self._take(held, check)
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()

    def _take(self, size: int, check: Callable[[], None] | None) -> None:
        """Wait for so many bytes, behind those that wait already."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and self._free >= size, CHECK_SECONDS
                ):
                    if check is not None:
                        check()
                self._free -= size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()


def decoding_budget() -> Budget:
    """Return the budget of this process: by default, a quarter of the memory that it may use."""
    return _replaced[-1] if _replaced else _default_budget()


@contextmanager
def use_budget(budget: Budget) -> Iterator[None]:
    """Let all decoders of this process ask another budget, as a server's do."""
    _replaced.append(budget)
    try:
        yield
    finally:
        _replaced.remove(budget)


_replaced: list[Budget] = []


@lru_cache(maxsize=1)
def _default_budget() -> MemoryBudget:
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
