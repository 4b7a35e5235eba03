"""`PartIndex`: exact top-k of pictures by their best part, block by block through a memory map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.retrieval.exact import (
    ExactIndex,
    ExactScan,
    blas_threads,
    rescore,
    rounding_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.parts import Parts
    from simsearch.library.types import Searchable
    from simsearch.retrieval.exact import TopK

BLOCK_PARTS = 4096  # that are turned into float32 together
HALF_ROUNDING = 2.0**-11  # of the norm of a row that was rounded to float16


class PartIndex(ExactIndex):
    """Ranks the pictures of a library by the best of their parts and their whole."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def _scan(self, library: ImageLibrary, k: int, mask: NDArray[np.bool_] | None) -> PartScan:
        return PartScan(self, library, k, mask)

    def best(
        self, library: Searchable, row: int, vector: NDArray[np.float32]
    ) -> tuple[float, int | None]:
        """Return the best cosine of a picture with a vector, and its part; None for the whole."""
        whole = float((library.embeddings[row].astype(np.float64) * vector).sum())
        some = self.parts.of(row)
        cosines = cosines_of(self.parts.parts[some]["row"], vector)
        best = some.start + int(cosines.argmax()) if len(cosines) else None
        if best is None or cosines.max() <= whole:
            return float(np.clip(whole, -1, 1)), None
        return float(np.clip(cosines.max(), -1, 1)), best


class PartScan(ExactScan):
    """What the queries of one call share."""

    def __init__(
        self, index: PartIndex, library: ImageLibrary, k: int, mask: NDArray[np.bool_] | None
    ) -> None:
        super().__init__(library, k, mask)
        self._index, self._parts = index, index.parts

    def rank(self, vectors: NDArray[np.float32]) -> Iterator[TopK]:
        """Rank for a block of queries: pictures by the best of their whole and their parts."""
        stored = self._parts.stored
        with blas_threads(self.rows, vectors):
            scores = self.products(vectors)
        wanted = stored >= 0 if self.mask is None else (stored >= 0) & self.mask
        best = self._part_scores(vectors, np.unique(stored[wanted]))
        scores[:, wanted] = np.maximum(scores[:, wanted], best[:, stored[wanted]])
        error = rounding_error(self.library.dim) + HALF_ROUNDING
        for vector, some in zip(vectors, self.apply_mask(scores), strict=True):
            yield rescore(
                self.library, vector, some, self.k, error=error, cosines=self._best_cosines
            )

    def _part_scores(
        self, vectors: NDArray[np.float32], pictures: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Score stored pictures by their best part: (Q, M), minus infinity for all others."""
        counts = self._parts.pictures["count"]
        best = np.full((len(vectors), len(counts)), -np.inf, np.float32)
        pictures = pictures[counts[pictures] > 0]
        for some in _blocks(counts[pictures]):
            chosen = pictures[some]
            starts = self._parts.starts[chosen]
            if chosen[-1] - chosen[0] + 1 == len(chosen):  # all that lie there: no copy
                rows = self._parts.parts["row"][starts[0] : starts[-1] + counts[chosen[-1]]]
            else:
                rows = self._parts.parts["row"][_ranges(starts, counts[chosen])]
            rows = rows.astype(np.float32)
            with blas_threads(rows, vectors):
                products = vectors @ rows.T
            firsts = np.cumsum(counts[chosen], dtype=np.intp) - counts[chosen]
            best[:, chosen] = np.maximum.reduceat(products, firsts.astype(np.intp), axis=1)
        return best

    def _best_cosines(
        self, library: Searchable, rows: NDArray[np.intp], vector: NDArray[Any]
    ) -> NDArray[np.float64]:
        return np.array([self._index.best(library, row, vector)[0] for row in rows.tolist()])


def cosines_of(rows: NDArray[np.float16], vector: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of (n, D) rows with a unit vector, in float64: (n,); equal rows, equal scores."""
    wide = rows.astype(np.float64)
    cosines: NDArray[np.float64] = (wide * vector).sum(axis=1) / np.sqrt((wide * wide).sum(axis=1))
    return cosines


def _blocks(counts: NDArray[Any]) -> Iterator[slice]:
    """Cut pictures into ranges of at most so many parts, or one picture."""
    start, ends = 0, np.cumsum(counts, dtype=np.int64)
    while start < len(counts):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + BLOCK_PARTS, "right")))
        yield slice(start, end)
        start = end


def _ranges(starts: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.int64]:
    """List the numbers in ranges of given starts and lengths."""
    firsts = np.cumsum(counts, dtype=np.int64) - counts
    return np.repeat(starts - firsts, counts) + np.arange(int(counts.sum()))
