"""The rows of a library with the highest cosines, exactly: float32 to look, float64 to tell.

Embeddings in, row numbers and scores out. Nothing here knows what a query is, or an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.library import ImageLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1024  # rows that are scored exactly together
_WAKE_BYTES = 2**28  # of rows, times queries, from which on all cores share a product
_SCORES_BYTES = 2**26  # of scores that are held at once, however many queries there are


class Found(NamedTuple):
    """The best rows for one query, best first; equal scores in the order of their paths."""

    rows: NDArray[np.intp]  # (k,)
    scores: NDArray[np.float64]  # (k,) cosines in [-1, 1]


def top(
    library: ImageLibrary,
    vectors: NDArray[np.float32],
    k: int,
    among: NDArray[np.bool_] | None = None,
) -> Iterator[Found]:
    """Find the k best rows for each of several embeddings, as a full scan in float64 would.

    Parameters
    ----------
    library
        What to search.
    vectors
        (Q, D) float32, rows of unit L2 norm.
    k
        How many rows to find; fewer if there are fewer.
    among
        (N,) bool, the rows that may be found; all by default.

    Yields
    ------
    Found
        One a vector, in order.
    """
    for vector, scores in zip(vectors, _scores(library, vectors), strict=True):
        if among is not None:
            scores[~among] = -np.inf
        yield _top(library, vector, scores, k)


def _scores(library: ImageLibrary, vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Cosine of every row with each query in turn: (N,) float32."""
    at_once = max(1, _SCORES_BYTES // (4 * len(library)))
    rows = np.asarray(library.embeddings)
    for i in range(0, len(vectors), at_once):
        block = vectors[i : i + at_once]
        with _one_blas_thread() if rows.nbytes * len(block) < _WAKE_BYTES else nullcontext():
            scores = block @ rows.T
        yield from np.clip(scores, -1, 1, out=scores)  # rounding can pass 1 by 1e-7


def _one_blas_thread() -> AbstractContextManager[object]:
    """Keep numpy's BLAS from waking its threads: they spin on for some 30 ms after a product.

    That is longer than a small product takes, and slows the forward pass of the next query.
    """
    limit: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _thread_pools() -> Any:  # noqa: ANN401 (threadpoolctl has no types)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _top(
    library: ImageLibrary, vector: NDArray[np.float32], scores: NDArray[np.float32], k: int
) -> Found:
    """Return the k best with their exact scores, given all float32 scores."""
    k = min(int(k), int(np.isfinite(scores).sum()))
    if not k:
        return Found(np.empty(0, np.intp), np.empty(0))
    # Rounding moves a float32 product of unit vectors by less than this (Higham, 2002, ch. 3; the
    # 1 and the 1% are for the norms and for the bar), so the true winners are within twice of it.
    error = 1.01 * (library.dim + 1) * 2.0**-24
    bar = np.partition(scores, -k)[-k] - 2 * error
    rows = np.flatnonzero(scores >= bar)
    exact = np.concatenate(
        [
            # A sum a row, not a matrix product: equal rows get equal scores, wherever they stand.
            (library.embeddings[rows[i : i + _BLOCK]].astype(np.float64) * vector).sum(axis=1)
            for i in range(0, len(rows), _BLOCK)
        ]
    )
    exact = np.clip(exact, -1, 1)
    best = np.lexsort((library.paths[rows], -exact))[:k]
    return Found(rows[best], exact[best])
