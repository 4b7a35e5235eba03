"""The open connections of a server: their number is limited, and the least useful one gives way.

A connection that is kept without need, or whose request does not arrive, or whose answer is not
read, is closed for a new one: those of the address that has most of them first.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

GRACE_SECONDS = 1.0  # for which no connection gives way, if another one can
BATCH_SHARE = 16  # of the limit, one part in so many gives way together


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

    def make_room(self, others: Collection[Connection]) -> bool:
        """Close connections where there are too many; False if each one is being answered.

        Several are closed at once, so that a storm of new ones does not have all looked at again
        for each.
        """
        if len(others) < self.limit:
            return True
        found = choose(others, time.monotonic(), max(1, self.limit // BATCH_SHARE))
        for each in found:
            self.dropped += 1
            each.drop()
        return bool(found)


def choose(connections: Iterable[Connection], now: float, most: int = 1) -> list[Connection]:
    """Choose which connections give way, the first ones first; none that is being answered.

    One that is new in its state gives way only where there is no other, and alone.
    """
    connections = list(connections)
    counts = Counter(each.address for each in connections)
    ranked = [
        (now - each.since < GRACE_SECONDS, -counts[each.address], rank, each.since, place)
        for place, each in enumerate(connections)
        if (rank := each.idle_rank) is not None
    ]
    first = heapq.nsmallest(most, ranked)
    old = [place for is_new, *_, place in first if not is_new]
    return [connections[place] for place in old or [key[-1] for key in first[:1]]]
