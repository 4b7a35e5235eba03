"""Candidates of a FAISS index: rows that are probably the nearest, then ranked exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.retrieval.exact import rounding_error
from simsearch.retrieval.faiss_compat import faiss_threads, import_faiss, keep_search_parameters
from simsearch.retrieval.pruned import top_k_of_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.exact import TopK


ONE_THREAD_QUERIES = 4  # up to which waking FAISS's threads takes longer than the search


class SearchEffort(NamedTuple):
    """Search parameters of an index: a larger effort finds more and takes longer."""

    candidates: int  # that are ranked exactly, per query
    reach: int  # HNSW's efSearch, or IVF's nprobe


class Candidates(NamedTuple):
    """What FAISS finds for Q queries, best first."""

    scores: NDArray[np.float32]  # (Q, C) cosines of a flat index, squared distances of others
    rows: NDArray[np.int64]  # (Q, C), -1 at the end where there are fewer

    def first(self, count: int) -> Candidates:
        """Return the first `count` of each query."""
        return Candidates(self.scores[:, :count], self.rows[:, :count])


class CandidateIndex:
    """A FAISS index that takes whole embeddings, with the search parameters of its kind.

    Parameters
    ----------
    raw
        The FAISS index; all but "flat" rotate the embeddings first (`IndexPreTransform`).
    kind
        As in `IndexReport`.
    """

    def __init__(self, raw: Any, kind: str) -> None:  # noqa: ANN401 (FAISS has no types)
        self.raw, self.kind, self.exact = raw, kind, kind == "flat"

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
            scores, rows = self.raw.search(
                np.ascontiguousarray(vectors), effort.candidates, params=parameters
            )
        return Candidates(scores, rows)

    def _parameters(self, faiss: Any, effort: SearchEffort, mask: NDArray[np.bool_] | None) -> Any:  # noqa: ANN401
        options: dict[str, Any] = {}
        if mask is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=effort.reach, **options)
        elif self.kind in {"ivf", "ivfpq"}:
            parameters = faiss.SearchParametersIVF(nprobe=effort.reach, **options)
        else:
            parameters = faiss.SearchParameters(**options)
        if self.exact:
            return parameters
        return faiss.SearchParametersPreTransform(index_params=parameters)

    def rank(
        self, library: ImageLibrary, vectors: NDArray[np.float32], k: int, candidates: Candidates
    ) -> Iterator[TopK | None]:
        """Rank the candidates of each query exactly; None where they may lack one of the k best."""
        error = rounding_error(library.dim)
        for vector, scores, rows in zip(vectors, *candidates, strict=True):
            # Exact, if all rows that float32 could have kept from the first k are here.
            complete = not self.exact or scores[-1] < scores[k - 1] - 2 * error
            found = rows[rows >= 0]
            yield top_k_of_rows(library, vector, found, k) if complete and len(found) >= k else None

    def size_bytes(self) -> int:
        """Size of the file that the index makes, which is not kept."""
        faiss, sizes = import_faiss(), [0]

        def count(data: bytes) -> int:
            sizes[0] += len(data)
            return len(data)

        faiss.write_index(self.raw, faiss.PyCallbackIOWriter(count))
        return sizes[0]
