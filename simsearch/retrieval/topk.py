"""Top-k by cosine: float32 scores select candidates, float64 scores rank them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.retrieval.threads import one_blas_thread

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Searchable


_BLOCK = 64  # rows that are scored exactly together: they stay in the cache
_PIECE = 2**18  # numbers that are gathered together: they stay in the cache
_WAKE_BYTES = 2**28  # of rows, times queries, from which on all cores share a product


class TopK(NamedTuple):
    """The best rows for one query, best first; equal scores in the order of their paths."""

    rows: NDArray[np.intp]  # (k,)
    scores: NDArray[np.float64]  # (k,) cosines in [-1, 1]


def top_k_of_rows(
    library: ImageLibrary, vector: NDArray[np.float32], rows: NDArray[np.intp], k: int
) -> TopK:
    """Find the k best of some rows, given by number, for one embedding."""
    with one_blas_thread():
        scores = gathered_products(np.asarray(library.embeddings), rows, vector)
    return rescored_top_k(library, vector, scores, k, among=rows)


def gathered_products(
    matrix: NDArray[np.float32], rows: NDArray[np.intp], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Products of some rows of a matrix with a vector or with (D, Q) vectors: (n,) or (n, Q)."""
    piece = max(1, _PIECE // matrix.shape[1])
    room = np.empty((min(piece, len(rows)), matrix.shape[1]), np.float32)
    products = np.empty((len(rows), *vectors.shape[1:]), np.float32)
    for i in range(0, len(rows), piece):
        some = rows[i : i + piece]
        # "clip" as the numbers are known to be right: "raise" would go through a buffer
        part = np.take(matrix, some, axis=0, out=room[: len(some)], mode="clip")
        np.matmul(part, vectors, out=products[i : i + piece])
    return products


def blas_threads(
    rows: NDArray[np.float32], vectors: NDArray[np.float32]
) -> AbstractContextManager[object]:
    """Wake numpy's BLAS threads for a large product only."""
    return one_blas_thread() if rows.nbytes * len(vectors) < _WAKE_BYTES else nullcontext()


def exact_cosines(
    library: Searchable, rows: NDArray[np.intp], vector: NDArray[Any]
) -> NDArray[np.float64]:
    """Products of some rows with a vector, in float64: (n,).

    A sum a row, not a matrix product: equal rows get equal scores, wherever they stand.
    """
    return np.concatenate(
        [
            (library.embeddings[rows[i : i + _BLOCK]].astype(np.float64) * vector).sum(axis=1)
            for i in range(0, len(rows), _BLOCK)
        ]
    )


def rounding(terms: int) -> float:
    """Bound by how much rounding moves a float32 product of unit vectors.

    After Higham (2002, ch. 3); the 1 and the 1% are for the norms and for the bar.
    """
    return 1.01 * (terms + 1) * 2.0**-24


def rescored_top_k(
    library: ImageLibrary,
    vector: NDArray[np.float32],
    scores: NDArray[np.float32],
    k: int,
    *,
    among: NDArray[np.intp] | None = None,
    error: float | None = None,
) -> TopK:
    """Return the k best with their exact scores, given the float32 scores of all or some rows."""
    k = min(int(k), int(np.isfinite(scores).sum()))
    if not k:
        return TopK(np.empty(0, np.intp), np.empty(0))
    # Every winner is within twice the error of the float32 score that comes k-th. Scores are cut
    # off at 1 and -1, which rounding can pass, and may tie there.
    error = rounding(library.dim) if error is None else error
    bar = min(np.partition(scores, -k)[-k], 1) - 2 * error
    best = np.flatnonzero(scores >= bar if bar > -1 else scores > -np.inf)
    rows = best if among is None else among[best]
    exact = exact_cosines(library, rows, vector)
    exact = np.clip(exact, -1, 1)
    best = np.lexsort((library.paths[rows], -exact))[:k]
    return TopK(rows[best], exact[best])
