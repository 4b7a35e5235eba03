"""Where the pruned copy comes from in time: at the end of `embed_dataset`, or while searches go on.

The first search of a large library without a copy reads every row, as do those that follow, until
a thread has made it; it ends with the process, and then leaves nothing that is half done.
"""

from __future__ import annotations

import atexit
import logging
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from filelock import FileLock, Timeout

from simsearch.retrieval import pruned_copy
from simsearch.retrieval.pruned_copy import StoppedError
from simsearch.retrieval.pruned_store import LOCK, known_copy, pruned_copy_of, renew_copy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.pruned_copy import PrunedCopy

logger = logging.getLogger("simsearch")

BACKGROUND_BYTES = 2**30  # of rows, whose copy takes longer than a search should wait

_starting = threading.Lock()
# With the rows that each is for: a library may come to hold others.
_threads: WeakKeyDictionary[ImageLibrary, tuple[NDArray[np.float32], threading.Thread]] = (
    WeakKeyDictionary()
)


def prepare(library: ImageLibrary, *, progress: bool) -> None:
    """Make the copy of a library now, so that its first search does not have to."""
    pruned_copy_of(library, progress=progress)
    if library.stored and (library.stored[0] / "index.json").exists():
        from simsearch.retrieval.faiss_follow import keep_up

        keep_up(library)


def ready_copy(library: ImageLibrary) -> PrunedCopy | None:
    """Return a library's copy; None where every row is to be read, while a thread makes it."""
    if library.embeddings.nbytes < BACKGROUND_BYTES:
        return pruned_copy_of(library)
    copy = known_copy(library)
    if copy is None:
        _start(library)
    return copy


def _start(library: ImageLibrary) -> None:
    """Start the making of a copy, once for the rows that a library holds."""
    with _starting:
        begun = _threads.get(library)
        if begun and begun[0] is library.embeddings:
            return
        if _made_elsewhere(library):
            logger.info("Every row is read: another process is making the shortened copy of rows.")
            return
        logger.warning(
            "Note: every row is read until the shortened copy of the rows is made, in the "
            "background for as long as this process runs; embedding the dataset again makes it, too"
        )
        thread = threading.Thread(target=_make, args=(library,), daemon=True, name="pruned copy")
        _threads[library] = (library.embeddings, thread)
        thread.start()


def _made_elsewhere(library: ImageLibrary) -> bool:
    """Tell whether another process is writing the copy of these rows."""
    if library.stored is None:
        return False
    try:
        with FileLock(library.stored[0] / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # read-only: it will be kept in memory
        return False


def _make(library: ImageLibrary) -> None:
    """Make a copy, and have searches use it from then on."""
    try:
        known_copy(library, renew_copy(library, progress=False))
    except StoppedError:
        return
    except Exception:
        logger.exception("The shortened copy of the rows cannot be made: every row is read.")


def wait(library: ImageLibrary, seconds: float | None = None) -> None:
    """Wait until a copy that is being made in the background is there."""
    begun = _threads.get(library)
    if begun:
        begun[1].join(seconds)


@atexit.register
def _stop() -> None:
    """End the threads before the interpreter goes, with which BLAS goes as well."""
    pruned_copy.stopping.set()
    for _, thread in list(_threads.values()):
        thread.join()
