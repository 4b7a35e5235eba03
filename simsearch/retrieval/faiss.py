"""FAISS indexes for very large libraries [1]_: faster than a full scan, mostly approximate.

An index names candidates, and the library's own embeddings rank these exactly. It is built by
`faiss_build`, which also measures its recall. FAISS is imported where it is used.

.. [1] M. Douze et al. The Faiss library. arXiv:2401.08281, 2024.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from simsearch.errors import QueryError, StaleIndexError
from simsearch.files import iter_blocks
from simsearch.retrieval.exact import exact_index
from simsearch.retrieval.faiss_candidates import SearchEffort
from simsearch.retrieval.faiss_held_out import TUNED_K

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.exact import TopK
    from simsearch.retrieval.faiss_candidates import CandidateIndex, Candidates
    from simsearch.retrieval.faiss_report import IndexReport
    from simsearch.retrieval.faiss_store import IndexedRows


logger = logging.getLogger("simsearch")

SPARE_CANDIDATES = 16  # of a flat index beyond k, to know that float32 hid none
BATCH_QUERIES = 256  # that are answered together
LISTS_STEP = 4  # by which the lists that they read differ
WIDENING_FACTOR = 4  # of the effort, for queries that are not settled
SCAN_SHARE = 0.1  # of the rows that a filter leaves, below which a scan is better
CODES_SCAN_SHARE = 0.02  # the same beside codes of 1 bit, which are read in no time


class FaissIndex:
    """A FAISS index of one library; made by `build_index`, opened by `load_index`.

    Attributes
    ----------
    kind : Kind
        As in `IndexReport`.
    exact : bool
        Whether it finds what exact search finds, and not only most of it.
    report : IndexReport
        Its recall, speed and size on its library.
    """

    def __init__(  # noqa: PLR0917 (made here alone)
        self,
        candidates: CandidateIndex,
        effort: SearchEffort,
        report: IndexReport,
        embeddings: NDArray[np.float32] | None = None,
        digest: str | None = None,
        origin: IndexedRows | None = None,
    ) -> None:
        self.report, self.kind, self.exact = report, report.kind, candidates.exact
        self.candidates, self.effort, self.origin = candidates, effort, origin
        self._embeddings, self.digest = embeddings, digest  # what it was built of

    def __repr__(self) -> str:
        unit = "parts" if self.report.of_parts else "images"
        return f"FaissIndex({self.kind}, {self.report.rows:,} {unit})"

    def check(self, library: ImageLibrary) -> None:
        """Make sure that the index was built for this library.

        Raises
        ------
        StaleIndexError
            If it was built for another one, or the library has changed since.
        QueryError
            If it is of the parts of pictures.
        """
        if library.embeddings is self._embeddings:
            return
        if self.report.of_parts and isinstance(library.embeddings, np.ndarray):
            raise QueryError(f"{self!r} ranks parts of pictures: search with parts=True")
        if self.digest is None or library.stored is None or library.stored[1] != self.digest:
            raise StaleIndexError(
                f"{self!r} was not built for {library!r}, or the library has changed since: "
                "open it again with simsearch.load_index(library), or build it again with "
                "simsearch.build_index(library)"
            )
        self._embeddings = library.embeddings

    def top_k(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the k best rows for each of several embeddings; approximately, unless `exact`.

        Scores are exact, and k rows are found wherever there are k. Where an index cannot help, as
        with a filter that leaves few rows, the library is scanned.

        Parameters
        ----------
        library
            The library that the index was built for.
        vectors
            (Q, D) float32, rows of unit L2 norm.
        k
            How many rows to find; fewer if there are fewer.
        mask
            (N,) bool, the rows that may be found; all by default.

        Yields
        ------
        TopK
            One per vector, in order.

        Raises
        ------
        StaleIndexError
            If the index was not built for this library.
        """
        self.check(library)
        allowed = len(library) if mask is None else int(np.count_nonzero(mask))
        share = CODES_SCAN_SHARE if self.kind == "rabitq" else SCAN_SHARE
        if allowed < share * len(library):
            yield from exact_index(library).top_k(library, vectors, k, mask)
            return
        for block in iter_blocks(len(vectors), BATCH_QUERIES):
            yield from self._top_k_of_block(library, vectors[block], k, mask, allowed)

    def _top_k_of_block(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None,
        allowed: int,
    ) -> Iterator[TopK]:
        """Rank a block of queries, again with more effort for those that are not settled.

        The effort was set without a filter. With one, all allowed rows can lie far from the query,
        where rows are many and alike: there a wider search has to confirm the answer.
        """
        answers: dict[int, TopK | None] = {}
        scanned: list[int] = []
        work = self._first_efforts(vectors, self.effort_for(k, allowed / len(library)), k, mask)
        while work:
            effort, pending = work.pop()
            if 2 * effort.candidates > allowed:
                scanned += pending
                continue
            found = self.candidates.find(vectors[pending], effort, mask)
            ranked = list(self.candidates.rank(library, vectors[pending], k, found))
            kth = np.array([2 - 2 * one.scores[-1] if one else np.inf for one in ranked])
            needed = self._lists_needed(vectors[pending], kth, effort, mask)
            enough = self._enough_candidates(kth, found)
            wider: dict[SearchEffort, list[int]] = {}
            for i, one, many, lists in zip(pending, ranked, enough, needed.tolist(), strict=True):
                before, answers[i] = answers.get(i), one
                same = one and before and np.array_equal(one.rows, before.rows)
                settled = many and lists <= effort.reach
                if not settled or (self._must_confirm and mask is not None and not same):
                    wider.setdefault(self._wider(effort, many, lists), []).append(i)
            work += wider.items()
        if scanned:
            only = self.candidates.only_present(mask, len(library))
            exact = exact_index(library).top_k(library, vectors[scanned], k, only)
            answers.update(zip(scanned, exact, strict=True))
        return (one for _, one in sorted(answers.items()) if one)

    @property
    def _must_confirm(self) -> bool:
        """Whether only a wider search tells that one with a filter was wide enough."""
        return self.kind == "hnsw" or not (self.exact or self.candidates.margins)

    def _wider(self, effort: SearchEffort, enough: bool, lists: int) -> SearchEffort:
        """Return the next effort; `lists` are known to be enough, unless it is 0."""
        candidates, reach = (WIDENING_FACTOR * amount for amount in effort)
        if lists:  # in powers of two, so that queries that need about as many share a search
            reach = max(effort.reach, 1 << (lists - 1).bit_length())
            candidates = effort.candidates if enough else candidates
        return SearchEffort(candidates, reach)

    def _lists_needed(
        self,
        vectors: NDArray[np.float32],
        kth: NDArray[np.float64],
        effort: SearchEffort,
        mask: NDArray[np.bool_] | None,
    ) -> NDArray[np.intp]:
        """Count the lists that settle each query: (Q,); 0 where that is not known."""
        if mask is None and self.candidates.knows_near_lists:
            return np.full(len(vectors), effort.reach)  # the first search has read them
        return self.candidates.lists_needed(vectors, kth)

    def _enough_candidates(self, kth: NDArray[np.float64], found: Candidates) -> list[bool]:
        """Tell for which queries the last candidate is too far, by the k-th row found: (Q,)."""
        enough = np.isfinite(kth)
        if not self.exact:
            last = np.where(found.rows[:, -1] < 0, np.inf, found.scores[:, -1])
            enough &= self.candidates.is_beyond(last, kth)
        return cast("list[bool]", enough.tolist())

    def _first_efforts(
        self,
        vectors: NDArray[np.float32],
        effort: SearchEffort,
        k: int,
        mask: NDArray[np.bool_] | None,
    ) -> list[tuple[SearchEffort, list[int]]]:
        """Return the effort to begin with, and the queries for it: each reads the lists near it.

        A query reads as many by itself as among others: what the report states holds for both.
        """
        every = list(range(len(vectors)))
        if mask is not None or not self.candidates.knows_near_lists:
            return [(effort, every)]
        near, lists = self.candidates.near_lists(vectors), self.candidates.list_count
        reaches = np.ceil(near * math.sqrt(max(k, TUNED_K) / TUNED_K)).astype(int).tolist()
        groups: dict[SearchEffort, list[int]] = {}
        for i, reach in zip(every, reaches, strict=True):
            shared = min(lists, -(-reach // LISTS_STEP) * LISTS_STEP)
            groups.setdefault(effort._replace(reach=shared), []).append(i)
        return list(groups.items())

    def effort_for(self, k: int, share: float) -> SearchEffort:
        """Return the effort for k rows among the share of rows that a filter allows.

        A larger k takes more candidates, and a filter a wider search to pass the other rows.
        """
        candidates, reach = self.effort
        if self.exact:
            return SearchEffort(k + SPARE_CANDIDATES, 1)
        candidates = candidates * max(k, TUNED_K) // TUNED_K
        if self.kind == "hnsw":
            reach = max(reach, candidates)
        else:  # more neighbours lie in more lists, but not in as many more
            reach = math.ceil(reach * math.sqrt(max(k, TUNED_K) / TUNED_K))
        return SearchEffort(candidates, math.ceil(reach / share))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> FaissIndex:
        """Open the index in a library's folder, memory-mapped where its kind allows.

        Raises
        ------
        LibraryError
            If there is none, or its files are damaged.
        MissingExtraError
            If FAISS is not installed.
        """
        from simsearch.retrieval.faiss_store import open_index

        return open_index(Path(folder).expanduser())


def load_index(
    source: ImageLibrary | str | os.PathLike[str] = "outputs", *, parts: bool = False
) -> FaissIndex:
    """Open the index that `build_index` has stored, and bring it up to date.

    Where the library has changed since, rows that it still has stay in the index, wherever they
    stand now; new ones are added, those that are gone are left out, and it is stored again. Its
    report counts them. Once they are more than a tenth of the rows, recall is measured again.

    Parameters
    ----------
    source
        The library that it belongs to, or the folder that holds both.
    parts
        Open that of the parts of the pictures.

    Raises
    ------
    LibraryError
        If there is none, or it is damaged.
    StaleIndexError
        If more than half of the library's rows are others than those that it was built of, or an
        earlier version has built it.
    MissingExtraError
        If FAISS is not installed.
    """
    if parts:
        from simsearch.retrieval.part_faiss import open_part_index

        return open_part_index(source)
    from simsearch.retrieval.faiss_follow import open_followed

    return open_followed(source)
