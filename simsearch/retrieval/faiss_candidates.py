"""Candidates of a FAISS index: rows that are probably the nearest, then ranked exactly.

A query is settled once rows that were not looked at can hardly be among the best: by the distances
that the codes give, and by the centres of the lists. Others are searched for more widely.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import rescore, rounding_error
from simsearch.retrieval.faiss_compat import faiss_threads, import_faiss, keep_search_parameters
from simsearch.retrieval.faiss_rotation import known_rotation
from simsearch.retrieval.gather import gathered_scores, matrix_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.exact import TopK


LIST_KINDS = ("ivf", "ivfpq", "rabitq")
FIRST_RANKED = 2  # times k candidates, which tell what others are worth ranking
ONE_THREAD_QUERIES = 4  # up to which waking FAISS's threads takes longer than the search


class SearchEffort(NamedTuple):
    """Search parameters of an index: a larger effort finds more and takes longer."""

    candidates: int  # that are ranked exactly, per query
    reach: int  # HNSW's efSearch, or IVF's nprobe


class Margins(NamedTuple):
    """By how far an index errs about the rows that are looked for: when a query is settled.

    All are squared distances, learnt from queries whose nearest rows are known.
    """

    code: float  # by which a code makes one of the nearest rows seem farther than it is
    centre: float  # by which the centre of its list is farther than the k-th nearest row
    usual: float  # of the tenth nearest row of a query; errors grow in proportion beyond
    spread: float | None = None  # by which that centre is farther than the nearest of all

    @classmethod
    def read(cls, values: Sequence[Any]) -> Margins:
        """Read them from a record: those of earlier versions have no spread."""
        code, centre, usual, *spread = values
        known = [float(value) for value in spread if value is not None]
        return cls(float(code), float(centre), float(usual), *known)


class Candidates(NamedTuple):
    """What FAISS finds for Q queries, best first."""

    scores: NDArray[np.float32]  # (Q, C) cosines of a flat index, squared distances of others
    rows: NDArray[np.int64]  # (Q, C), -1 at the end where there are fewer
    last: NDArray[np.float32]  # (Q,) score that rows beyond are worse than; infinite if none are


def count_near(away: NDArray[np.float32], spread: float) -> NDArray[np.intp]:
    """Count the lists about as near to each query as the nearest, by distances (Q, lists): (Q,)."""
    limit = away.min(axis=1, keepdims=True) + spread
    counts: NDArray[np.intp] = np.count_nonzero(away <= limit, axis=1)
    return counts


class CandidateIndex:
    """A FAISS index that takes whole embeddings, with the search parameters of its kind.

    Parameters
    ----------
    raw
        The FAISS index; all but "flat" rotate the embeddings first (`IndexPreTransform`).
    kind
        As in `IndexReport`.
    rows
        (P,) int64, the library's row at each position of the index, -1 where it is gone; the same
        number by default.
    margins
        When a query is settled; None for indexes of earlier versions, which do not tell.
    """

    def __init__(
        self,
        raw: Any,  # noqa: ANN401 (FAISS has no types)
        kind: str,
        rows: NDArray[np.int64] | None = None,
        margins: Margins | None = None,
    ) -> None:
        self.raw, self.kind, self.exact = raw, kind, kind == "flat"
        self.rows, self.margins = rows, margins
        self._inner: tuple[Any, Any] | None = None  # the index after the rotation, and that
        self._unfiltered: dict[int, Any] = {}  # search parameters by their reach
        self._centres: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @cached_property
    def list_count(self) -> int:
        """Number of the inverted lists."""
        return int(import_faiss().extract_index_ivf(self.raw).nlist)

    @property
    def has_lists(self) -> bool:
        """Whether the rows lie in inverted lists, of which a search reads some."""
        return self.kind in LIST_KINDS

    def find(
        self,
        vectors: NDArray[np.float32],
        effort: SearchEffort,
        mask: NDArray[np.bool_] | None = None,
    ) -> Candidates:
        """Find candidates for (Q, D) embeddings among the rows of a mask, (N,) bool."""
        faiss = import_faiss()
        parameters = self._parameters(faiss, effort, mask)
        threads = 1 if len(vectors) <= ONE_THREAD_QUERIES else faiss.omp_get_max_threads()
        with faiss_threads(threads):
            keep_search_parameters()
            scores, places = self._search(
                np.ascontiguousarray(vectors), effort.candidates, parameters
            )
        none = -np.inf if self.exact else np.inf
        last = np.where(places[:, -1] < 0, none, scores[:, -1]).astype(np.float32)
        if self.rows is None:
            return Candidates(scores, places, last)
        rows = np.where(places < 0, -1, self.rows[places])
        gone = (rows < 0) & (places >= 0)
        if gone.any():
            order = np.argsort(rows < 0, axis=1, kind="stable")
            scores = np.take_along_axis(np.where(gone, none, scores), order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
        return Candidates(scores, rows, last)

    def _search(self, vectors: NDArray[np.float32], count: int, parameters: Any) -> Any:  # noqa: ANN401
        """Search the FAISS index, turning queries in factors where that is possible."""
        if self.exact:
            return self.raw.search(vectors, count, params=parameters)
        if self._inner is None:
            faiss = import_faiss()
            transform = faiss.downcast_VectorTransform(self.raw.chain.at(0))
            inner = faiss.downcast_index(self.raw.index)
            self._inner = inner, known_rotation(transform, self.raw.d) or transform
        inner, rotation = self._inner
        return inner.search(rotation.apply(vectors), count, params=parameters)

    def only_present(self, mask: NDArray[np.bool_] | None, total: int) -> NDArray[np.bool_] | None:
        """Take from a mask the rows that are not in the index, while it is measured."""
        if self.rows is None:
            return mask
        rows = self.rows[: self.raw.ntotal]
        present = np.zeros(total, np.bool_)
        present[rows[rows >= 0]] = True
        if present.all():
            return mask
        return present if mask is None else present & mask

    def _parameters(self, faiss: Any, effort: SearchEffort, mask: NDArray[np.bool_] | None) -> Any:  # noqa: ANN401
        """Return FAISS's parameters; those without a filter are made once."""
        if mask is None and effort.reach in self._unfiltered:
            return self._unfiltered[effort.reach]
        options: dict[str, Any] = {}
        if mask is not None:
            mask = mask if self.rows is None else mask[self.rows] & (self.rows >= 0)
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=effort.reach, **options)
        elif self.has_lists:
            parameters = faiss.SearchParametersIVF(nprobe=effort.reach, **options)
        else:
            parameters = faiss.SearchParameters(**options)
        if mask is None:
            self._unfiltered[effort.reach] = parameters
        return parameters

    def rank(
        self, library: ImageLibrary, vectors: NDArray[np.float32], k: int, candidates: Candidates
    ) -> Iterator[TopK | None]:
        """Rank the candidates of each query exactly; None where they may lack one of the k best."""
        error = rounding_error(library.dim)
        for vector, scores, rows, last in zip(vectors, *candidates, strict=True):
            # Exact, if all rows that float32 could have kept from the first k are here.
            complete = not self.exact or last < scores[k - 1] - 2 * error
            found = rows[rows >= 0]
            if not complete or len(found) < k:
                yield None
                continue
            yield self._rank_one(library, vector, k, scores, found)

    def _rank_one(
        self,
        library: ImageLibrary,
        vector: NDArray[np.float32],
        k: int,
        scores: NDArray[np.float32],
        rows: NDArray[np.int64],
    ) -> TopK:
        """Rank the first candidates, and by their scores those of the others that are worth it."""
        matrix, first = matrix_of(library), FIRST_RANKED * k
        with one_blas_thread():
            exact = gathered_scores(matrix, rows[:first], vector)
            if self.margins is not None:
                kth = 2 - 2 * float(np.partition(exact, -k)[-k])
                limit = kth + self._scale(kth) * self.margins.code
                rows = rows[: max(first, int(np.searchsorted(scores[: len(rows)], limit, "right")))]
            more = gathered_scores(matrix, rows[first:], vector)
        return rescore(library, vector, np.concatenate([exact, more]), k, rows=rows)

    def _scale(self, kth: Any) -> Any:  # noqa: ANN401 (a float or an array)
        """Return how many times as large as usual errors are for queries far from the library."""
        usual = max(self.margins.usual, np.finfo(np.float32).tiny)  # type: ignore[union-attr]
        return np.sqrt(np.maximum(1, kth / usual))

    @property
    def knows_near_lists(self) -> bool:
        """Whether the centres tell which lists to read, before any row is found."""
        return self.has_lists and self.margins is not None and self.margins.spread is not None

    def near_lists(self, vectors: NDArray[np.float32]) -> NDArray[np.intp]:
        """Count the lists whose centres are about as near as the nearest: (Q,)."""
        if self.list_count == 1:
            return np.ones(len(vectors), np.intp)
        return count_near(self.centre_distances(vectors), self.margins.spread)  # type: ignore[union-attr,arg-type]

    def lists_needed(self, vectors: NDArray[np.float32], kth: NDArray[Any]) -> NDArray[np.intp]:
        """Count the lists that settle each query, as far as its answer is known: (Q,), or 0.

        Rows that a filter leaves may lie anywhere: only the squared distances `kth`, (Q,), of the
        k-th row found tell where others may be.
        """
        if self.margins is None or not self.has_lists:
            return np.zeros(len(vectors), np.intp)
        limit = kth + self._scale(kth) * self.margins.centre
        near = self.centre_distances(vectors) < limit[:, None]
        return np.where(np.isfinite(kth), np.count_nonzero(near, axis=1), 0)

    def is_beyond(self, last: NDArray[Any], kth: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for which queries no row beyond the last candidate can well be among the best: (Q,).

        Both are squared distances: the first by codes, infinite if all rows were candidates, and
        that of the k-th row found.
        """
        if self.margins is None:
            return np.ones(len(kth), np.bool_)
        beyond: NDArray[np.bool_] = last >= kth + self._scale(kth) * self.margins.code
        return beyond

    def centre_distances(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squared distances of queries to the centres of all lists: (Q, lists)."""
        if self._centres is None:
            centres = self._read_centres()
            self._centres = centres, 1 + np.einsum("ij,ij->i", centres, centres)
        centres, constant = self._centres
        with one_blas_thread():
            distances: NDArray[np.float32] = constant - 2 * (vectors @ centres.T)
        return distances

    def _read_centres(self) -> NDArray[np.float32]:
        """Return the centres of the lists, turned back to the axes of the embeddings."""
        faiss = import_faiss()
        inner = faiss.extract_index_ivf(self.raw)
        # a tensor, once pytorch-metric-learning has put FAISS's torch utilities in place
        centres = np.asarray(inner.quantizer.reconstruct_n(0, inner.nlist))
        rotation = faiss.downcast_VectorTransform(self.raw.chain.at(0))
        axes = np.asarray(faiss.vector_to_array(rotation.A)).reshape(rotation.d_out, rotation.d_in)
        return np.ascontiguousarray(centres @ axes)

    def size_bytes(self) -> int:
        """Size of the file that the index makes, which is not kept."""
        faiss, sizes = import_faiss(), [0]

        def count(data: bytes) -> int:
            sizes[0] += len(data)
            return len(data)

        faiss.write_index(self.raw, faiss.PyCallbackIOWriter(count))
        return sizes[0]
