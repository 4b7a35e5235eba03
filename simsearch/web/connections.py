"""The open connections of a server: their number is limited, and the least useful one gives way.

A connection that is kept without need, or whose request does not arrive, or whose answer is not
read, is closed for a new one: those of the address that has most of them first.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_SECONDS = 1.0  # for which no connection gives way, if another one can

logger = logging.getLogger("simsearch.web")


class Connection(Protocol):
    """What is known of a connection."""

    address: str
    since: float  # when it began to be in its present state, as `time.monotonic` tells

    @property
    def idle_rank(self) -> int | None:
        """How little it would be missed, the least first; None while its request is answered."""

    def drop(self) -> None:
        """Close it at once, unsent bytes included."""


class ConnectionLimit:
    """Makes room for new connections.

    Parameters
    ----------
    limit
        Connections that may be open at the same time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0

    def make_room(self, others: Iterable[Connection]) -> bool:
        """Close a connection where there are too many; False if each one is being answered."""
        others = list(others)
        if len(others) < self.limit:
            return True
        found = choose(others, time.monotonic())
        if found is None:
            return False
        self.dropped += 1
        found.drop()
        return True


def choose(connections: Iterable[Connection], now: float) -> Connection | None:
    """Choose which connection gives way; None if each one is being answered."""
    connections = list(connections)
    counts = Counter(each.address for each in connections)
    best, best_key = None, None
    for each in connections:
        rank = each.idle_rank
        if rank is None:
            continue
        key = (now - each.since < GRACE_SECONDS, -counts[each.address], rank, each.since)
        if best_key is None or key < best_key:
            best, best_key = each, key
    return best
