"""Effort of FAISS indexes, set by queries with known answers, and measurement by others."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from simsearch.retrieval.exact import TopK, exact_index
from simsearch.retrieval.faiss import FaissIndex
from simsearch.retrieval.faiss_candidates import Margins, SearchEffort, count_near
from simsearch.retrieval.faiss_held_out import (
    EMPTY_TOP_K,
    TUNED_K,
    lowest_group,
    recall_of,
    without_own,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.faiss_candidates import CandidateIndex, Candidates
    from simsearch.retrieval.faiss_held_out import Questions

TARGET_RECALL = 0.997  # at 10, so that 0.99 is reached by other queries too
RECALL_TOLERANCE = 0.002  # of the highest recall in reach, given up for speed
CODE_QUANTILE, CENTRE_QUANTILE = 0.998, 0.995  # of the nearest rows, that the margins let in
SPREAD_QUANTILE = 0.997  # of those of each kind of query
SETTLED_SHARE = 0.5  # of the queries, for which the first search reads lists enough
CANDIDATES_SHARE = 0.99  # of the queries, for which it has candidates enough
MIN_CANDIDATES, MAX_CANDIDATES = 20, 1000
MIN_CODES = 150  # of 1 or 2 bits a number: more codes cost little, a second search much
MAX_REACH = 1024  # of efSearch
MIN_EF_SEARCH = 40  # however little the sample needs
TIMED_QUERIES, TIMED_EXACT_QUERIES = 100, 15  # of which the median time is reported


def tune(
    index: CandidateIndex, library: ImageLibrary, questions: Sequence[Questions]
) -> tuple[SearchEffort, Margins | None]:
    """Find when a query is settled, and the effort that settles most in one search."""
    vectors = np.concatenate([some.vectors for some in questions])
    truth = [best for some in questions for best in some.truth]
    rows = index.raw.ntotal
    lists = count_lists_of(index)
    if index.exact or not rows:
        return SearchEffort(MIN_CANDIDATES, 1), None
    widest = SearchEffort(min(MAX_CANDIDATES, rows), lists or MAX_REACH)
    found = index.find(vectors, widest)
    kth = np.array([2 - 2 * best.scores[-1] if len(best.rows) else 0.0 for best in truth])
    code = _code_margin(found, truth)
    likely = np.concatenate([np.full(len(some.own), some.kind != "unlike") for some in questions])
    usual = float(np.quantile(kth[likely], 0.9))
    candidates = np.count_nonzero(found.scores < (kth + code)[:, None], axis=1) + 1
    count = int(np.quantile(candidates[likely], CANDIDATES_SHARE, method="higher"))
    least = MIN_CODES if index.kind in {"rabitq", "ivfpq"} else MIN_CANDIDATES
    count = min(max(least, count), MAX_CANDIDATES)
    if lists:
        reach, centre, spread = _tune_lists(index, library, questions, kth)
        return SearchEffort(count, reach), Margins(code, centre, usual, spread)
    reach = _graph_reach(index, library, questions, count) if index.kind == "hnsw" else 1
    return SearchEffort(count, reach), Margins(code, 0.0, usual)


def count_lists_of(index: CandidateIndex) -> int:
    """Return the number of inverted lists; 0 if there are none."""
    from simsearch.retrieval.faiss_compat import import_faiss

    return int(import_faiss().extract_index_ivf(index.raw).nlist) if index.has_lists else 0


def _code_margin(found: Candidates, truth: Sequence[TopK]) -> float:
    """Return by how much codes make the nearest rows seem farther than the k-th of them."""
    errors: list[NDArray[Any]] = []
    for scores, rows, best in zip(found.scores, found.rows, truth, strict=True):
        if not len(best.rows):
            continue
        order = np.argsort(rows)
        places = order[np.searchsorted(rows, best.rows, sorter=order).clip(max=len(rows) - 1)]
        seen = np.where(rows[places] == best.rows, scores[places], scores[rows >= 0].max(initial=0))
        errors.append(seen - (2 - 2 * best.scores[-1]))
    return _margin(errors, CODE_QUANTILE)


def _tune_lists(
    index: CandidateIndex,
    library: ImageLibrary,
    questions: Sequence[Questions],
    kth: NDArray[Any],
) -> tuple[int, float, float]:
    """Return how many lists to read, and the margins of the centres.

    The first is by how much the centres of their lists are farther than the k-th nearest row, the
    second by how much they are farther than the nearest centre, whatever the kind of query.
    """
    farther, spreads, likely, done = [], [], [], 0
    for some in questions:
        beyond: list[NDArray[Any]] = []
        away = index.centre_distances(some.vectors)
        for distances, best in zip(away, some.truth, strict=True):
            rows = np.asarray(library.embeddings[best.rows])
            own = distances[index.centre_distances(rows).argmin(axis=1)]
            farther.append(own - kth[done])
            beyond.append(own - distances.min())
            done += 1
        spreads.append(_margin(beyond, SPREAD_QUANTILE))
        likely += [away] if some.kind != "unlike" else []
    spread = max(spreads)
    near = count_near(np.concatenate(likely), spread)
    typical = int(np.quantile(near, SETTLED_SHARE, method="higher"))
    return typical, _margin(farther, CENTRE_QUANTILE), spread


def _margin(values: list[NDArray[Any]], share: float) -> float:
    some = np.concatenate([np.empty(0), *values])
    return max(0.0, float(np.quantile(some, share))) if len(some) else 0.0


def _graph_reach(
    index: CandidateIndex, library: ImageLibrary, questions: Sequence[Questions], count: int
) -> int:
    """Return the least efSearch that every kind of query reaches the target recall with."""

    def recall(reach: int) -> float:
        recalls = []
        for some in questions:
            found = index.find(some.vectors, SearchEffort(count, reach))
            k = min(TUNED_K + 1, len(library))
            ranked = index.rank(library, some.vectors, k, found)
            answers = without_own((one or EMPTY_TOP_K for one in ranked), some.own)
            recalls.append(recall_of(answers, some.truth))
        return min(recalls)

    goal = min(TARGET_RECALL, recall(MAX_REACH) - RECALL_TOLERANCE)
    reach = MIN_EF_SEARCH
    while reach < MAX_REACH and recall(reach) < goal:
        reach = math.ceil(1.4 * reach)
    return min(reach, MAX_REACH)


def measure_recall(
    index: FaissIndex, library: ImageLibrary, questions: Sequence[Questions]
) -> dict[str, Any]:
    """Return the recalls of a report; the index lacks the rows that were held out."""
    recalls: dict[str, Any] = {}
    all_found: list[TopK] = []
    for some in questions:
        ranked = index.top_k(library, some.vectors, TUNED_K + 1)
        found = without_own(ranked, some.own)
        recalls[f"recall_{some.kind}"] = recall_of(found, some.truth)
        all_found += found
    stated = [value for name, value in recalls.items() if name != "recall_unlike"]
    floor = lowest_group(all_found, [best for some in questions for best in some.truth])
    return recalls | {"recall_at_10": min(stated, default=1.0), "recall_floor": floor}


def measure_cost(
    index: FaissIndex, library: ImageLibrary, questions: Sequence[Questions]
) -> dict[str, Any]:
    """Return the times of a report, over queries of all kinds but those unlike any picture."""
    vectors = np.concatenate([some.vectors for some in questions if some.kind != "unlike"])
    vectors = vectors[np.random.default_rng(6).permutation(len(vectors))]
    exact = exact_index(library)
    return {
        "exact_ms": median_ms(
            lambda vector: exact.top_k(library, vector, TUNED_K), vectors[:TIMED_EXACT_QUERIES]
        ),
        "ms_per_query": median_ms(
            lambda vector: index.top_k(library, vector, TUNED_K), vectors[:TIMED_QUERIES]
        ),
    }


def median_ms(
    search: Callable[[NDArray[np.float32]], Iterator[TopK]], vectors: NDArray[np.float32]
) -> float:
    """Median time of a search for one vector, in ms."""
    times = []
    for vector in vectors:
        started = time.perf_counter()
        next(search(vector[None]))
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times) if times else math.nan
