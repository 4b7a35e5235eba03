"""Work that can be stopped: long loops call `checkpoint`, which raises once nobody waits any more.

Nothing stops work by default; a server does, when a client has left or its time is up.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHECK: ContextVar[Callable[[], None] | None] = ContextVar("CHECK", default=None)
"""Raises if the work of this thread is to stop."""


def checkpoint() -> None:
    """Raise if the work of this thread is to stop."""
    check = CHECK.get()
    if check is not None:
        check()
