"""Choice of what embeds batches, where it is not this machine by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from simsearch import registry
from simsearch.errors import EngineError

if TYPE_CHECKING:
    from simsearch.embedding.batching import Executor


def choose_executor(engine: str | Executor) -> Executor:
    """Return what embeds batches.

    Raises
    ------
    EngineError
        If there is no such engine.
    """
    if callable(engine):
        return engine
    if engine not in registry.PATHS["executor"]:
        choices = " or ".join(registry.PATHS["executor"])
        raise EngineError(f"engine={engine!r}: choose {choices}, or a RayEngine")
    executor: Any = registry.resolve("executor", engine)
    return cast("Executor", executor() if isinstance(executor, type) else executor)
