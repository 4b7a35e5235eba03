"""`PartIndex`: exact top-k of pictures by their best part, block by block through a memory map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.files import iter_blocks
from simsearch.retrieval.exact import SCORES_BYTES, TopK, blas_threads, rounding_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.parts import Parts
    from simsearch.library.types import Searchable

BLOCK_PARTS = 4096  # that are turned into float32 together
HALF_ROUNDING = 2.0**-11  # of the norm of a row that was rounded to float16


class PartIndex:
    """Ranks the pictures of a library by the best of their parts and their whole."""

    exact = True

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Accept the library whose parts they are."""

    def top_k(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the best pictures for each of several embeddings, as `Index.top_k` says."""
        for block in iter_blocks(len(vectors), max(1, SCORES_BYTES // (4 * len(library)))):
            some = np.ascontiguousarray(vectors[block])
            for vector, scores in zip(some, self._scores(library, some, mask), strict=True):
                yield self._rescore(library, vector, scores, int(k))

    def _scores(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
    ) -> NDArray[np.float32]:
        """Score every picture by its whole and its parts, up to rounding: (Q, N)."""
        rows, stored = np.asarray(library.embeddings), self.parts.stored
        with blas_threads(rows, vectors):
            scores = vectors @ rows.T
        wanted = stored >= 0 if mask is None else (stored >= 0) & mask
        best = self._part_scores(vectors, np.unique(stored[wanted]))
        scores[:, wanted] = np.maximum(scores[:, wanted], best[:, stored[wanted]])
        if mask is not None:
            scores[:, ~mask] = -np.inf
        return scores

    def _part_scores(
        self, vectors: NDArray[np.float32], pictures: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Score stored pictures by their best part: (Q, M), minus infinity for all others."""
        counts = self.parts.pictures["count"]
        best = np.full((len(vectors), len(counts)), -np.inf, np.float32)
        pictures = pictures[counts[pictures] > 0]
        for some in _blocks(counts[pictures]):
            chosen = pictures[some]
            starts = self.parts.starts[chosen]
            if chosen[-1] - chosen[0] + 1 == len(chosen):  # all that lie there: no copy
                rows = self.parts.parts["row"][starts[0] : starts[-1] + counts[chosen[-1]]]
            else:
                rows = self.parts.parts["row"][_ranges(starts, counts[chosen])]
            rows = rows.astype(np.float32)
            with blas_threads(rows, vectors):
                products = vectors @ rows.T
            firsts = np.cumsum(counts[chosen], dtype=np.intp) - counts[chosen]
            best[:, chosen] = np.maximum.reduceat(products, firsts.astype(np.intp), axis=1)
        return best

    def _rescore(
        self,
        library: ImageLibrary,
        vector: NDArray[np.float32],
        scores: NDArray[np.float32],
        k: int,
    ) -> TopK:
        """Return the k best with their exact scores, given all scores up to rounding."""
        k = min(k, int(np.isfinite(scores).sum()))
        if not k:
            return TopK(np.empty(0, np.intp), np.empty(0))
        error = rounding_error(library.dim) + HALF_ROUNDING
        bound = min(np.partition(scores, -k)[-k], 1) - 2 * error
        rows = np.flatnonzero(scores >= bound if bound > -1 else scores > -np.inf)
        exact = np.array([self.best(library, row, vector)[0] for row in rows.tolist()])
        order = np.lexsort((library.paths[rows], -exact))[:k]
        return TopK(rows[order], exact[order])

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
