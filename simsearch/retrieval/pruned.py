"""The PCA-pruned exact index: most rows are ruled out by a bound, before they are read.

A narrow, rotated copy of the rows bounds every cosine from above; only rows whose bound reaches
the k-th best score are read whole. After FEXIPRO (Li et al., SIGMOD 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.files import iter_blocks
from simsearch.library.background_check import watch
from simsearch.library.row_file import RowFile
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import (
    CROWDED_SHARE,
    ExactIndex,
    ExactScan,
    blas_threads,
    gather_cost,
    rescore,
    rounding_error,
    scan_cost,
)
from simsearch.retrieval.gather import gathered_scores, matrix_of
from simsearch.retrieval.likely_best import kth_floor, likely_best
from simsearch.retrieval.pruned_background import ready_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.exact import TopK
    from simsearch.retrieval.pruned_copy import PrunedCopy

CHEAP_SHARE = 1 / 20  # of the cost of reading all rows: for less, no pruned copy is needed
READ_ROWS = 4096  # together, where all rows are read from their file
DEEP_SHARE = 1 / 8  # of the rows: a search for so many reads them all


class PrunedIndex(ExactIndex):
    """Finds what `ExactIndex` finds, and reads few of the rows for it."""

    def _scan(self, library: ImageLibrary, k: int, mask: NDArray[np.bool_] | None) -> ExactScan:
        return PrunedScan(library, k, mask)


class _ProjectedQuery(NamedTuple):
    """One query, and what the pruned copy says of it."""

    vector: NDArray[np.float32]  # (D,)
    projections: NDArray[np.float32]  # (L, w)
    residual_norms: NDArray[np.float32]  # (L,)
    partial_scores: NDArray[np.float32]  # (N,) products over the levels that are read whole


class PrunedScan(ExactScan):
    """What the queries of one call share."""

    def __init__(self, library: ImageLibrary, k: int, mask: NDArray[np.bool_] | None) -> None:
        super().__init__(library, k, mask)
        self.rows = matrix_of(library)
        if isinstance(self.rows, RowFile):
            watch(self.rows)

    def products(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every row for each query: (Q, N); rows are read from their file in parts."""
        if isinstance(self.rows, RowFile):
            whole = self.rows.whole()
            if whole is None:
                parts = (self.rows[part] for part in iter_blocks(len(self.rows), READ_ROWS))
                return np.concatenate([vectors @ part.T for part in parts], axis=1)
            self.rows = whole
        return super().products(vectors)

    def rank_all(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Score every row; only those near the k-th best are looked at again."""
        if not self.k:
            yield from super().rank_all(vectors)
            return
        with blas_threads(self.rows, vectors):
            scores = self.apply_mask(self.products(vectors))
        near = [self._near_best(some) for some in scores]
        near_scores = [some[rows] for some, rows in zip(scores, near, strict=True)]
        del scores
        most = 2 * self.k + CROWDED_SHARE * len(self.rows)
        crowded = np.array([len(rows) > most for rows in near], np.bool_)
        others = super().rank_all(vectors[crowded])
        for i, crowd in enumerate(crowded.tolist()):
            if crowd:
                yield next(others)
            else:
                yield rescore(self.library, vectors[i], near_scores[i], self.k, rows=near[i])

    def _near_best(self, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """Rows that rounding may have kept from being of the k best."""
        bound = min(kth_floor(scores, self.k), 1.0) - 2 * rounding_error(self.library.dim)
        return np.flatnonzero(scores >= bound if bound > -1 else scores > -np.inf)

    def rank(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Rank for a block of queries in the way that should cost least."""
        total, dim = self.rows.shape
        masked_cost = self.count * gather_cost(dim)
        if self.count == total or masked_cost > CHEAP_SHARE * total * scan_cost(dim, 1):
            copy = ready_copy(self.library) if 0 < self.k < DEEP_SHARE * total else None
            if copy and (depth := copy.depth(len(vectors))):
                return self._rank_pruned(vectors, copy, depth)
        return super().rank(vectors)

    def _rank_pruned(
        self, vectors: NDArray[np.float32], copy: PrunedCopy, depth: int
    ) -> Iterator[TopK]:
        """Score only the rows that the pruned copy cannot rule out."""
        with one_blas_thread():
            projections, norms = copy.project(vectors)
        with blas_threads(copy.levels[0], projections[0]):
            scores = projections[0] @ copy.levels[0].T  # (Q, N)
            for level in range(1, depth):
                scores += projections[level] @ copy.levels[level].T
        scores = self.apply_mask(scores)
        queries = list(map(_ProjectedQuery, vectors, projections.swapaxes(0, 1), norms.T, scores))
        limit = len(self.rows) * scan_cost(self.library.dim, len(vectors))
        with one_blas_thread():
            survivors = [self._survivors(query, copy, depth, limit) for query in queries]
        del scores, queries
        read_all = self._cheaper_to_read_all(survivors)
        unpruned = self.rank_all(vectors[read_all])
        for vector, rows, whole in zip(vectors, survivors, read_all.tolist(), strict=True):
            if whole or rows is None:
                yield next(unpruned)
            else:
                yield top_k_of_rows(self.library, vector, rows, self.k)

    def _survivors(
        self, query: _ProjectedQuery, copy: PrunedCopy, depth: int, limit: float
    ) -> NDArray[np.intp] | None:
        """Rows that may be among the k best; None if it would cost more than the limit to tell."""
        vector, projections, norms, scores = query
        bound = self._kth_lower_bound(vector, scores) - copy.score_error
        upper = scores + copy.residual_norms[depth - 1] * norms[depth - 1]
        rows = np.flatnonzero(upper >= bound)
        scores = scores[rows]
        for level in range(depth, len(copy.levels)):
            limit -= len(rows) * gather_cost(len(projections[level]))
            if limit < 0:
                return None
            scores += gathered_scores(copy.levels[level], rows, projections[level])
            bound = max(bound, self._kth_lower_bound(vector, scores, rows) - copy.score_error)
            stays = scores + copy.residual_norms[level][rows] * norms[level] >= bound
            rows, scores = rows[stays], scores[stays]
        return rows

    def _kth_lower_bound(
        self,
        vector: NDArray[np.float32],
        scores: NDArray[np.float32],
        rows: NDArray[np.intp] | None = None,
    ) -> float:
        """Bound the k-th best score from below, by scoring the rows that are likely the best."""
        tries = min(2 * self.k, self.count, len(scores))
        likely = likely_best(scores, tries)
        likely = np.sort(likely if rows is None else rows[likely])
        exact = gathered_scores(self.rows, likely, vector)
        bound = float(np.partition(exact, -self.k)[-self.k]) - rounding_error(self.library.dim)
        return min(bound, 1.0) if bound > -1 else -2.0  # scores are cut off there, and may tie

    def _cheaper_to_read_all(self, survivors: list[NDArray[np.intp] | None]) -> NDArray[np.bool_]:
        """Tell for which queries it is cheaper to read every row: those unlike the library."""
        total, dim = self.rows.shape
        costs = np.array(
            [np.inf if rows is None else len(rows) * gather_cost(dim) for rows in survivors]
        )
        read_all: NDArray[np.bool_] = costs > total * scan_cost(dim, np.inf)
        count = int(np.count_nonzero(read_all))
        if count and costs[read_all].sum() <= total * scan_cost(dim, count) * count:
            read_all[:] = False
        return read_all


def top_k_of_rows(
    library: ImageLibrary, vector: NDArray[np.float32], rows: NDArray[np.intp], k: int
) -> TopK:
    """Find the k best of some rows, given by number, for one embedding."""
    with one_blas_thread():
        scores = gathered_scores(matrix_of(library), rows, vector)
    return rescore(library, vector, scores, k, rows=rows)
