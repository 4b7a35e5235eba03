"""Progress of a long analysis: a bar at a terminal, or a listener, such as a server's."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Listener = Callable[[str, int, int], None]

_T = TypeVar("_T")
_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener(step, done, total)`` in place of bars; what it raises ends the work."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def follow(
    items: Iterable[_T], total: int, title: str, unit: str = "image", *, progress: bool
) -> Iterator[_T]:
    """Yield items under a bar, for what takes more than a second, or before a listener."""
    listener = _listener.get()
    if listener is None:
        bar = tqdm(items, title, total, unit=unit, delay=1, disable=not progress)
        yield from bar
        return
    listener(title, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        listener(title, done, total)


def follow_all(items: Sequence[_T], title: str, *, progress: bool) -> Iterator[_T]:
    """Yield the members of a sequence, as `follow` does."""
    return follow(items, len(items), title, progress=progress)
