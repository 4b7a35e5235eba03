"""A check of a large library's file in the background, for as long as a process searches it.

Slow on purpose: it starts when the process has lived for a while, rests for ten times as long as
it works, and begins anew every day. Its thread has no lower priority than others: where processors
are scarce, it would be stopped while it holds the interpreter's lock, and all others with it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from simsearch.library.row_file import RowFile

logger = logging.getLogger("simsearch")

START_SECONDS = 30.0  # after the first search: a single query of the command line is over by then
REPEAT_SECONDS = 86_400.0
PAUSE_BLOCKS, PAUSE_SECONDS = 16, 0.01  # 1 MiB every 10 ms or so: 100 MB/s at most
PAUSE_SHARE = 10  # a pause is at least so many times as long as the work before it

_watched: WeakSet[RowFile] = WeakSet()
_lock = threading.Lock()


def watch(rows: RowFile) -> None:
    """Check a file from now on, once for each open one; the thread ends when it is closed."""
    if rows in _watched:
        return
    with _lock:
        if rows not in _watched:
            _watched.add(rows)
            thread = threading.Thread(target=_run, args=(ref(rows),), daemon=True)
            thread.name = "check of the rows"
            thread.start()


def _run(held: ref[RowFile]) -> None:
    stop, wait = threading.Event(), START_SECONDS
    while not stop.wait(wait):
        rows = held()
        if rows is None or rows.fault:
            return
        del rows
        if not check_once(held, stop):
            return
        wait = REPEAT_SECONDS


def check_once(held: ref[RowFile], stop: threading.Event) -> bool:
    """Check every block once; on damage, have every later look-up raise an error, and log it."""
    block = 0
    while (rows := held()) is not None and block < rows.block_count:
        start = time.monotonic()
        damaged = rows.damaged_blocks(range(block, min(block + PAUSE_BLOCKS, rows.block_count)))
        if damaged:
            rows.fault = rows.damage(damaged)
            logger.error("%s", rows.fault)
            return False
        block += PAUSE_BLOCKS
        del rows
        stop.wait(max(PAUSE_SECONDS, PAUSE_SHARE * (time.monotonic() - start)))
    return held() is not None
