"""Exact top-k by cosine in plain numpy: float32 scores select candidates, float64 scores rank them.

Embeddings in, row numbers and scores out. Nothing here knows what a query is, or an image.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch import registry
from simsearch.files import iter_blocks
from simsearch.retrieval.blas import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Searchable

PRUNED_FROM_BYTES = registry.LARGE_BYTES  # of rows, from which on a pruned copy is worth its making
RESCORED_ROWS = 64  # scored in float64 together: they stay in the cache
CROWDED_SHARE = 1 / 50  # of all rows: more than these are too many to score in float64
THREADED_BYTES = 2**28  # of rows, times queries, from which on all cores share a product
SCORES_BYTES = 2**26  # of scores that are held at once, however many queries there are

# What reading costs, in the time to stream one float32: measured with OpenBLAS on two cores.
FLOP_COST = 1 / 16  # of a product that more queries share
GATHER_COST, GATHER_ROW_COST = 1.75, 60.0  # a float32 out of turn, and the start of each row


class TopK(NamedTuple):
    """The best rows for one query, best first; equal scores in the order of their paths."""

    rows: NDArray[np.intp]  # (k,)
    scores: NDArray[np.float64]  # (k,) cosines in [-1, 1]


def exact_index(library: ImageLibrary) -> ExactIndex:
    """Return the exact index that suits the size of a library."""
    large = library.embeddings.nbytes >= PRUNED_FROM_BYTES
    return library.index or (registry.resolve("index", "pruned")() if large else ExactIndex())


class ExactIndex:
    """Finds the rows that a full scan in float64 would find."""

    exact = True

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Accept any library."""

    def top_k(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the best rows for each of several embeddings, as `Index.top_k` says."""
        scan = self._scan(library, int(k), mask)
        at_once = max(1, SCORES_BYTES // (4 * len(library)))
        for block in iter_blocks(len(vectors), at_once):
            yield from scan.rank(np.asarray(vectors[block]))

    def _scan(self, library: ImageLibrary, k: int, mask: NDArray[np.bool_] | None) -> ExactScan:
        return ExactScan(library, k, mask)


class ExactScan:
    """What the queries of one call share."""

    def __init__(self, library: ImageLibrary, k: int, mask: NDArray[np.bool_] | None) -> None:
        self.library, self.mask = library, mask
        self.rows: Any = np.asarray(library.embeddings)  # (N, D), a memory map as a plain array
        self.count = len(library) if mask is None else int(np.count_nonzero(mask))
        self.k = min(k, self.count)

    def rank(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Rank for a block of queries, (Q, D), in the way that should cost least."""
        total, dim = self.rows.shape
        if self.mask is not None and self.count * gather_cost(dim) < total * scan_cost(dim, 1):
            from simsearch.retrieval.gather import rank_rows

            return rank_rows(self, vectors, np.flatnonzero(self.mask))
        return self.rank_all(vectors)

    def rank_all(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Score every row; in shorter sums for queries that float32 leaves too much to tell."""
        errors = np.full(len(vectors), rounding_error(self.library.dim))
        with blas_threads(self.rows, vectors):
            scores = self.apply_mask(self.products(vectors))
        crowded = [i for i, some in enumerate(scores) if self._is_crowded(some, errors[i])]
        if crowded:
            from simsearch.retrieval.short_sums import short_sum_scores

            scores[crowded], errors[crowded] = short_sum_scores(self.rows, vectors[crowded])
            scores = self.apply_mask(scores)
        for vector, some, error in zip(vectors, scores, errors.tolist(), strict=True):
            yield rescore(self.library, vector, some, self.k, error=error)

    def products(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every row for each query: (Q, N)."""
        return np.asarray(vectors @ self.rows.T)

    def apply_mask(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the scores of rows that may not be found, in (Q, N), to minus infinity."""
        if self.mask is not None:
            scores[:, ~self.mask] = -np.inf
        return scores

    def _is_crowded(self, scores: NDArray[np.float32], error: float) -> bool:
        """Tell whether too many rows are so close to the k-th best that they may beat it."""
        if not self.k:
            return False
        bound = np.partition(scores, -self.k)[-self.k] - 2 * error
        return int(np.count_nonzero(scores >= bound)) > 2 * self.k + CROWDED_SHARE * len(scores)


def scan_cost(dim: int, queries: float) -> float:
    """Cost of reading every row whole, per row and query."""
    return dim * (1 / queries + FLOP_COST)


def gather_cost(dim: int) -> float:
    """Cost of reading one row out of turn."""
    return GATHER_ROW_COST + GATHER_COST * dim


def blas_threads(
    rows: NDArray[np.float32], vectors: NDArray[np.float32]
) -> AbstractContextManager[object]:
    """Wake numpy's BLAS threads for a large product only."""
    return one_blas_thread() if rows.nbytes * len(vectors) < THREADED_BYTES else nullcontext()


def rounding_error(terms: int) -> float:
    """Bound by how much rounding moves a float32 product of unit vectors.

    After Higham (2002, ch. 3); the 1 and the 1% are for the norms and for the bound itself.
    """
    return 1.01 * (terms + 1) * 2.0**-24


def exact_cosines(
    library: Searchable, rows: NDArray[np.intp], vector: NDArray[Any]
) -> NDArray[np.float64]:
    """Products of some rows with a vector, in float64: (n,).

    One sum per row, not a matrix product: equal rows get equal scores, wherever they stand.
    """
    scores = np.empty(len(rows))
    for block in iter_blocks(len(rows), RESCORED_ROWS):
        scores[block] = (library.row_lookup[rows[block]].astype(np.float64) * vector).sum(axis=1)
    return scores


def rescore(
    library: Searchable,
    vector: NDArray[np.float32],
    scores: NDArray[np.float32],
    k: int,
    *,
    rows: NDArray[np.intp] | None = None,
    error: float | None = None,
    cosines: Callable[..., NDArray[np.float64]] = exact_cosines,
) -> TopK:
    """Return the k best with their exact scores, given the float32 scores of all or some rows."""
    k = min(int(k), int(np.isfinite(scores).sum()))
    if not k:
        return TopK(np.empty(0, np.intp), np.empty(0))
    # Each of the k best is within twice the error of the float32 score that comes k-th. Scores
    # are cut off at 1 and -1, which rounding can pass, and may tie there.
    error = rounding_error(library.dim) if error is None else error
    bound = min(np.partition(scores, -k)[-k], 1) - 2 * error
    best = np.flatnonzero(scores >= bound if bound > -1 else scores > -np.inf)
    rows = best if rows is None else rows[best]
    exact = np.clip(cosines(library, rows, vector), -1, 1)
    order = np.lexsort((library.paths[rows], -exact))[:k]
    return TopK(rows[order], exact[order])
