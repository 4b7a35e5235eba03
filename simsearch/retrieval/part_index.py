"""`PartIndex`: exact top-k of pictures by their best part, block by block through a memory map."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.library.parts import open_parts
from simsearch.retrieval.exact import (
    ExactIndex,
    ExactScan,
    TopK,
    blas_threads,
    rescore,
    rounding_error,
)
from simsearch.retrieval.faiss_seal import RECORD_FILE
from simsearch.retrieval.part_copy import LEVELS, SHORT_FROM_PARTS, part_copy_of
from simsearch.retrieval.part_groups import rank_pictures
from simsearch.retrieval.part_rows import part_library, widen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.parts import Parts
    from simsearch.library.types import Searchable
    from simsearch.retrieval.index import Index
    from simsearch.retrieval.part_rows import PartLibrary

BLOCK_PARTS = 4096  # that are turned into float32 together
HALF_ROUNDING = 2.0**-11  # of the norm of a row that was rounded to float16


class PartIndex(ExactIndex):
    """Ranks the pictures of a library by the best of their parts and their whole.

    Parameters
    ----------
    library
        The library itself.
    parts
        Its parts.
    index
        A `FaissIndex` of the parts; by default, few are read whole, and otherwise all.
    """

    def __init__(self, library: ImageLibrary, parts: Parts, index: Index | None = None) -> None:
        self.parts, self._library, self._index = parts, library, index
        self.exact = index is None or index.exact
        if index is not None:
            index.check(self._part_library)

    def top_k(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the best pictures for each of several embeddings, as `Index.top_k` says."""
        if self._index is None and len(self.parts.parts) < SHORT_FROM_PARTS:
            return super().top_k(library, vectors, k, mask)
        return rank_pictures(self, self._library, vectors, int(k), mask)

    def top_parts(
        self, vectors: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None
    ) -> Iterator[TopK]:
        """Rank the best parts for each of several embeddings."""
        rows = self._part_library
        if not k:
            return iter([TopK(np.empty(0, np.intp), np.empty(0))] * len(vectors))
        return (self._index or rows.index).top_k(rows, vectors, k, mask)

    def rows_of_parts(self, found: TopK) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the library's rows that have some parts, and the best score of each."""
        pictures = np.searchsorted(self.parts.starts, found.rows, "right") - 1
        pictures, first = np.unique(pictures, return_index=True)  # the best comes first
        rows, which = self._part_library.rows_of(pictures)
        return rows, found.scores[first][which]

    @cached_property
    def _part_library(self) -> PartLibrary:
        return part_library(self._library, self.parts)

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


def prepare_parts(library: ImageLibrary) -> None:
    """Make the shortened copy of many parts now, and bring an index of them up to date."""
    parts = open_parts(library)
    if parts is None or not len(parts.parts):
        return
    rows = part_library(library, parts)
    if len(rows) >= SHORT_FROM_PARTS and library.dim >= LEVELS:
        part_copy_of(rows)
    if (rows.stored[0] / RECORD_FILE).exists():
        from simsearch.retrieval.part_faiss import keep_up_parts

        keep_up_parts(library)


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
            rows = widen(rows)
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
