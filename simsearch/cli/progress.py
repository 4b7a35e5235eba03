"""Progress of a command: bars on a terminal, lines of every tenth elsewhere, or nothing."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TENTHS = 10
PLURALS = {"query": "queries", "batch": "batches", "B": "bytes"}  # others take an s


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[None]:
    """Show the progress of what the body does as this place can show it, or not at all."""
    if not quiet and sys.stderr.isatty():
        yield
        return
    from tqdm.std import tqdm

    display = _ignore if quiet else _print_tenth
    with _replaced(tqdm, display=display, clear=_ignore, close=_closing(tqdm.close)):
        yield


@contextmanager
def _replaced(kind: type, **methods: Any) -> Iterator[None]:  # noqa: ANN401
    """Replace methods of a class for a while."""
    before = {name: getattr(kind, name) for name in methods}
    for name, method in methods.items():
        setattr(kind, name, method)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(kind, name, method)


def _ignore(*_: Any, **__: Any) -> None:  # noqa: ANN401
    """Show nothing."""


def _print_tenth(bar: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401
    """Print a line for each tenth that is done, once."""
    if not bar.total:
        return
    done = TENTHS * bar.n // bar.total
    if done > getattr(bar, "printed_tenths", 0):
        bar.printed_tenths = done
        title = bar.desc.rstrip(": ") or "Progress"
        share = f"{100 * done // TENTHS:.0f}%"
        units = PLURALS.get(bar.unit, f"{bar.unit}s")
        sys.stderr.write(f"{title}: {share} ({bar.n:,} of {bar.total:,} {units})\n")
        sys.stderr.flush()


def _closing(close: Any) -> Any:  # noqa: ANN401
    """Return what closes a bar without a last frame of it."""

    def close_quietly(bar: Any) -> None:  # noqa: ANN401
        if bar.disable:
            return
        if bar.n and bar.last_print_t >= bar.start_t + bar.delay:
            bar.display()
        bar.leave, bar.fp = False, io.StringIO()
        bar.display = bar.sp = _ignore
        close(bar)

    return close_quietly
