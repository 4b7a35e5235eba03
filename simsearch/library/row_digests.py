"""Row digests: they tie derived files to rows by content, and find the old rows among new ones.

A file that is derived from rows keeps their digests. When the library has changed since, rows are
matched by digest, wherever they stand now, and only those without a match are computed.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.row_file import RowFile

DIGEST_BYTES = 16  # of SHA-256, the quickest one where processors have instructions for it
BLOCK_ROWS = 4096  # read together

_lock = threading.Lock()
_known: WeakKeyDictionary[ImageLibrary, tuple[NDArray[np.float32], NDArray[np.uint8]]] = (
    WeakKeyDictionary()
)


def row_digests(rows: NDArray[np.float32] | RowFile) -> NDArray[np.uint8]:
    """Return the digest of each row's bytes: (N, D) float32 to (N, 16) uint8."""
    data = bytearray()
    for block in iter_blocks(len(rows), BLOCK_ROWS):
        for row in np.ascontiguousarray(rows[block], "<f4"):
            data += hashlib.sha256(row).digest()[:DIGEST_BYTES]
    return np.frombuffer(bytes(data), np.uint8).reshape(len(rows), DIGEST_BYTES)


def digests_of(library: ImageLibrary) -> NDArray[np.uint8]:
    """Return the digests of a library's rows, computed once for as long as it holds them."""
    rows = library.embeddings
    with _lock:
        known = _known.get(library)
        if known is None or known[0] is not rows:
            known = _known[library] = (rows, row_digests(library.row_lookup))
    return known[1]


def match_rows(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.intp]:
    """Find the old row of each new one, by equal digests, whatever their order.

    One to one: where several rows are equal, the first new one gets the first old one, and so on.

    Parameters
    ----------
    old, new
        (M, 16) and (N, 16) uint8, from `row_digests`; or any other keys of 16 bytes, such as the
        digests of the files' bytes.

    Returns
    -------
    numpy.ndarray
        (N,) int, rows of `old`; -1 for a new row without a match.

    Examples
    --------
    >>> rows = np.eye(3, dtype=np.float32)
    >>> match_rows(row_digests(rows), row_digests(rows[[2, 0]])).tolist()
    [2, 0]
    """
    keys = np.concatenate([old, new]).view(np.uint64)  # (M + N, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: old before new, each in its order
    if not len(order):
        return np.empty(0, np.intp)
    ranked = keys[order]
    begins = np.append(True, (ranked[1:] != ranked[:-1]).any(axis=1))
    group = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)[group]  # where the group of each key begins
    is_old = order < len(old)
    olds = np.bincount(group[is_old], minlength=group[-1] + 1)[group]
    nth = np.arange(len(order)) - first - olds  # among the new keys of the group
    matched = ~is_old & (nth < olds)
    found = np.full(len(new), -1, np.intp)
    found[order[matched] - len(old)] = order[(first + nth)[matched]]
    return found
