"""The rows of a library with the highest cosines, exactly: float32 to look, float64 to tell.

Embeddings in, row numbers and scores out. Nothing here knows what a query is, or an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.retrieval.pruned import gather_cost, plain_cost, pruned_index_of
from simsearch.retrieval.threads import one_blas_thread
from simsearch.retrieval.topk import (
    blas_threads,
    gathered_products,
    rescored_top_k,
    rounding,
    top_k_of_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.pruned import PrunedIndex
    from simsearch.retrieval.topk import TopK

_CROWD = 1 / 50  # share of all rows: more than these are too many to score exactly
_SHORT, _TOGETHER = 64, 4096  # columns and rows of a product that is taken with care
_SCORES_BYTES = 2**26  # of scores that are held at once, however many queries there are
_FEW = 1 / 20  # of the cost of reading all: for less, no sketch is needed
_MANY = 1 / 8  # share of all rows: who wants so many reads them all


def top(
    library: ImageLibrary,
    vectors: NDArray[np.float32],
    k: int,
    among: NDArray[np.bool_] | None = None,
) -> Iterator[TopK]:
    """Find the k best rows for each of several embeddings, as a full scan in float64 would.

    A large library is looked at through its sketch: only rows that it cannot rule out are read.

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
    scan = _Scan(library, int(k), among)
    at_once = max(1, _SCORES_BYTES // (4 * len(library)))
    for i in range(0, len(vectors), at_once):
        yield from scan.answer(np.asarray(vectors[i : i + at_once]))


class _Asked(NamedTuple):
    """One query, and what its sketch says of it."""

    vector: NDArray[np.float32]  # (D,)
    head: NDArray[np.float32]  # (L, w)
    rest: NDArray[np.float32]  # (L,)
    guess: NDArray[np.float32]  # (N,) what it has in common with every row


class _Scan:
    """What the queries of one call share."""

    def __init__(self, library: ImageLibrary, k: int, among: NDArray[np.bool_] | None) -> None:
        self.library, self.among = library, among
        self.rows = np.asarray(library.embeddings)  # a memory map without its trimmings
        self.count = len(library) if among is None else int(np.count_nonzero(among))
        self.k = min(k, self.count)

    def answer(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Answer a block of queries in the way that should cost least."""
        total, dim = self.rows.shape
        picking = self.count * gather_cost(dim)
        plain = total * plain_cost(dim, 1)
        if self.count == total or picking > _FEW * plain:
            sketch = pruned_index_of(self.library) if 0 < self.k < _MANY * total else None
            if sketch and (depth := sketch.depth(len(vectors))):
                return self._pruned(vectors, sketch, depth)
        if self.among is not None and picking < plain:
            return self._picked(vectors, np.flatnonzero(self.among))
        return self._plain(vectors)

    def _plain(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Score every row; with more care for queries that float32 leaves too much to tell."""
        errors = np.full(len(vectors), rounding(self.library.dim))
        with blas_threads(self.rows, vectors):
            scores = self._allowed(vectors @ self.rows.T)
        crowded = [i for i, some in enumerate(scores) if self._is_crowded(some, errors[i])]
        if crowded:
            scores[crowded], errors[crowded] = _careful(self.rows, vectors[crowded])
            scores = self._allowed(scores)
        for vector, some, error in zip(vectors, scores, errors.tolist(), strict=True):
            yield rescored_top_k(self.library, vector, some, self.k, error=error)

    def _allowed(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the rows that may not be found out of the race."""
        if self.among is not None:
            scores[:, ~self.among] = -np.inf
        return scores

    def _is_crowded(self, scores: NDArray[np.float32], error: float) -> bool:
        """Tell whether too many rows are so close to the k-th best that they may beat it."""
        if not self.k:
            return False
        bar = np.partition(scores, -self.k)[-self.k] - 2 * error
        return int(np.count_nonzero(scores >= bar)) > 2 * self.k + _CROWD * len(scores)

    def _picked(self, vectors: NDArray[np.float32], rows: NDArray[np.intp]) -> Iterator[TopK]:
        """Score only the rows that may be found."""
        with one_blas_thread():
            scores = gathered_products(self.rows, rows, vectors.T)
        for vector, some in zip(vectors, scores.T, strict=True):
            yield rescored_top_k(self.library, vector, some, self.k, among=rows)

    def _pruned(
        self, vectors: NDArray[np.float32], sketch: PrunedIndex, depth: int
    ) -> Iterator[TopK]:
        """Score only the rows that the sketch cannot rule out."""
        with one_blas_thread():
            heads, rests = sketch.project(vectors)
        with blas_threads(sketch.levels[0], heads[0]):
            guesses = heads[0] @ sketch.levels[0].T
            for level in range(1, depth):
                guesses += heads[level] @ sketch.levels[level].T
        guesses = self._allowed(guesses)
        asked = list(map(_Asked, vectors, heads.swapaxes(0, 1), rests.T, guesses))
        limit = len(self.rows) * plain_cost(self.library.dim, len(vectors))
        with one_blas_thread():
            left = [self._left(one, sketch, depth, limit) for one in asked]
        del guesses, asked
        lost = self._too_many(left)
        plain = self._plain(vectors[lost])
        for vector, rows, many in zip(vectors, left, lost.tolist(), strict=True):
            yield (
                next(plain)
                if many or rows is None
                else top_k_of_rows(self.library, vector, rows, self.k)
            )

    def _left(
        self, asked: _Asked, sketch: PrunedIndex, depth: int, limit: float
    ) -> NDArray[np.intp] | None:
        """Rows that can still win; None if it would cost more than the limit to tell.

        The best of the guesses set a bar, which a row must be able to reach.
        """
        vector, head, rest, guess = asked
        bar = self._bar(vector, guess) - sketch.slack
        left = np.flatnonzero(guess + sketch.rests[depth - 1] * rest[depth - 1] >= bar)
        guess = guess[left]
        for level in range(depth, len(sketch.levels)):
            limit -= len(left) * gather_cost(len(head[level]))
            if limit < 0:
                return None
            guess += gathered_products(sketch.levels[level], left, head[level])
            bar = max(bar, self._bar(vector, guess, left) - sketch.slack)
            stays = guess + sketch.rests[level][left] * rest[level] >= bar
            left, guess = left[stays], guess[stays]
        return left

    def _bar(
        self,
        vector: NDArray[np.float32],
        guess: NDArray[np.float32],
        rows: NDArray[np.intp] | None = None,
    ) -> float:
        """Bound the k-th best score from below, by scoring the rows that are likely to win."""
        tries = min(2 * self.k, self.count, len(guess))
        likely = np.argpartition(guess, -tries)[-tries:]
        likely = np.sort(likely if rows is None else rows[likely])
        scores = gathered_products(self.rows, likely, vector)
        bar = float(np.partition(scores, -self.k)[-self.k]) - rounding(self.library.dim)
        return min(bar, 1.0) if bar > -1 else -2.0  # scores are cut off there, and may tie

    def _too_many(self, left: list[NDArray[np.intp] | None]) -> NDArray[np.bool_]:
        """Tell for which queries it is cheaper to read every row: those unlike the library."""
        total, dim = self.rows.shape
        costs = np.array(
            [np.inf if rows is None else len(rows) * gather_cost(dim) for rows in left]
        )
        many: NDArray[np.bool_] = costs > total * plain_cost(dim, np.inf)
        count = int(np.count_nonzero(many))
        if count and costs[many].sum() <= total * plain_cost(dim, count) * count:
            many[:] = False
        return many


def _careful(
    rows: NDArray[np.float32], vectors: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Products in short sums, which round less, and by how much at most: (Q, N) float32."""
    scores = np.zeros((len(vectors), len(rows)), np.float32)
    starts = range(0, rows.shape[1], _SHORT)
    with one_blas_thread():  # these products are so short that two would mostly wait
        for i in range(0, len(rows), _TOGETHER):
            some, part = rows[i : i + _TOGETHER], scores[:, i : i + _TOGETHER]
            for j in starts:
                part += vectors[:, j : j + _SHORT] @ some[:, j : j + _SHORT].T
    return scores, rounding(_SHORT + len(starts))
