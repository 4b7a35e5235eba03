"""Exact top-k of parts: a shortened copy rules most of them out, and few rows are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import iter_blocks
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import ExactIndex, TopK, rescore, rounding_error
from simsearch.retrieval.part_copy import LEVELS, SHORT_FROM_PARTS, part_copy_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.retrieval.part_copy import PartCopy, ProjectedQueries
    from simsearch.retrieval.part_rows import PartLibrary

BLOCK_ROWS = 1024  # read and multiplied together
CODE_ROWS = 8192  # widened and multiplied together: they stay in the cache
SCORES_BYTES = 2**26  # of scores that are held at once, however many queries there are
ROUNDING = 1e-6  # of a row that was widened and scaled, beside that of its product


class PartRowIndex(ExactIndex):
    """Finds the parts that a full scan would find, and reads few of them for it."""

    def top_k(
        self,
        library: Any,  # noqa: ANN401 (a PartLibrary)
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the best parts for each of several embeddings, as `Index.top_k` says."""
        count = len(library) if mask is None else int(np.count_nonzero(mask))
        k = min(int(k), count)
        many = k > 0 and count >= SHORT_FROM_PARTS and library.dim >= LEVELS
        copy = part_copy_of(library) if many else None
        if copy is None:
            rows = np.arange(len(library)) if mask is None else np.flatnonzero(mask)
            yield from _rank_rows(library, vectors, rows, k)
            return
        at_once = max(1, SCORES_BYTES // (4 * len(library)))
        for block in iter_blocks(len(vectors), at_once):
            yield from _rank_pruned(library, copy, np.asarray(vectors[block]), k, mask)


def _rank_rows(
    library: PartLibrary, vectors: NDArray[np.float32], rows: NDArray[np.intp], k: int
) -> Iterator[TopK]:
    """Rank some parts, given by number, for each query."""
    scores = row_scores(library, vectors, rows)
    error = rounding_error(library.dim) + ROUNDING
    for vector, some in zip(vectors, scores, strict=True):
        yield rescore(library, vector, some, k, rows=rows, error=error)  # type: ignore[arg-type]


def _rank_pruned(
    library: PartLibrary,
    copy: PartCopy,
    vectors: NDArray[np.float32],
    k: int,
    mask: NDArray[np.bool_] | None,
) -> Iterator[TopK]:
    """Score only the parts that the copy cannot rule out."""
    queries = copy.project(vectors)
    scores = _first_scores(copy, queries.factors[0])
    for i, some in enumerate(scores):
        if mask is not None:
            some[~mask] = -np.inf
        rows = _survivors(library, copy, queries, vectors[i], some, k, i)
        yield from _rank_rows(library, vectors[i : i + 1], rows, k)


def _first_scores(copy: PartCopy, factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of all codes of the first level with queries, (Q, w): (Q, P) float32."""
    codes = copy.codes[0]
    scores = np.empty((len(factors), len(codes)), np.float32)
    wide = np.empty((CODE_ROWS, codes.shape[1]), np.float32)
    with one_blas_thread():
        for block in iter_blocks(len(codes), CODE_ROWS):
            some = wide[: block.stop - block.start]
            np.copyto(some, codes[block])
            scores[:, block] = factors @ some.T
    return scores


def _survivors(  # noqa: PLR0917 (one query of several, and what is known of it)
    library: PartLibrary,
    copy: PartCopy,
    queries: ProjectedQueries,
    vector: NDArray[np.float32],
    scores: NDArray[np.float32],
    k: int,
    query: int,
) -> NDArray[np.intp]:
    """Return the parts that may be among the k best, by a closer look level after level."""
    rows = np.flatnonzero(np.isfinite(scores)) if np.isneginf(scores.min()) else None
    scores = scores if rows is None else scores[rows]
    bound = -np.inf
    for level, (inside, outside) in enumerate(copy.errors):
        if level:
            scores += _next_scores(copy.codes[level], rows, queries.factors[level, query])  # type: ignore[arg-type]
        bound = max(bound, _kth_lower_bound(library, vector, scores, rows, k) - copy.score_error)
        lost = (inside, outside) if rows is None else (inside[rows], outside[rows])
        upper = scores + lost[0] * np.float32(queries.inside[level, query])
        upper += lost[1] * queries.outside[level, query]
        stays = np.flatnonzero(upper >= bound)
        rows, scores = stays if rows is None else rows[stays], scores[stays]
    return rows  # type: ignore[return-value]


def _next_scores(
    codes: NDArray[np.int8], rows: NDArray[np.intp], factors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Products of some codes of a level with a query: (n,) float32."""
    scores = np.empty(len(rows), np.float32)
    with one_blas_thread():
        for block in iter_blocks(len(rows), CODE_ROWS):
            scores[block] = codes[rows[block]].astype(np.float32) @ factors
    return scores


def _kth_lower_bound(
    library: PartLibrary,
    vector: NDArray[np.float32],
    scores: NDArray[np.float32],
    rows: NDArray[np.intp] | None,
    k: int,
) -> float:
    """Bound the k-th best score from below, by scoring the parts that are likely the best."""
    tries = min(2 * k, len(scores))
    likely = np.argpartition(scores, -tries)[-tries:]
    likely = np.sort(likely if rows is None else rows[likely])
    exact = row_scores(library, vector[None], likely)[0]
    bound = float(np.partition(exact, -k)[-k]) - rounding_error(library.dim) - ROUNDING
    return min(bound, 1.0) if bound > -1 else -2.0  # scores are cut off there, and may tie


def row_scores(
    library: PartLibrary, vectors: NDArray[np.float32], rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Products of some parts, given by number, with queries: (Q, n) float32."""
    scores = np.empty((len(vectors), len(rows)), np.float32)
    with one_blas_thread():
        for block in iter_blocks(len(rows), BLOCK_ROWS):
            scores[:, block] = vectors @ library.embeddings[rows[block]].T
    return scores
