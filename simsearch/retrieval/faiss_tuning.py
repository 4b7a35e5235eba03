"""Tuning and measurement of a FAISS index on the library that it was built for."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.heads import unit
from simsearch.retrieval.exact import TopK, exact_index
from simsearch.retrieval.faiss import TUNED_K
from simsearch.retrieval.faiss_candidates import SearchEffort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.faiss import FaissIndex, IndexReport
    from simsearch.retrieval.faiss_candidates import CandidateIndex, Candidates


TARGET_RECALL = 0.997  # at 10, so that 0.99 is reached by other queries too
RECALL_TOLERANCE = 0.002  # of the highest recall in reach, given up for speed
SCORE_TOLERANCE = 1e-12  # by which sums in another order may differ
SAMPLE_QUERIES = 300  # that set the effort, and as many others that measure
TIMED_QUERIES, TIMED_EXACT_QUERIES = 100, 15  # of which the median time is reported
MIX_WEIGHT = 0.3  # of another row, added to a row to make a query unlike every row
CANDIDATE_COUNTS = (20, 30, 50, 70, 100, 150, 200, 300, 500)
MAX_REACH = 1024  # of efSearch or nprobe
MIN_EF_SEARCH = 40  # however little the sample needs
LISTS_MARGIN = 2  # times as many lists are read as the sample needs

EMPTY_TOP_K = TopK(np.empty(0, np.intp), np.empty(0))


def tune_effort(index: CandidateIndex, library: ImageLibrary, lists: int) -> SearchEffort:
    """Find the effort that reaches the target recall, or nearly the highest in reach.

    Half of the queries are rows. The others are mixtures of two rows and unlike every row, as new
    images are: a graph finds its own rows, and what is linked to them, a little too easily.

    Parameters
    ----------
    index
        With all rows of the library.
    library
        What it was built for.
    lists
        Number of its inverted lists, if it has any.
    """
    reaches = _reaches(index.kind, lists)
    if index.exact:
        return SearchEffort(CANDIDATE_COUNTS[-1], reaches[-1])
    own, vectors = _tuning_queries(library)
    truth = _exact_neighbours(library, vectors, own)

    def recall(candidates: Candidates) -> float:
        ranked = index.rank(library, vectors, min(TUNED_K + 1, len(library)), candidates)
        found = _without_own((one or EMPTY_TOP_K for one in ranked), own)
        half = len(own) // 2
        return min(recall_of(found[:half], truth[:half]), recall_of(found[half:], truth[half:]))

    widest = index.find(vectors, SearchEffort(CANDIDATE_COUNTS[-1], reaches[-1]))
    goal = min(TARGET_RECALL, recall(widest) - RECALL_TOLERANCE)
    count = _first_reaching(goal, CANDIDATE_COUNTS, lambda count: recall(widest.first(count)))
    reach = _first_reaching(
        goal, reaches, lambda reach: recall(index.find(vectors, SearchEffort(count, reach)))
    )
    # A query that misses the place of its neighbours misses them all; a sample meets few such.
    safe = max(reach, MIN_EF_SEARCH) if index.kind == "hnsw" else LISTS_MARGIN * reach
    return SearchEffort(count, min(safe, reaches[-1]))


def _tuning_queries(library: ImageLibrary) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return rows, then mixtures: their row numbers, -1 for mixtures, and their embeddings."""
    own = draw_rows(library, SAMPLE_QUERIES, seed=1)
    vectors = np.asarray(library.embeddings[own])
    others = np.roll(vectors, len(vectors) // 2, axis=0)
    mixtures = unit(np.asarray(vectors + MIX_WEIGHT * others, np.float32))
    return np.concatenate([own, np.full(len(own), -1)]), np.concatenate([vectors, mixtures])


def _reaches(kind: str, lists: int) -> list[int]:
    """List the values of efSearch or nprobe to try, in steps of about 1.4."""
    highest = {"hnsw": MAX_REACH, "ivf": lists, "ivfpq": lists}.get(kind, 1)
    steps = (round(2 ** (i / 2)) for i in range(2 * MAX_REACH.bit_length() - 1))
    return sorted({min(step, highest) for step in steps})


def _first_reaching(goal: float, steps: Sequence[int], reached: Callable[[int], float]) -> int:
    """Return the first step that reaches a goal, the last if none does."""
    return steps[min(bisect_left(steps, goal, key=reached), len(steps) - 1)]


def measure(index: FaissIndex, candidates: CandidateIndex, library: ImageLibrary) -> IndexReport:
    """Complete the report of an index, by rows of the library as queries."""
    own = draw_rows(library, SAMPLE_QUERIES, seed=2)
    vectors = np.asarray(library.embeddings[own])
    truth = _exact_neighbours(library, vectors, own)
    found = _without_own(index.top_k(library, vectors, TUNED_K + 1), own)
    exact = exact_index(library)
    return replace(
        index.report,
        recall_at_10=recall_of(found, truth),
        exact_ms=median_ms(
            lambda vector: exact.top_k(library, vector, TUNED_K), vectors[:TIMED_EXACT_QUERIES]
        ),
        ms_per_query=median_ms(
            lambda vector: index.top_k(library, vector, TUNED_K), vectors[:TIMED_QUERIES]
        ),
        size_bytes=candidates.size_bytes(),
    )


def draw_rows(library: ImageLibrary, count: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw `count` different row numbers, or all there are; sorted, for reads in file order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(library), min(count, len(library)), replace=False))


def _exact_neighbours(
    library: ImageLibrary, vectors: NDArray[np.float32], own: NDArray[np.intp]
) -> list[TopK]:
    """Return the ten best rows for each query, without its own."""
    return _without_own(exact_index(library).top_k(library, vectors, TUNED_K + 1), own)


def _without_own(found: Iterable[TopK], own: NDArray[np.intp]) -> list[TopK]:
    """Leave out of each answer the query's own row."""
    kept = [
        (one, np.flatnonzero(one.rows != row)[:TUNED_K])
        for one, row in zip(found, own, strict=True)
    ]
    return [TopK(one.rows[places], one.scores[places]) for one, places in kept]


def recall_of(found: Sequence[TopK], truth: Sequence[TopK]) -> float:
    """Return the share of the best rows that were found; equal scores count as well."""
    total = sum(len(best.rows) for best in truth)
    hits = sum(
        int(np.count_nonzero(some.scores >= best.scores[-1] - SCORE_TOLERANCE))
        for some, best in zip(found, truth, strict=True)
        if len(best.rows)
    )
    return hits / total if total else 1.0


def median_ms(
    search: Callable[[NDArray[np.float32]], Iterator[TopK]], vectors: NDArray[np.float32]
) -> float:
    """Median time of a search for one vector, in ms."""
    times = []
    for vector in vectors:
        started = time.perf_counter()
        next(search(vector[None]))
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)
