"""Phases of a publication that are one long call to the engine: said while they last."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN_AFTER_SECONDS = 1.0
REFRESH_SECONDS = 1.0


@contextmanager
def phase(title: str, *, progress: bool) -> Iterator[None]:
    """Show what is being done, and for how long, if it takes more than a second.

    Parameters
    ----------
    title
        Such as "Writing rows to storage".
    progress
        Whether to show it.
    """
    done = threading.Event()

    def show() -> None:
        if done.wait(SHOWN_AFTER_SECONDS):
            return
        with tqdm(desc=title, bar_format="{desc}: {elapsed}") as bar:
            while not done.wait(REFRESH_SECONDS):
                bar.refresh()

    thread = threading.Thread(target=show, daemon=True)
    if progress:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if progress:
            thread.join()
